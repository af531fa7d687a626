// The options of `witan bench`.

#include <CLI/CLI.hpp>
#include <memory>

#include "cli/bench/bench.h"
#include "cli/client.h"

namespace witan {
namespace {

using bench::BenchOptions;
using bench::ClassSetting;

constexpr char kLoad[] = "Load";
constexpr char kReplay[] = "Replay";
constexpr char kReport[] = "Report";

void AddClassSettings(CLI::App& app, BenchOptions* options) {
  for (const ClassSetting& setting : bench::ClassSettings()) {
    const std::string name = std::string("--") + setting.name;
    if (*setting.value_name == '\0') {
      app.add_flag(name, options->flags[setting.name], setting.help)
          ->group(setting.group);
      continue;
    }
    app.add_option(name, options->settings[setting.name], setting.help)
        ->type_name(setting.value_name)
        ->default_str(setting.default_value)
        ->group(setting.group);
  }
}

void AddLoadOptions(CLI::App& app, BenchOptions* options) {
  AddServerOption(app, &options->server);
  app.add_option("--duration", options->duration_s,
                 "Seconds after which nothing more is sent; what is in flight "
                 "is waited for")
      ->group(kLoad);
  app.add_option("--warmup-requests", options->num_warmup_requests,
                 "Requests before the load, at most 8 at once, that are in no "
                 "number but their errors. They warm shared prefixes, but no "
                 "blocks of a trace")
      ->capture_default_str()
      ->group(kLoad);
  app.add_option(
         "--class", options->classes,
         "NAME:KEY=VALUE,...: a kind of requests with settings of its own; may "
         "be repeated. Keys are the options of the headings Arrivals and "
         "Requests without --; what a class does not name is as the option "
         "says. E.g. decoders:clients=32,prompt-tokens=16,output-tokens=256 "
         "and bursts:rate=0.5,burst=4,prompt-tokens=1024,output-tokens=8")
      ->type_name("CLASS")
      ->allow_extra_args(false)
      ->group(kLoad);
  app.add_option("--seed", options->seed,
                 "Same seed, same arrivals, lengths, prompts and sampling. "
                 "Prompts are random token ids, a function of the seed alone: "
                 "give another one to a server that has answered this load, "
                 "or it finds the prompts in its prefix cache")
      ->capture_default_str()
      ->group(kLoad);
  app.add_option("--connections", options->num_connections,
                 "TCP connections that the requests take in turn")
      ->capture_default_str()
      ->group(kLoad);
  app.add_option("--timeout-s", options->timeout_s,
                 "Seconds after which a request has failed")
      ->capture_default_str()
      ->group(kLoad);
}

void AddReplayOptions(CLI::App& app, BenchOptions* options) {
  CLI::Option* const replay =
      app.add_option(
             "--replay", options->trace_file,
             "Send what this trace of a real load holds, open loop: JSON "
             "lines with timestamp (ms), "
             "input_length, output_length and perhaps hash_ids (equal ids: "
             "equal blocks of the prompt), tenant, priority; or CSV with "
             "the header TIMESTAMP,ContextTokens,GeneratedTokens")
          ->type_name("FILE")
          ->group(kReplay);
  app.add_option("--replay-speed", options->trace_fit.speed,
                 "2 replays in half the time")
      ->capture_default_str()
      ->needs(replay)
      ->group(kReplay);
  app.add_option("--replay-length-scale", options->trace_fit.length_scale,
                 "Multiply the lengths of prompts, outputs and blocks by this")
      ->capture_default_str()
      ->needs(replay)
      ->group(kReplay);
  app.add_option("--replay-block-tokens", options->trace_fit.block_tokens,
                 "Tokens of a block that hash_ids name, before scaling")
      ->capture_default_str()
      ->needs(replay)
      ->group(kReplay);
  app.add_flag("--replay-skip-unservable", options->trace_fit.skip_unservable,
               "Leave out entries without tokens or beyond the model's "
               "context, and say how many, instead of refusing them")
      ->needs(replay)
      ->group(kReplay);
}

void AddReportOptions(CLI::App& app, BenchOptions* options) {
  app.add_option("--objective", options->objectives,
                 "NAME:MS, may be repeated: goodput counts requests that keep "
                 "all of them. ttft, tpot and e2e are the request's own; itl "
                 "is the 99th percentile of the request's inter-token "
                 "latencies, in which tokens of one chunk share its gap; gap "
                 "is the longest time between two chunks of the request, "
                 "which no such sharing hides")
      ->type_name("NAME:MS")
      ->allow_extra_args(false)
      ->group(kReport);
  app.add_option("--json", options->json_file,
                 "Write all numbers as one JSON object; - is stdout, and then "
                 "the tables go to stderr")
      ->type_name("FILE")
      ->configurable(false)
      ->group(kReport);
  app.add_flag("--json-requests", options->json_requests,
               "With --json: also each request and when its tokens came")
      ->configurable(false)
      ->group(kReport);
  app.add_option("--plot", options->plot_file,
                 "Draw the run: tokens/s and requests in flight over time, "
                 "TTFT and inter-token latency as cumulative distributions")
      ->type_name("FILE.svg")
      ->configurable(false)
      ->group(kReport);
  app.add_flag(
         "--allow-errors", options->allow_errors,
         "Exit with 0 even if requests failed. They are never tried again, "
         "counted by their code and kept out of the latencies either "
         "way")
      ->group(kReport);
}

}  // namespace

Command AddBench(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "bench",
      "Load a cluster and measure its latencies, throughput and goodput");
  const auto options = std::make_shared<BenchOptions>();
  AddLoadOptions(*app, options.get());
  AddClassSettings(*app, options.get());
  AddReplayOptions(*app, options.get());
  AddReportOptions(*app, options.get());
  return {app, [options] { return bench::RunBench(*options); }};
}

}  // namespace witan
