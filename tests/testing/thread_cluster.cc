#include "tests/testing/thread_cluster.h"

#include <map>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "worker/comm/rendezvous.h"

namespace witan {
namespace {

// Hands out the halves of local rendezvous: one set for each group, made when
// its first member asks. `key` is the kind and the group's first world rank.
class LocalRendezvousBook {
 public:
  absl::StatusOr<std::unique_ptr<Rendezvous>> Take(
      std::pair<int, int> key, const CommunicatorOptions& options) {
    MutexLock lock(mutex_);
    auto& halves = groups_[key];
    if (halves.empty()) halves = MakeLocalRendezvous(options);
    return std::move(halves[options.rank]);
  }

 private:
  Mutex mutex_;
  std::map<std::pair<int, int>, std::vector<std::unique_ptr<Rendezvous>>>
      groups_ WITAN_GUARDED_BY(mutex_);
};

WorkerOptions OptionsOfRank(const ThreadClusterOptions& options, int rank,
                            std::shared_ptr<LocalRendezvousBook> book) {
  WorkerOptions worker{.cpu_path = options.cpu_path};
  if (options.transport == ThreadTransport::kLocal) {
    worker.make_rendezvous = [book, rank](
                                 GroupKind kind, Transport,
                                 const CommunicatorOptions& comm_options) {
      return book->Take({static_cast<int>(kind), rank - comm_options.rank},
                        comm_options);
    };
  }
  return worker;
}

}  // namespace

absl::StatusOr<std::unique_ptr<ThreadCluster>> ThreadCluster::Start(
    const ThreadClusterOptions& options) {
  std::unique_ptr<ThreadCluster> cluster(new ThreadCluster);
  auto book = std::make_shared<LocalRendezvousBook>();
  const int num_ranks = options.layout.num_ranks();
  ConnectGroup connect{.epoch = options.epoch};
  for (int rank = 0; rank < num_ranks; ++rank) {
    cluster->workers_.push_back(
        std::make_unique<Worker>(OptionsOfRank(options, rank, book)));
    const PrepareGroup request{
        .epoch = options.epoch,
        .rank = rank,
        .tp = options.layout.tp,
        .ep = options.layout.ep,
        .model_directory = options.model_directory,
        .transport = options.transport == ThreadTransport::kTcp
                         ? Transport::kTcp
                         : Transport::kSharedMemory,
        .num_threads = options.num_threads,
        .max_context_tokens = options.max_context_tokens,
        .max_step_tokens = options.max_step_tokens,
        .max_sequences = options.max_sequences,
        .num_blocks = options.num_blocks,
        .max_adapters = static_cast<int64_t>(options.adapters.size()),
        .max_adapter_rank = options.max_adapter_rank,
        .one_shot_max_bytes = options.one_shot_max_bytes};
    ASSIGN_OR_RETURN(GroupPrepared prepared,
                     cluster->workers_[rank]->Prepare(request, nullptr));
    connect.endpoints.push_back(prepared.endpoints);
    cluster->prepared_.push_back(std::move(prepared));
  }
  std::vector<absl::Status> statuses(num_ranks);
  std::vector<std::thread> connecting;
  for (int rank = 0; rank < num_ranks; ++rank) {
    connecting.emplace_back([&, rank] {
      statuses[rank] = cluster->workers_[rank]->Connect(connect);
    });
  }
  for (std::thread& thread : connecting) thread.join();
  for (const absl::Status& status : statuses) RETURN_IF_ERROR(status);
  for (const auto& worker : cluster->workers_) {
    for (size_t i = 0; i < options.adapters.size(); ++i) {
      ASSIGN_OR_RETURN(const AdapterLoaded loaded,
                       worker->Load({.epoch = options.epoch,
                                     .index = static_cast<int32_t>(i),
                                     .directory = options.adapters[i]}));
      RETURN_IF_ERROR(loaded.status);
    }
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    cluster->plans_.push_back(std::make_unique<BlockingQueue<StepPlan>>());
  }
  for (int rank = 0; rank < num_ranks; ++rank) {
    cluster->threads_.emplace_back(
        [c = cluster.get(), rank] { c->RunRank(rank); });
  }
  return cluster;
}

ThreadCluster::~ThreadCluster() {
  for (const auto& plans : plans_) plans->Close();
  for (std::thread& thread : threads_) thread.join();
}

void ThreadCluster::Post(const StepPlan& plan) {
  for (const auto& plans : plans_) plans->Push(plan);
}

void ThreadCluster::RunRank(int rank) {
  while (std::optional<StepPlan> plan = plans_[rank]->Pop()) {
    absl::StatusOr<StepResult> result = workers_[rank]->RunStep(*plan);
    if (rank == 0 || !result.ok()) {
      results_.Push(
          std::make_unique<absl::StatusOr<StepResult>>(std::move(result)));
    }
  }
}

absl::StatusOr<StepResult> ThreadCluster::Take() {
  return *results_.Pop().value();
}

}  // namespace witan
