#include "cli/plan.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <filesystem>
#include <memory>
#include <utility>

#include "base/bounds.h"
#include "base/config.h"
#include "base/file.h"
#include "base/limits.h"
#include "base/status.h"
#include "cli/command.h"
#include "cli/output.h"
#include "model/json_object.h"

namespace witan {
namespace {

constexpr double kGib = 1 << 30;

double InGib(int64_t bytes) { return static_cast<double>(bytes) / kGib; }

struct Unit {
  std::string_view name;
  double bytes;
};
constexpr Unit kUnits[] = {{"", kGib},          {"MiB", 1 << 20}, {"GiB", kGib},
                           {"MB", 1e6},         {"GB", 1e9},      {"TB", 1e12},
                           {"TiB", kGib * 1024}};

absl::Status CheckPositive(std::string_view option,
                           const std::optional<double>& value) {
  if (!value.has_value() || (std::isfinite(*value) && *value > 0)) {
    return absl::OkStatus();
  }
  return InvalidArgument("{} is {}; use a number above 0", option, *value);
}

absl::Status CheckCostOptions(const PlanOptions& options) {
  RETURN_IF_ERROR(CheckPositive("--gpu-hour-price", options.gpu_hour_price));
  RETURN_IF_ERROR(
      CheckPositive("--tokens-per-second", options.tokens_per_second));
  if (options.gpu_hour_price.has_value() ==
      options.tokens_per_second.has_value()) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "{} needs {} beside it: a million tokens cost price * GPUs * time",
      options.gpu_hour_price.has_value() ? "--gpu-hour-price"
                                         : "--tokens-per-second",
      options.gpu_hour_price.has_value() ? "--tokens-per-second"
                                         : "--gpu-hour-price");
}

absl::StatusOr<LayoutQuestion> MakeQuestion(const PlanOptions& options,
                                            const ModelConfig& config) {
  LayoutQuestion question = {.num_gpus = options.num_gpus,
                             .context_tokens = options.context_tokens.value_or(
                                 config.max_context_tokens),
                             .max_step_tokens = options.max_step_tokens,
                             .tp = options.tp,
                             .ep = options.ep};
  RETURN_IF_ERROR(CheckRange("--gpus", question.num_gpus, 1, kMaxWorkers));
  RETURN_IF_ERROR(CheckRange("--context", question.context_tokens, 1,
                             config.max_context_tokens));
  RETURN_IF_ERROR(CheckRange("--max-step-tokens", question.max_step_tokens, 1,
                             kMaxStepTokens));
  const auto memory = ParseMemorySize(options.gpu_memory);
  if (!memory.ok()) return Annotate(memory.status(), "--gpu-memory");
  question.gpu_memory_bytes = *memory;
  return question;
}

nlohmann::ordered_json LayoutJson(const LayoutPlan& plan, bool is_best) {
  return {{"tp", plan.layout.tp},
          {"ep", plan.layout.ep},
          {"num_ranks", plan.layout.num_ranks()},
          {"num_replicas", plan.num_replicas},
          {"fits", plan.fits()},
          {"best", is_best},
          {"bytes_per_rank", plan.memory.total_bytes()},
          {"weights_bytes", plan.memory.weights_bytes},
          {"kv_bytes", plan.memory.kv_bytes},
          {"workspace_bytes", plan.memory.workspace_bytes},
          {"communication_bytes", plan.memory.communication_bytes},
          {"kv_bytes_per_token", plan.kv_bytes_per_token()},
          {"num_kv_blocks", plan.num_blocks},
          {"num_requests", plan.num_requests},
          {"total_requests", plan.total_requests()}};
}

std::string GpusText(int64_t num_gpus) {
  return num_gpus == 1 ? "1 GPU" : fmt::format("{} GPUs", num_gpus);
}

struct Column {
  std::string_view name;
  size_t width;
};
// Sizes without a unit are GiB of the rank that needs the most.
constexpr Column kColumns[] = {{"", 1},
                               {"tp", 2},
                               {"ep", 2},
                               {"ranks", 5},
                               {"replicas", 8},
                               {"idle", 4},
                               {"fits", 4},
                               {"GiB/rank", 8},
                               {"weights", 7},
                               {"KV", 7},
                               {"workspace", 9},
                               {"comm.", 6},
                               {"KV B/token", 10},
                               {"KV blocks", 9},
                               {"requests", 8},
                               {"in all", 6}};

// REQUIRES: a cell for each column.
std::string TableLine(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) {
    line +=
        fmt::format("{}{:>{}}", i == 0 ? "" : " ", cells[i], kColumns[i].width);
  }
  return line + "\n";
}

std::string TableHead() {
  std::vector<std::string> cells;
  for (const Column& column : kColumns) cells.emplace_back(column.name);
  return TableLine(cells);
}

std::string LayoutRow(const LayoutPlan& plan, int64_t num_gpus, bool is_best) {
  const auto gib = [](int64_t bytes) {
    return fmt::format("{:.2f}", InGib(bytes));
  };
  const auto number = [](int64_t value) { return fmt::format("{}", value); };
  const MemoryPlan& memory = plan.memory;
  const int num_ranks = plan.layout.num_ranks();
  return TableLine(
      {is_best ? "*" : "", number(plan.layout.tp), number(plan.layout.ep),
       number(num_ranks), number(plan.num_replicas),
       number(num_gpus - plan.num_replicas * num_ranks),
       plan.fits() ? "yes" : "no", gib(memory.total_bytes()),
       gib(memory.weights_bytes), gib(memory.kv_bytes),
       gib(memory.workspace_bytes), gib(memory.communication_bytes),
       number(plan.kv_bytes_per_token()), number(plan.num_blocks),
       number(plan.num_requests), number(plan.total_requests())});
}

std::string Head(const PlanReport& report) {
  const LayoutQuestion& question = report.question;
  return fmt::format(
      "model                  {} ({}, {})\n"
      "num_parameters         {}\n"
      "num_active_parameters  {}\n"
      "planned with           {} of {:.2f} GiB, of which {:.2f} are used; the "
      "rest is left to kernels and libraries\n"
      "requests               of {} tokens, KV cache in {}, steps of {} rows\n",
      report.model, report.config.architecture, NameOf(report.config.weights),
      report.parameters.total, report.parameters.active,
      GpusText(question.num_gpus), InGib(question.gpu_memory_bytes),
      InGib(UsableBytes(question.gpu_memory_bytes)), question.context_tokens,
      NameOf(report.config.weights), question.max_step_tokens);
}

std::string BestLine(const PlanReport& report) {
  const LayoutPlan& best = report.layouts[*report.best];
  return fmt::format(
      "\n* tp={} ep={} replicas={}: {} requests at once, the most over all "
      "GPUs (of equals the fewest ranks, then the fewest bytes)\n",
      best.layout.tp, best.layout.ep, best.num_replicas, best.total_requests());
}

std::string CostLine(const PlanReport& report) {
  return fmt::format(
      "\n{:.4g} per million tokens: {} at {:.6g} an hour, {:.6g} tokens "
      "per second\n",
      *report.cost_per_million_tokens, GpusText(report.question.num_gpus),
      *report.gpu_hour_price, *report.tokens_per_second);
}

int Run(const PlanOptions& options) {
  const auto config = ReadPlannedModel(options.model);
  if (!config.ok()) {
    ReportUsage(config.status());
    return kExitModel;
  }
  const auto report = MakePlanReport(options, *config);
  if (!report.ok()) return ReportUsage(report.status());
  fmt::print("{}",
             options.json ? ToJson(*report).dump() + "\n" : ToText(*report));
  const absl::Status fits = CheckFits(*report);
  if (fits.ok()) return kExitOk;
  ReportUsage(fits);
  return kExitResources;
}

}  // namespace

absl::StatusOr<int64_t> ParseMemorySize(std::string_view text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, number);
  std::string_view unit(parsed.ptr, static_cast<size_t>(end - parsed.ptr));
  if (unit.starts_with(' ')) unit.remove_prefix(1);
  for (const Unit& known : kUnits) {
    if (parsed.ec != std::errc() || unit != known.name) continue;
    const double bytes = number * known.bytes;
    if (bytes >= 1 && bytes <= static_cast<double>(kMaxMemoryBytes)) {
      return static_cast<int64_t>(bytes);
    }
    return InvalidArgument(
        "{} is out of range; use more than 0 and at most {} GiB", Quoted(text),
        kMaxMemoryBytes >> 30);
  }
  return InvalidArgument(
      "{} is no size of memory; use a number and GiB, MiB, TiB, GB, MB or TB, "
      "as in 80GiB",
      Quoted(text));
}

absl::StatusOr<ModelConfig> ReadPlannedModel(const std::string& model) {
  const auto read = [&]() -> absl::StatusOr<ModelConfig> {
    std::error_code error;
    if (!std::filesystem::is_regular_file(model, error)) {
      return ReadModelConfig(model);
    }
    ASSIGN_OR_RETURN(const std::string text,
                     ReadFile(model, kMaxConfigFileBytes));
    absl::StatusOr<ModelConfig> config = ParseModelConfig(text);
    if (!config.ok()) return Annotate(config.status(), model);
    return config;
  };
  absl::StatusOr<ModelConfig> config = read();
  if (config.ok()) return config;
  return MakeStatus(config.status().code(),
                    "{}; MODEL is a directory with a config.json in Hugging "
                    "Face's format, or that file",
                    MessageOf(config.status()));
}

absl::StatusOr<PlanReport> MakePlanReport(const PlanOptions& options,
                                          const ModelConfig& config) {
  RETURN_IF_ERROR(CheckCostOptions(options));
  PlanReport report;
  report.model = options.model;
  report.config = config;
  report.parameters = CountParameters(config);
  ASSIGN_OR_RETURN(report.question, MakeQuestion(options, config));
  ASSIGN_OR_RETURN(report.layouts, PlanLayouts(config, report.question));
  if (const LayoutPlan* best = BestLayout(report.layouts)) {
    report.best = static_cast<size_t>(best - report.layouts.data());
  }
  report.gpu_hour_price = options.gpu_hour_price;
  report.tokens_per_second = options.tokens_per_second;
  if (options.tokens_per_second.has_value()) {
    report.cost_per_million_tokens = CostPerMillionTokens(
        options.num_gpus, *options.gpu_hour_price, *options.tokens_per_second);
  }
  return report;
}

nlohmann::ordered_json ToJson(const PlanReport& report) {
  const LayoutQuestion& question = report.question;
  nlohmann::ordered_json json = {
      {"model", report.model},
      {"architecture", report.config.architecture},
      {"weights_dtype", NameOf(report.config.weights)},
      {"num_parameters", report.parameters.total},
      {"num_active_parameters", report.parameters.active},
      {"num_gpus", question.num_gpus},
      {"gpu_memory_bytes", question.gpu_memory_bytes},
      {"usable_bytes", UsableBytes(question.gpu_memory_bytes)},
      {"context_tokens", question.context_tokens},
      {"max_step_tokens", question.max_step_tokens},
      {"block_tokens", kBlockTokens}};
  auto& layouts = json["layouts"] = nlohmann::ordered_json::array();
  for (size_t i = 0; i < report.layouts.size(); ++i) {
    layouts.push_back(LayoutJson(report.layouts[i], report.best == i));
  }
  if (report.cost_per_million_tokens.has_value()) {
    json["gpu_hour_price"] = *report.gpu_hour_price;
    json["tokens_per_second"] = *report.tokens_per_second;
    json["cost_per_million_tokens"] = *report.cost_per_million_tokens;
  }
  return json;
}

std::string ToText(const PlanReport& report) {
  std::string text = Head(report);
  text += "\n" + TableHead();
  for (size_t i = 0; i < report.layouts.size(); ++i) {
    text += LayoutRow(report.layouts[i], report.question.num_gpus,
                      report.best == i);
  }
  if (report.best.has_value()) text += BestLine(report);
  if (report.cost_per_million_tokens.has_value()) text += CostLine(report);
  return text;
}

absl::Status CheckFits(const PlanReport& report) {
  if (report.best.has_value()) return absl::OkStatus();
  const LayoutQuestion& question = report.question;
  const LayoutRemedies remedies = FindRemedies(report.config, question);
  std::string others;
  if (remedies.num_gpus > 0) {
    others += fmt::format(", {} GPUs of this memory", remedies.num_gpus);
  }
  if (remedies.context_tokens > 0) {
    others += fmt::format(", --context {}", remedies.context_tokens);
  }
  return ResourceExhausted(
      "no layout of {} fits on {} of {:.2f} GiB with a request of {} "
      "tokens; one does with GPUs of {:.2f} GiB{}",
      report.model, GpusText(question.num_gpus),
      InGib(question.gpu_memory_bytes), question.context_tokens,
      // Rounded up, so that what is printed would do.
      std::ceil(InGib(remedies.gpu_memory_bytes) * 100) / 100,
      others.empty() ? "" : fmt::format(", or{}", others.substr(1)));
}

Command AddPlan(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "plan", "Say how a model fits on GPUs, from its config.json alone");
  const auto options = std::make_shared<PlanOptions>();
  app->add_option("MODEL", options->model,
                  "Directory with a config.json, or that file")
      ->required();
  app->add_option("--gpus", options->num_gpus, "GPUs, one rank each")
      ->required();
  app->add_option("--gpu-memory", options->gpu_memory,
                  "Memory of each GPU, e.g. 80GiB (a number alone is GiB)")
      ->required();
  app->add_option("--tp", options->tp,
                  "Ranks that share attention and vocabulary [1 to 8]");
  app->add_option("--ep", options->ep, "Ranks that share the experts [1 to 8]");
  app->add_option("--context", options->context_tokens,
                  "Tokens of prompt and output together [the model's]");
  app->add_option("--max-step-tokens", options->max_step_tokens,
                  "Token rows of one step [512]");
  app->add_option("--gpu-hour-price", options->gpu_hour_price,
                  "Price of one GPU for an hour, for the cost of tokens");
  app->add_option("--tokens-per-second", options->tokens_per_second,
                  "Tokens that all GPUs make together, for the cost of tokens");
  app->add_flag("--json", options->json, "Print one JSON object")
      ->configurable(false);
  return {app, [options] { return Run(*options); }};
}

}  // namespace witan
