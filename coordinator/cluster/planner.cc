#include "coordinator/cluster/planner.h"

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "base/bounds.h"
#include "base/cpu_path.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

using Workers = std::vector<const WorkerInfo*>;

// Those that failed least first, then in order of registration.
bool ComesBefore(const WorkerInfo* a, const WorkerInfo* b) {
  return std::pair(a->num_failed_starts, a->id) <
         std::pair(b->num_failed_starts, b->id);
}

// The `num_ranks` of `candidates` (sorted by ComesBefore, at least so many)
// that get ranks, in rank order.
Workers Choose(const Workers& candidates, size_t num_ranks) {
  std::map<std::string, Workers> by_host;
  for (const WorkerInfo* worker : candidates) {
    by_host[worker->registration.host_id].push_back(worker);
  }
  std::vector<Workers> hosts;
  for (auto& [host, workers] : by_host) hosts.push_back(std::move(workers));
  std::sort(hosts.begin(), hosts.end(),
            [num_ranks](const Workers& a, const Workers& b) {
              // Hosts that have enough are alike.
              const size_t a_size = std::min(a.size(), num_ranks);
              const size_t b_size = std::min(b.size(), num_ranks);
              if (a_size != b_size) return a_size > b_size;
              return ComesBefore(a.front(), b.front());
            });
  Workers chosen;
  for (const Workers& workers : hosts) {
    for (const WorkerInfo* worker : workers) {
      if (chosen.size() == num_ranks) return chosen;
      chosen.push_back(worker);
    }
  }
  return chosen;
}

// What to do about two paths of different orders.
std::string RemedyFor(const std::string& a, const std::string& b) {
  for (const std::string_view path : {a, b}) {
    if (path == kCpuPathAvx512Bf16) {
      // Every CPU that has the one can run the other, and the order of that is
      // the one of all other paths.
      return fmt::format("start those on {} with --cpu-path {}",
                         kCpuPathAvx512Bf16, kCpuPathAvx2);
    }
  }
  return "start them with the same --cpu-path";
}

absl::Status CheckSameBits(const Workers& workers, DType weights) {
  const RegisterWorker& first = workers.front()->registration;
  for (const WorkerInfo* worker : workers) {
    const RegisterWorker& other = worker->registration;
    if (other.device != first.device) {
      return FailedPrecondition(
          "workers {} and {} would compute different bits: device {} vs {}; "
          "start all on the same kind of device",
          workers.front()->id, worker->id, first.device, other.device);
    }
    if (OrderOfCpuPath(other.cpu_path, weights) !=
        OrderOfCpuPath(first.cpu_path, weights)) {
      return FailedPrecondition(
          "workers {} and {} would compute different bits: {} vs {}; {}",
          workers.front()->id, worker->id, first.cpu_path, other.cpu_path,
          RemedyFor(first.cpu_path, other.cpu_path));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<Transport> ChooseTransport(const Workers& workers,
                                          std::optional<Transport> forced) {
  const WorkerInfo& first = *workers.front();
  for (const WorkerInfo* worker : workers) {
    if (worker->registration.host_id == first.registration.host_id) continue;
    if (forced == Transport::kSharedMemory) {
      return FailedPrecondition(
          "workers {} (host {}) and {} (host {}) cannot share memory; use "
          "transport tcp or start all workers on one host",
          first.id, first.registration.host_name, worker->id,
          worker->registration.host_name);
    }
    return Transport::kTcp;
  }
  return forced.value_or(Transport::kSharedMemory);
}

// Makes plans for one set of idle workers.
class GroupPlanner {
 public:
  GroupPlanner(const ModelConfig& config, Layout layout,
               const PlannerOptions& options,
               const std::vector<WorkerInfo>& idle)
      : config_(config),
        layout_(layout),
        num_ranks_(static_cast<size_t>(layout.num_ranks())),
        options_(options) {
    for (const WorkerInfo& worker : idle) {
      all_.push_back(&worker);
      ++num_workers_on_host_[worker.registration.host_id];
    }
    std::sort(all_.begin(), all_.end(), ComesBefore);
  }

  absl::StatusOr<GroupPlan> Plan() const {
    if (all_.size() < num_ranks_) {
      return Unavailable("{} of {} workers registered", all_.size(),
                         num_ranks_);
    }
    // A worker that fails or does not fit is asked only if there are too few
    // others. Ranks differ in size, so that one that cannot hold every rank may
    // yet hold one.
    const std::vector<Workers> kinds = Kinds();
    for (const bool must_fit : {true, false}) {
      for (const int max_failed_starts : FailedStarts()) {
        for (const Workers& kind : kinds) {
          const Workers usable = Usable(kind, max_failed_starts, must_fit);
          if (usable.size() < num_ranks_) continue;
          absl::StatusOr<GroupPlan> plan = PlanWith(Choose(usable, num_ranks_));
          if (plan.ok()) return plan;
        }
      }
    }
    // There is no choice that works; the first one says why.
    return PlanWith(Choose(all_, num_ranks_));
  }

 private:
  // Workers that compute the same bits, as far as they registered what decides
  // that; the kind of the worker that comes first first.
  std::vector<Workers> Kinds() const {
    std::vector<Workers> kinds;
    for (const WorkerInfo* worker : all_) {
      const auto same =
          std::find_if(kinds.begin(), kinds.end(), [&](const Workers& kind) {
            return CheckSameBits({kind.front(), worker}, config_.weights).ok();
          });
      if (same == kinds.end()) {
        kinds.push_back({worker});
      } else {
        same->push_back(worker);
      }
    }
    return kinds;
  }

  // The different numbers, ascending.
  std::set<int> FailedStarts() const {
    std::set<int> numbers;
    for (const WorkerInfo* worker : all_) {
      numbers.insert(worker->num_failed_starts);
    }
    return numbers;
  }

  Workers Usable(const Workers& workers, int max_failed_starts,
                 bool must_fit) const {
    Workers usable;
    for (const WorkerInfo* worker : workers) {
      if (worker->num_failed_starts > max_failed_starts) continue;
      if (must_fit && !HoldsAnyRank(*worker)) continue;
      usable.push_back(worker);
    }
    return usable;
  }

  bool HoldsAnyRank(const WorkerInfo& worker) const {
    if (options_.limits.num_blocks > 0) return true;  // the operator knows
    const int64_t memory_bytes = MemoryBytesOf(worker);
    const int32_t num_threads = std::max(ToldThreads(worker.registration), 1);
    const auto [entry, is_new] =
        holds_any_rank_.try_emplace({memory_bytes, num_threads});
    if (is_new) {
      entry->second =
          PlanNumBlocks(config_, layout_, options_.limits,
                        std::vector<int64_t>(num_ranks_, memory_bytes),
                        std::vector<int32_t>(num_ranks_, num_threads))
              .ok();
    }
    return entry->second;
  }

  // 0: neither the worker nor the operator said.
  int32_t ToldThreads(const RegisterWorker& registration) const {
    return registration.num_threads > 0 ? registration.num_threads
                                        : options_.num_threads;
  }

  // What a host can spare is shared by all workers there, also by those that
  // get no rank now: they keep what they hold of an earlier group until they
  // are given another rank.
  int64_t MemoryBytesOf(const WorkerInfo& worker) const {
    const RegisterWorker& registration = worker.registration;
    if (!registration.memory_is_of_host) return registration.memory_bytes;
    return registration.memory_bytes /
           (num_workers_on_host_.at(registration.host_id) *
            options_.num_replicas);
  }

  absl::StatusOr<GroupPlan> PlanWith(const Workers& chosen) const {
    RETURN_IF_ERROR(CheckSameBits(chosen, config_.weights));
    GroupPlan plan;
    plan.limits = options_.limits;
    ASSIGN_OR_RETURN(plan.transport,
                     ChooseTransport(chosen, options_.transport));
    std::map<std::string, int64_t> num_ranks_on_host;
    std::vector<int64_t> memory_bytes;
    for (const WorkerInfo* worker : chosen) {
      ++num_ranks_on_host[worker->registration.host_id];
      memory_bytes.push_back(MemoryBytesOf(*worker));
    }
    for (const WorkerInfo* worker : chosen) {
      plan.workers.push_back(worker->id);
      const RegisterWorker& registration = worker->registration;
      int64_t num_threads = ToldThreads(registration);
      if (num_threads == 0) {
        num_threads =
            registration.num_cores /
            (num_ranks_on_host[registration.host_id] * options_.num_replicas);
      }
      plan.num_threads.push_back(static_cast<int32_t>(
          std::clamp<int64_t>(num_threads, 1, kMaxThreadsPerRank)));
    }
    if (plan.limits.num_blocks == 0) {
      ASSIGN_OR_RETURN(plan.limits.num_blocks,
                       PlanNumBlocks(config_, layout_, plan.limits,
                                     memory_bytes, plan.num_threads));
    }
    return plan;
  }

  const ModelConfig& config_;
  const Layout layout_;
  const size_t num_ranks_;
  const PlannerOptions& options_;
  Workers all_;  // sorted by ComesBefore
  std::map<std::string, int64_t> num_workers_on_host_;
  // By memory and threads.
  mutable std::map<std::pair<int64_t, int32_t>, bool> holds_any_rank_;
};

}  // namespace

absl::Status CheckPlannerOptions(const ModelConfig& config,
                                 const PlannerOptions& options) {
  const EngineLimits& limits = options.limits;
  RETURN_IF_ERROR(CheckRange("max_context_tokens", limits.max_context_tokens, 1,
                             config.max_context_tokens));
  RETURN_IF_ERROR(
      CheckRange("max_step_tokens", limits.max_step_tokens, 1, kMaxStepTokens));
  RETURN_IF_ERROR(
      CheckRange("max_sequences", limits.max_sequences, 1, kMaxStepSequences));
  if (limits.num_blocks != 0) {
    RETURN_IF_ERROR(CheckRange("num_blocks", limits.num_blocks, 2, kMaxBlocks));
  }
  return CheckRange("num_threads", options.num_threads, 0, kMaxThreadsPerRank);
}

absl::StatusOr<GroupPlan> PlanGroup(const ModelConfig& config, Layout layout,
                                    const PlannerOptions& options,
                                    const std::vector<WorkerInfo>& idle) {
  return GroupPlanner(config, layout, options, idle).Plan();
}

}  // namespace witan
