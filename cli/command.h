#ifndef WITAN_CLI_COMMAND_H_
#define WITAN_CLI_COMMAND_H_

// The verbs of `witan`. Each has one file and one function here that declares
// its options; what it does is a closure that main() calls once the options
// were read.

#include <functional>

namespace CLI {
class App;
}

namespace witan {

struct Command {
  CLI::App* app = nullptr;  // owned by the parent that it was added to
  // Returns an exit code of base/config.h. REQUIRES: the options were parsed.
  std::function<int()> run;
};

Command AddServe(CLI::App& parent);
Command AddGenerate(CLI::App& parent);
Command AddChat(CLI::App& parent);
Command AddTokenize(CLI::App& parent);
Command AddStatus(CLI::App& parent);
Command AddAdapter(CLI::App& parent);
Command AddPlan(CLI::App& parent);
Command AddBench(CLI::App& parent);  // cli/bench/

}  // namespace witan

#endif  // WITAN_CLI_COMMAND_H_
