#ifndef WITAN_BASE_CONFIG_H_
#define WITAN_BASE_CONFIG_H_

// How the three binaries read their options. One option, four forms: a flag
// (--metrics-port 9100), an environment variable (WITAN_METRICS_PORT=9100), a
// key of the TOML file named by --config (metrics-port = 9100, or
// metrics_port), or the default; the first of these that is given wins. Flags
// and keys that do not exist are errors that suggest the nearest name.
//
// An option that is not configurable (CLI::Option::configurable) is a flag and
// nothing else. What a client prints or writes is such an option: its name may
// mean another thing to another verb, and no script expects the environment to
// change what it reads.
//
// A binary with subcommands gives the selected one its keys from a table of
// its name ([serve]), then from the top level. Top-level keys must exist in
// some subcommand; environment variables of options that a command does not
// have are not looked at.

#include <absl/status/statusor.h>

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace CLI {
class App;
}

namespace witan {

// Exit codes of every binary, for scripts and supervisors.
constexpr int kExitOk = 0;
constexpr int kExitInternal = 1;   // anything else
constexpr int kExitUsage = 2;      // flags, environment or configuration file
constexpr int kExitModel = 3;      // model files, or a peer of another build
constexpr int kExitResources = 4;  // a port in use, memory, disk
constexpr int kExitPeerLost = 5;   // a process we depend on went away

// Value of an environment variable; std::nullopt when it is not set.
using EnvironmentFn =
    std::function<std::optional<std::string>(const std::string& name)>;

EnvironmentFn ProcessEnvironment();

// The name in `candidates` nearest to `name` by edit distance, or empty if
// none is near enough to be meant. Linear in the candidates.
std::string ClosestName(std::string_view name,
                        const std::vector<std::string>& candidates);

// Parses `arguments` (without the program's name) into the variables that
// `app`'s options are bound to. INVALID_ARGUMENT says what is wrong. Returns
// the text to print when help or the version was asked for, else empty.
// REQUIRES: `app` has no callbacks that do work (they would run before the
// environment and the file were read) and no option called --config.
absl::StatusOr<std::string> ParseOptions(CLI::App& app,
                                         std::vector<std::string> arguments,
                                         const EnvironmentFn& environment);

// For main(): parses, prints help to stdout or the error to stderr. A value
// means: end the process with it.
std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv);

}  // namespace witan

#endif  // WITAN_BASE_CONFIG_H_
