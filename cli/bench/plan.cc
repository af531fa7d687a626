#include "cli/bench/plan.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan::bench {
namespace {

// What a stream of random numbers is for; the second word of its key, behind
// the seed.
enum Purpose : uint64_t {
  kArrivals = 1,
  kShape,  // lengths and prefix of one request
  kWarmupShape,
  kOwnTokens,  // of one request's prompt
  kWarmupTokens,
  kPrefixTokens,
  kBlockTokens,  // of a trace
  kSampling,
  kWarmupBlockTokens,
};

Micros FromSeconds(double seconds) {
  return std::llround(seconds * static_cast<double>(kMicrosPerSecond));
}

std::vector<double> ZipfCumulative(int64_t count, double skew) {
  std::vector<double> cumulative(static_cast<size_t>(count));
  double sum = 0;
  for (size_t k = 0; k < cumulative.size(); ++k) {
    sum += std::pow(static_cast<double>(k + 1), -skew);
    cumulative[k] = sum;
  }
  for (double& value : cumulative) value /= sum;
  return cumulative;
}

}  // namespace

Plan::Plan(Workload workload, const ModelFacts& model)
    : workload_(std::move(workload)), model_(model) {
  for (const TrafficClass& traffic : workload_.classes) {
    prefix_cumulative_.push_back(
        traffic.prefix_tokens > 0
            ? ZipfCumulative(traffic.num_prefixes, traffic.prefix_skew)
            : std::vector<double>());
  }
}

absl::StatusOr<Plan> Plan::Make(Workload workload, const ModelFacts& model) {
  if (model.vocab_size < 1 || model.max_context_tokens < 2) {
    return FailedPrecondition(
        "the server says its model has {} tokens and a context of {}; no "
        "request can be made for that",
        model.vocab_size, model.max_context_tokens);
  }
  Plan plan(std::move(workload), model);
  for (size_t i = 0; i < plan.classes().size(); ++i) {
    const TrafficClass& traffic = plan.classes()[i];
    if (traffic.is_trace()) {
      ASSIGN_OR_RETURN(plan.num_skipped_, FitTrace(plan.workload_.trace_fit,
                                                   model.max_context_tokens,
                                                   &plan.workload_.trace));
      plan.AddTrace();
      continue;
    }
    RETURN_IF_ERROR(plan.CheckContext(traffic));
    if (traffic.open_loop()) {
      RETURN_IF_ERROR(plan.AddArrivals(static_cast<int>(i)));
    }
  }
  std::stable_sort(plan.open_loop_.begin(), plan.open_loop_.end(),
                   [](const PlannedRequest& a, const PlannedRequest& b) {
                     return a.due_us < b.due_us;
                   });
  return plan;
}

absl::Status Plan::CheckContext(const TrafficClass& c) const {
  const int64_t longest =
      c.prefix_tokens + c.prompt_tokens.max() + c.output_tokens.max();
  if (longest <= model_.max_context_tokens) return absl::OkStatus();
  return InvalidArgument(
      "class {}: a shared prefix of {}, a prompt of up to {} and an output of "
      "up to {} tokens exceed the model's context of {}; shorten them, or end "
      "the distributions in bounds as in exponential:100,1-400",
      c.name, c.prefix_tokens, c.prompt_tokens.max(), c.output_tokens.max(),
      model_.max_context_tokens);
}

absl::Status Plan::AddArrivals(int class_index) {
  const TrafficClass& c = classes()[static_cast<size_t>(class_index)];
  Random random(
      {workload_.seed, kArrivals, static_cast<uint64_t>(class_index)});
  const Micros end = FromSeconds(workload_.duration_s);
  Micros due = FromSeconds(c.start_s);
  // Summed up as it is drawn, so that rounding does not change the rate.
  double since_start_s = 0;
  for (int64_t index = 0; c.num_requests == 0 || index < c.num_requests;
       ++index) {
    if (!std::isinf(c.rate) && index % c.burst == 0) {
      since_start_s += random.Exponential(1 / c.rate);
      due = FromSeconds(c.start_s + since_start_s);
    }
    if (end > 0 && due >= end) break;
    if (static_cast<int64_t>(open_loop_.size()) == kMaxBenchRequests) {
      return InvalidArgument(
          "class {}: a rate of {} for {} s makes more than {} requests; lower "
          "--rate or --duration, or give --num-requests",
          c.name, c.rate, workload_.duration_s, kMaxBenchRequests);
    }
    open_loop_.push_back(Draw(class_index, index, /*is_warmup=*/false));
    open_loop_.back().due_us = due;
  }
  return absl::OkStatus();
}

void Plan::AddTrace() {
  const std::vector<TraceEntry>& entries = workload_.trace.entries;
  const Micros end = FromSeconds(workload_.duration_s);
  for (size_t i = 0; i < entries.size(); ++i) {
    if (end > 0 && entries[i].at_us >= end) break;
    open_loop_.push_back(Draw(0, static_cast<int64_t>(i), false));
    open_loop_.back().due_us = entries[i].at_us;
  }
}

PlannedRequest Plan::Draw(int class_index, int64_t index,
                          bool is_warmup) const {
  const TrafficClass& c = classes()[static_cast<size_t>(class_index)];
  PlannedRequest request;
  request.class_index = class_index;
  request.index = index;
  request.is_warmup = is_warmup;
  request.tenant = c.tenant;
  request.priority = c.priority;
  request.temperature = static_cast<float>(c.temperature);
  const uint64_t purpose = is_warmup ? kWarmupShape : kShape;
  const uint64_t which = static_cast<uint64_t>(class_index);
  Random random({workload_.seed, purpose, which, static_cast<uint64_t>(index)});
  request.seed = Random({workload_.seed, kSampling, purpose, which,
                         static_cast<uint64_t>(index)})
                     .Next();
  if (c.is_trace()) {
    const TraceEntry& entry = EntryOf(index);
    request.prompt_tokens = entry.prompt_tokens;
    request.output_tokens = entry.output_tokens;
    if (entry.tenant.has_value()) request.tenant = entry.tenant;
    if (entry.priority.has_value()) request.priority = entry.priority;
    return request;
  }
  request.output_tokens = c.output_tokens.Draw(random);
  request.prompt_tokens = c.prompt_tokens.Draw(random) + c.prefix_tokens;
  if (c.prefix_tokens > 0) {
    const auto& cumulative = prefix_cumulative_[which];
    const auto found = std::upper_bound(cumulative.begin(),
                                        cumulative.end() - 1, random.Uniform());
    request.prefix = found - cumulative.begin();
    if (c.tenant_per_prefix)
      request.tenant = TenantOfPrefix(c, *request.prefix);
  }
  return request;
}

std::optional<int64_t> Plan::num_requests() const {
  int64_t count = static_cast<int64_t>(open_loop_.size());
  for (const TrafficClass& traffic : classes()) {
    if (traffic.open_loop()) continue;
    if (workload_.duration_s > 0) return std::nullopt;
    count += traffic.num_requests;
  }
  return count;
}

PlannedRequest Plan::ClosedLoopRequest(int class_index, int64_t index) const {
  return Draw(class_index, index, /*is_warmup=*/false);
}

PlannedRequest Plan::WarmupRequest(int64_t index) const {
  const int64_t num_classes = static_cast<int64_t>(classes().size());
  return Draw(static_cast<int>(index % num_classes), index / num_classes,
              /*is_warmup=*/true);
}

const TraceEntry& Plan::EntryOf(int64_t index) const {
  const auto& entries = workload_.trace.entries;
  return entries[static_cast<size_t>(index) % entries.size()];
}

void Plan::AppendIds(std::initializer_list<uint64_t> key, int64_t count,
                     std::vector<int32_t>* ids) const {
  Random random(key);
  for (int64_t i = 0; i < count; ++i) {
    ids->push_back(static_cast<int32_t>(random.Below(model_.vocab_size)));
  }
}

std::vector<int32_t> Plan::TokenIds(const PlannedRequest& request) const {
  const TrafficClass& c = classes()[static_cast<size_t>(request.class_index)];
  const uint64_t seed = workload_.seed;
  const uint64_t which = static_cast<uint64_t>(request.class_index);
  const uint64_t index = static_cast<uint64_t>(request.index);
  std::vector<int32_t> ids;
  ids.reserve(static_cast<size_t>(request.prompt_tokens));
  const auto num_left = [&] {
    return request.prompt_tokens - static_cast<int64_t>(ids.size());
  };
  if (request.prefix.has_value()) {
    AppendIds(
        {seed, kPrefixTokens, which, static_cast<uint64_t>(*request.prefix)},
        c.prefix_tokens, &ids);
  }
  if (c.is_trace()) {
    const int64_t block_tokens = ScaledBlockTokens(workload_.trace_fit);
    const uint64_t purpose =
        request.is_warmup ? kWarmupBlockTokens : kBlockTokens;
    for (const int64_t id : EntryOf(request.index).block_ids) {
      AppendIds({seed, purpose, static_cast<uint64_t>(id)},
                std::min(block_tokens, num_left()), &ids);
    }
  }
  AppendIds(
      {seed, request.is_warmup ? kWarmupTokens : kOwnTokens, which, index},
      num_left(), &ids);
  return ids;
}

int64_t Plan::SharedTokens(const PlannedRequest& request) const {
  const TrafficClass& c = classes()[static_cast<size_t>(request.class_index)];
  if (!c.is_trace()) return request.prefix.has_value() ? c.prefix_tokens : 0;
  const auto num_blocks =
      static_cast<int64_t>(EntryOf(request.index).block_ids.size());
  return std::min(num_blocks * ScaledBlockTokens(workload_.trace_fit),
                  request.prompt_tokens);
}

}  // namespace witan::bench
