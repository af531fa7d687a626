#include "cli/bench/workload.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "base/config.h"
#include "base/limits.h"
#include "base/status.h"
#include "proto/generation_request.h"

namespace witan::bench {
namespace {

const ClassSetting* FindSetting(const std::string& name) {
  for (const ClassSetting& setting : ClassSettings()) {
    if (name == setting.name) return &setting;
  }
  return nullptr;
}

// `prefix` stands before the name in messages.
absl::Status Apply(const char* prefix, const std::string& name,
                   const std::string& value, TrafficClass* out) {
  const ClassSetting* setting = FindSetting(name);
  if (setting == nullptr) {
    std::vector<std::string> names;
    for (const ClassSetting& each : ClassSettings()) {
      names.emplace_back(each.name);
    }
    const std::string closest = ClosestName(name, names);
    return InvalidArgument(
        "there is no \"{}\"{}", name,
        closest.empty() ? "" : fmt::format("; did you mean {}?", closest));
  }
  return Annotate(setting->apply(value, out),
                  fmt::format("{}{}={}", prefix, name, value));
}

// Ways to arrive that contradict each other.
absl::Status CheckArrivals(const TrafficClass& c) {
  if (c.rate > 0 && c.num_clients > 0) {
    return InvalidArgument(
        "rate={} and clients={}: a load is open or closed, not both; give one "
        "of them, or two classes with --class",
        c.rate, c.num_clients);
  }
  if (c.burst > 1 && c.rate == 0) {
    return InvalidArgument("burst={}: only arrivals of a rate come in bursts",
                           c.burst);
  }
  if (c.think_time_ms > 0 && c.num_clients == 0) {
    return InvalidArgument("think-time-ms={}: only clients think; give clients",
                           c.think_time_ms);
  }
  return absl::OkStatus();
}

absl::Status CheckClass(const TrafficClass& c, double duration_s) {
  RETURN_IF_ERROR(CheckArrivals(c));
  if (std::isinf(c.rate) && c.num_requests == 0) {
    return InvalidArgument("rate=inf needs num-requests, or it never ends");
  }
  if (c.prefix_tokens == 0 &&
      (c.num_prefixes > 1 || c.prefix_skew > 0 || c.tenant_per_prefix)) {
    return InvalidArgument(
        "num-prefixes, prefix-skew and tenant-per-prefix need "
        "shared-prefix-tokens, the length of a prefix");
  }
  if (c.tenant_per_prefix) {
    RETURN_IF_ERROR(CheckTenant(TenantOfPrefix(c, c.num_prefixes - 1)));
  }
  if (duration_s > 0 && c.start_s >= duration_s) {
    return InvalidArgument("start-s={} is not before the end at duration {}",
                           c.start_s, duration_s);
  }
  return absl::OkStatus();
}

absl::StatusOr<TrafficClass> MakeClass(
    const std::string& name, const WorkloadOptions& options,
    const std::map<std::string, std::string>& own) {
  std::map<std::string, std::string> settings;
  for (const ClassSetting& setting : ClassSettings()) {
    if (*setting.default_value != '\0') {
      settings[setting.name] = setting.default_value;
    }
  }
  // Who says how a class arrives says all of it.
  const bool own_arrivals = own.contains("rate") || own.contains("clients");
  for (const auto& [key, value] : options.settings) {
    const bool is_arrival = key == "rate" || key == "clients" ||
                            key == "burst" || key == "think-time-ms";
    if (!own_arrivals || !is_arrival) settings[key] = value;
  }
  for (const auto& [key, value] : own) settings[key] = value;
  TrafficClass result;
  result.name = name;
  for (const auto& [key, value] : settings) {
    const char* const prefix = own.contains(key) ? "" : "--";
    RETURN_IF_ERROR(Apply(prefix, key, value, &result));
  }
  if (result.rate == 0 && result.num_clients == 0 && !options.trace) {
    result.num_clients = 1;
  }
  if (result.num_requests == 0 && options.duration_s == 0 && !options.trace) {
    result.num_requests = 100;
  }
  RETURN_IF_ERROR(CheckClass(result, options.duration_s));
  return result;
}

absl::Status AddClasses(const WorkloadOptions& options, Workload* out) {
  if (options.classes.size() > kMaxBenchClasses) {
    return InvalidArgument("--class is given {} times; at most {}",
                           options.classes.size(), kMaxBenchClasses);
  }
  std::set<std::string> names;
  int64_t num_requests = 0;
  for (const std::string& text : options.classes) {
    ASSIGN_OR_RETURN(const auto parsed, ParseClass(text));
    const auto& [name, settings] = parsed;
    if (!names.insert(name).second) {
      return InvalidArgument("--class names {} twice; name it once", name);
    }
    auto made = MakeClass(name, options, settings);
    if (!made.ok()) {
      return Annotate(made.status(), fmt::format("--class {}", name));
    }
    out->classes.push_back(*std::move(made));
    num_requests += out->classes.back().num_requests;
  }
  if (num_requests > kMaxBenchRequests) {
    return InvalidArgument("the classes send {} requests; at most {}",
                           num_requests, kMaxBenchRequests);
  }
  return absl::OkStatus();
}

absl::Status AddTrace(const WorkloadOptions& options, Workload* out) {
  for (const char* name :
       {"rate", "burst", "clients", "think-time-ms", "start-s", "prompt-tokens",
        "output-tokens", "shared-prefix-tokens", "num-prefixes", "prefix-skew",
        "tenant-per-prefix"}) {
    if (options.settings.contains(name)) {
      return InvalidArgument("--{} and --replay: a trace says that itself",
                             name);
    }
  }
  if (!options.classes.empty()) {
    return InvalidArgument("--class and --replay: give one of them");
  }
  ASSIGN_OR_RETURN(TrafficClass traffic, MakeClass("trace", options, {}));
  const int64_t max_entries =
      traffic.num_requests > 0 ? traffic.num_requests : kMaxBenchRequests + 1;
  auto trace = ParseTrace(*options.trace, max_entries);
  if (!trace.ok()) return Annotate(trace.status(), options.trace_file);
  if (static_cast<int64_t>(trace->entries.size()) > kMaxBenchRequests) {
    return InvalidArgument(
        "{} has more than {} entries; use the first N with --num-requests N",
        options.trace_file, kMaxBenchRequests);
  }
  out->trace = *std::move(trace);
  out->trace_fit = options.trace_fit;
  out->classes.push_back(std::move(traffic));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::pair<std::string, std::map<std::string, std::string>>>
ParseClass(const std::string& text) {
  const size_t colon = text.find(':');
  const std::string name = text.substr(0, colon);
  if (colon == std::string::npos || name.empty() ||
      name.find_first_of(",=") != std::string::npos) {
    return InvalidArgument(
        "--class {}: must be NAME:KEY=VALUE,..., e.g. "
        "decoders:clients=32,prompt-tokens=16",
        text);
  }
  std::map<std::string, std::string> settings;
  std::string* last_value = nullptr;
  size_t begin = colon + 1;
  while (begin <= text.size()) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string part = text.substr(begin, end - begin);
    const size_t equals = part.find('=');
    if (equals == std::string::npos) {
      if (last_value == nullptr) {
        return InvalidArgument("--class {}: \"{}\" is not KEY=VALUE", text,
                               part);
      }
      *last_value += "," + part;
    } else {
      const auto [entry, inserted] =
          settings.emplace(part.substr(0, equals), part.substr(equals + 1));
      if (!inserted) {
        return InvalidArgument("--class {} names {} twice", name, entry->first);
      }
      last_value = &entry->second;
    }
    begin = end + 1;
  }
  return std::pair(name, settings);
}

absl::StatusOr<Workload> MakeWorkload(const WorkloadOptions& options) {
  Workload workload;
  workload.duration_s = options.duration_s;
  workload.num_warmup_requests = options.num_warmup_requests;
  workload.seed = options.seed;
  if (options.trace.has_value()) {
    RETURN_IF_ERROR(AddTrace(options, &workload));
  } else if (!options.classes.empty()) {
    RETURN_IF_ERROR(AddClasses(options, &workload));
  } else {
    ASSIGN_OR_RETURN(workload.classes.emplace_back(),
                     MakeClass("all", options, {}));
  }
  return workload;
}

std::string TenantOfPrefix(const TrafficClass& c, int64_t prefix) {
  return fmt::format("{}-{}", c.tenant.value_or("tenant"), prefix);
}

std::string Describe(const TrafficClass& c) {
  std::string text;
  if (c.is_trace()) {
    text = "replay of a trace";
  } else if (c.num_clients > 0) {
    text = fmt::format("closed loop, {} client{}", c.num_clients,
                       c.num_clients == 1 ? "" : "s");
    if (c.think_time_ms > 0) {
      text += fmt::format(" that think {} ms", c.think_time_ms);
    }
  } else if (std::isinf(c.rate)) {
    text = "open loop, all at once";
  } else if (c.burst > 1) {
    text = fmt::format("open loop, Poisson {} bursts/s of {} requests", c.rate,
                       c.burst);
  } else {
    text = fmt::format("open loop, Poisson {} requests/s", c.rate);
  }
  if (!c.is_trace()) {
    text += fmt::format("; prompt {}, output {} tokens", c.prompt_tokens.text(),
                        c.output_tokens.text());
  }
  if (c.prefix_tokens > 0) {
    text += fmt::format("; behind one of {} shared prefix{} of {} tokens",
                        c.num_prefixes, c.num_prefixes == 1 ? "" : "es",
                        c.prefix_tokens);
  }
  if (c.tenant.has_value()) text += fmt::format("; tenant {}", *c.tenant);
  if (c.tenant_per_prefix) text += "; a tenant per prefix";
  if (c.priority.has_value()) text += fmt::format("; priority {}", *c.priority);
  return text;
}

}  // namespace witan::bench
