#include "coordinator/cluster/replica_set.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>

#include "base/file.h"
#include "tests/cluster/replica_fixture.h"
#include "tests/testing/temp_directory.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

// Replicas of one rank whose workers answer at once, on the replica's thread.
class ReplicaSetTest : public ::testing::Test {
 protected:
  void Start(int num_replicas, RoutingPolicy routing = RoutingPolicy::kPrefix,
             TraceFile* trace = nullptr) {
    ReplicaSetOptions options;
    options.replica = FakeReplicaOptions(1);
    options.num_replicas = num_replicas;
    options.routing = routing;
    options.trace = trace;
    set_ = std::make_unique<ReplicaSet>(
        options, MonotonicClock(),
        [this](ReplicaOutput output) { Send(std::move(output)); },
        [this](int replica, const ReplicaSnapshot& snapshot) {
          MutexLock lock(mutex_);
          states_[replica] = snapshot.state;
          changed_.NotifyAll();
        });
  }
  ~ReplicaSetTest() override {
    if (set_ != nullptr) set_->Stop("the test is over");
  }

  void Join(int replica, const FakeWorkerOptions& options = FakeTinyWorker(1)) {
    const WorkerId id = set_->loop(replica).NewWorker();
    EXPECT_EQ(set_->ReplicaOf(id), replica);
    FakeWorker worker(options);
    const RegisterWorker hello = worker.Hello();
    {
      MutexLock lock(mutex_);
      EXPECT_TRUE(workers_.emplace(id, std::move(worker)).second);
    }
    EXPECT_TRUE(set_->loop(replica).Post(id, hello).ok());
  }
  void WaitUntil(int replica, ReplicaState state) {
    MutexLock lock(mutex_);
    while (states_[replica] != state) changed_.Wait(mutex_);
  }
  void WaitUntilServing(int replica) {
    WaitUntil(replica, ReplicaState::kServing);
  }
  absl::Status SubmitOne() {
    const auto stream = MakeStream(1, 10, 3);
    return set_->Submit(stream->spec, std::make_unique<PromisingSink>(stream))
        .status();
  }

  void Send(ReplicaOutput output) {
    MutexLock lock(mutex_);
    const auto* send = std::get_if<SendMessage>(&output);
    if (send == nullptr) return;
    for (const WorkerId id : send->workers) {
      for (WorkerMessage& answer : workers_.at(id).OnMessage(send->message)) {
        EXPECT_TRUE(
            set_->loop(set_->ReplicaOf(id)).Post(id, std::move(answer)).ok());
      }
    }
  }

  // One sequence from its start to its end; its replica.
  int Generate(const std::string& tenant, int64_t num_prompt,
               int64_t max_tokens) {
    const auto stream = MakeStream(7, num_prompt, max_tokens);
    stream->spec.tenant = tenant;
    auto sink = std::make_unique<PromisingSink>(stream);
    std::future<void> ended = sink->Ended();
    const absl::StatusOr<SequenceId> id =
        set_->Submit(stream->spec, std::move(sink));
    EXPECT_TRUE(id.ok()) << id.status();
    ended.wait();
    EXPECT_TRUE(stream->end.ok()) << stream->end.status();
    EXPECT_TRUE(stream->IsExact());
    last_usage_ = stream->usage;
    return static_cast<int>((*id - 1) %
                            static_cast<uint64_t>(set_->num_replicas()));
  }

  Mutex mutex_;
  CondVar changed_;
  std::map<WorkerId, FakeWorker> workers_ WITAN_GUARDED_BY(mutex_);
  std::map<int, ReplicaState> states_ WITAN_GUARDED_BY(mutex_);
  std::unique_ptr<ReplicaSet> set_;
  SequenceUsage last_usage_;
};

TEST_F(ReplicaSetTest, ATenantsPromptsGoToOneReplicaAndHitItsCache) {
  Start(2);
  for (int replica : {0, 1}) {
    Join(replica);
    WaitUntilServing(replica);
  }
  std::map<std::string, int> home;
  for (const char* tenant : {"a", "b", "c", "d"}) {
    home[tenant] = Generate(tenant, 150, 3);
    EXPECT_EQ(last_usage_.num_cached_tokens, 0);
  }
  EXPECT_EQ(std::set<int>({home["a"], home["b"]}).size(), 2u);
  for (const char* tenant : {"d", "a", "c", "b"}) {
    EXPECT_EQ(Generate(tenant, 150, 3), home[tenant]);
    EXPECT_EQ(last_usage_.num_cached_tokens, 128);
  }
}

TEST_F(ReplicaSetTest, RoundRobinGoesOnWhereverAPromptIs) {
  Start(2, RoutingPolicy::kRoundRobin);
  for (int replica : {0, 1}) {
    Join(replica);
    WaitUntilServing(replica);
  }
  std::string order;
  for (int i = 0; i < 4; ++i) order += std::to_string(Generate("a", 150, 3));
  EXPECT_EQ(order, "0101");
}

TEST_F(ReplicaSetTest, OneReplicaIsEnoughAndNoneIsUnavailable) {
  Start(3);
  const absl::Status refused = SubmitOne();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(refused.ToString(), HasSubstr("0 of 1 workers"));
  Join(1);
  WaitUntilServing(1);
  for (int i = 0; i < 3; ++i) EXPECT_EQ(Generate("a", 10 + 64 * i, 3), 1);
  const auto snapshots = set_->Snapshots();
  ASSERT_EQ(snapshots.size(), 3u);
  EXPECT_EQ(snapshots[1]->state, ReplicaState::kServing);
  EXPECT_NE(snapshots[0]->state, ReplicaState::kServing);
}

TEST_F(ReplicaSetTest, AReplicaThatComputesOtherBitsGetsNoRequests) {
  Start(2, RoutingPolicy::kRoundRobin);
  Join(1);
  WaitUntilServing(1);
  FakeWorkerOptions other = FakeTinyWorker(1);
  other.numerics_id = "numerics-2";
  Join(0, other);
  WaitUntil(0, ReplicaState::kRefused);
  for (int i = 0; i < 4; ++i) EXPECT_EQ(Generate("a", 10, 3), 1);
  EXPECT_EQ(set_->Snapshots()[0]->state, ReplicaState::kRefused);

  // It gets none either when it is the only one left.
  set_->loop(1).PostClosed(2, "the test closed it");
  WaitUntil(1, ReplicaState::kWaitingForWorkers);
  const absl::Status refused = SubmitOne();
  EXPECT_TRUE(absl::IsUnavailable(refused)) << refused;
  EXPECT_THAT(refused.ToString(), HasSubstr("another model"));
  Join(1);
  WaitUntilServing(1);
  EXPECT_EQ(Generate("a", 10, 3), 1);
}

TEST_F(ReplicaSetTest, ChoicesOfARequestGoWhereTheFirstOneWent) {
  Start(2);
  for (int replica : {0, 1}) {
    Join(replica);
    WaitUntilServing(replica);
  }
  {
    MutexLock lock(mutex_);
    for (auto& [id, worker] : workers_) worker.options.silent_on_steps = true;
  }
  // By itself the second one would be cheaper on the other, idle replica.
  std::optional<SequenceId> first;
  std::vector<std::future<void>> ends;
  for (int choice = 0; choice < 4; ++choice) {
    const auto stream = MakeStream(1, 20, 3);
    stream->spec.beside = first;
    auto sink = std::make_unique<PromisingSink>(stream);
    ends.push_back(sink->Ended());
    const SequenceId id = set_->Submit(stream->spec, std::move(sink)).value();
    if (!first) first = id;
    EXPECT_EQ(set_->ReplicaOf(id), set_->ReplicaOf(*first)) << choice;
    set_->Cancel(id);
  }
  for (std::future<void>& ended : ends) ended.wait();
}

TEST_F(ReplicaSetTest, CancelAndPauseReachTheSequencesReplica) {
  Start(2, RoutingPolicy::kRoundRobin);
  for (int replica : {0, 1}) {
    Join(replica);
    WaitUntilServing(replica);
  }
  {
    MutexLock lock(mutex_);
    for (auto& [id, worker] : workers_) worker.options.silent_on_steps = true;
  }
  std::vector<std::pair<std::shared_ptr<Stream>, std::future<void>>> streams;
  std::vector<SequenceId> ids;
  for (int i = 0; i < 4; ++i) {
    const auto stream = MakeStream(1, 10, 3);
    auto sink = std::make_unique<PromisingSink>(stream);
    streams.emplace_back(stream, sink->Ended());
    ids.push_back(set_->Submit(stream->spec, std::move(sink)).value());
  }
  EXPECT_EQ(std::set<SequenceId>(ids.begin(), ids.end()).size(), 4u);
  for (const SequenceId id : ids) {
    set_->Pause(id);
    set_->Resume(id);
    set_->Cancel(id);
  }
  for (auto& [stream, ended] : streams) {
    ended.wait();
    EXPECT_EQ(stream->end.value(), FinishReason::kCancelled);
  }
}

TEST_F(ReplicaSetTest, ATraceTellsEveryStepAndRequestOfEveryReplica) {
  const TempDirectory directory;
  const std::string path = directory.path() + "/trace.json";
  auto trace = TraceFile::Create(path, 2).value();
  Start(2, RoutingPolicy::kRoundRobin, trace.get());
  for (int replica : {0, 1}) {
    Join(replica);
    WaitUntilServing(replica);
    Generate("a", 10, 5);
  }
  set_->Stop("the test is over");
  const auto snapshots = set_->Snapshots();
  trace.reset();
  const auto json = nlohmann::json::parse(ReadFile(path, 1 << 20).value());
  std::map<std::string, int> count;
  for (const auto& event : json) {
    const int pid = event.at("pid").get<int>();
    const auto name = event.at("name").get<std::string>();
    if (event.at("ph").get<std::string>() == "X") {
      EXPECT_GE(event.at("dur").get<int64_t>(), 0);
      ++count[std::to_string(pid) + (name.starts_with("step ") ? "step" : "")];
    }
    if (event.at("ph").get<std::string>() == "b")
      ++count[std::to_string(pid) + name];
  }
  for (const int replica : {0, 1}) {
    const std::string pid = std::to_string(replica);
    EXPECT_EQ(count[pid + "step"],
              snapshots[static_cast<size_t>(replica)]->scheduler.num_steps);
    EXPECT_GE(count[pid + "step"], 5);
    for (const char* phase : {"request", "queue", "prefill", "decode"}) {
      EXPECT_EQ(count[pid + phase], 1) << phase;
    }
  }
}

TEST(TraceFileTest, AFileThatCannotBeWrittenIsAnErrorThatNamesIt) {
  const auto trace = TraceFile::Create("/nowhere/trace.json", 1);
  EXPECT_EQ(trace.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(trace.status().message()),
              HasSubstr("/nowhere/trace.json"));
}

}  // namespace
}  // namespace witan
