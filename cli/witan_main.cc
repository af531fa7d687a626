// witan: starts a local cluster and talks to any.

#include <CLI/CLI.hpp>
#include <csignal>
#include <cstdio>
#include <optional>
#include <vector>

#include "base/build_id.h"
#include "base/config.h"
#include "cli/command.h"

int main(int argc, char** argv) {
  // A reader that went away is an error of a write, not the end.
  std::signal(SIGPIPE, SIG_IGN);
  CLI::App app(
      "Witan serves a language model on several processes, with the same bits "
      "on any number of them.",
      "witan");
  app.set_version_flag("--version", witan::VersionLine("witan"));
  app.require_subcommand(1);
  const std::vector<witan::Command> commands = {
      witan::AddServe(app),    witan::AddGenerate(app), witan::AddChat(app),
      witan::AddTokenize(app), witan::AddStatus(app),   witan::AddAdapter(app),
      witan::AddPlan(app),     witan::AddBench(app)};
  if (const std::optional<int> code =
          witan::ParseCommandLine(app, argc, argv)) {
    return *code;
  }
  for (const witan::Command& command : commands) {
    if (!command.app->parsed()) continue;
    const int code = command.run();
    const bool is_written = std::fflush(stdout) == 0 && !std::ferror(stdout);
    if (code != witan::kExitOk || is_written) return code;
    std::fputs("error: the output could not be written in full\n", stderr);
    return witan::kExitResources;
  }
  return witan::kExitUsage;
}
