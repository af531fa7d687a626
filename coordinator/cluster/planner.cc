#include "coordinator/cluster/planner.h"

#include <algorithm>
#include <map>

#include "base/cpu_path.h"
#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

using Workers = std::vector<const WorkerInfo*>;

absl::Status CheckRange(const char* name, int64_t value, int64_t low,
                        int64_t high) {
  if (value >= low && value <= high) return absl::OkStatus();
  return InvalidArgument("{} is {}; allowed are {} to {}", name, value, low,
                         high);
}

absl::Status CheckLimits(const ModelConfig& config,
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

// The workers that get ranks, in rank order.
Workers Choose(const std::vector<WorkerInfo>& idle, size_t num_ranks) {
  std::map<std::string, Workers> by_host;
  for (const WorkerInfo& worker : idle) {
    by_host[worker.registration.host_id].push_back(&worker);
  }
  std::vector<Workers> hosts;
  for (auto& [host, workers] : by_host) hosts.push_back(std::move(workers));
  std::sort(hosts.begin(), hosts.end(),
            [num_ranks](const Workers& a, const Workers& b) {
              // Hosts that have enough are alike.
              const size_t a_size = std::min(a.size(), num_ranks);
              const size_t b_size = std::min(b.size(), num_ranks);
              if (a_size != b_size) return a_size > b_size;
              return a.front()->id < b.front()->id;
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

// What each of the `chosen` workers may use. What a host can spare is shared
// by all workers there, also by those that get no rank now: they keep what they
// hold of an earlier group until they are given another rank.
std::vector<int64_t> MemoryBytesOf(const Workers& chosen,
                                   const std::vector<WorkerInfo>& idle) {
  std::map<std::string, int64_t> num_workers_on_host;
  for (const WorkerInfo& worker : idle) {
    ++num_workers_on_host[worker.registration.host_id];
  }
  std::vector<int64_t> memory_bytes;
  for (const WorkerInfo* worker : chosen) {
    const RegisterWorker& registration = worker->registration;
    memory_bytes.push_back(registration.memory_is_of_host
                               ? registration.memory_bytes /
                                     num_workers_on_host[registration.host_id]
                               : registration.memory_bytes);
  }
  return memory_bytes;
}

}  // namespace

absl::StatusOr<GroupPlan> PlanGroup(const ModelConfig& config, Layout layout,
                                    const PlannerOptions& options,
                                    const std::vector<WorkerInfo>& idle) {
  RETURN_IF_ERROR(CheckLimits(config, options));
  const size_t num_ranks = layout.num_ranks();
  if (idle.size() < num_ranks) {
    return Unavailable("{} of {} workers registered", idle.size(), num_ranks);
  }
  const Workers chosen = Choose(idle, num_ranks);
  RETURN_IF_ERROR(CheckSameBits(chosen, config.weights));

  GroupPlan plan;
  plan.limits = options.limits;
  ASSIGN_OR_RETURN(plan.transport, ChooseTransport(chosen, options.transport));
  std::map<std::string, int64_t> num_ranks_on_host;
  for (const WorkerInfo* worker : chosen) {
    ++num_ranks_on_host[worker->registration.host_id];
  }
  for (const WorkerInfo* worker : chosen) {
    plan.workers.push_back(worker->id);
    const int64_t num_threads =
        options.num_threads > 0
            ? options.num_threads
            : worker->registration.num_cores /
                  num_ranks_on_host[worker->registration.host_id];
    plan.num_threads.push_back(static_cast<int32_t>(
        std::clamp<int64_t>(num_threads, 1, kMaxThreadsPerRank)));
  }
  if (plan.limits.num_blocks == 0) {
    ASSIGN_OR_RETURN(
        plan.limits.num_blocks,
        PlanNumBlocks(config, layout, plan.limits, MemoryBytesOf(chosen, idle),
                      plan.num_threads));
  }
  return plan;
}

}  // namespace witan
