// A coordinator that did not run for a while: what its workers said meanwhile
// lies unread, and no silence of theirs.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "base/limits.h"
#include "coordinator/cluster/replica.h"
#include "tests/cluster/replica_fixture.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

constexpr Micros kTimeout = kWorkerTimeoutMs * kMicrosPerMilli;
constexpr Micros kHeartbeat = kHeartbeatIntervalMs * kMicrosPerMilli;

class PausedCoordinatorTest : public ReplicaTest {
 protected:
  // Ticks as ReplicaLoop does until `end`; `alive` send their heartbeats.
  void RunUntil(Micros end, const std::vector<WorkerId>& alive) {
    Micros next_heartbeat = now_ + kHeartbeat;
    while (now_ < end) {
      now_ = std::min({replica_.NextWakeup(), next_heartbeat, end});
      if (now_ == next_heartbeat) {
        for (const WorkerId worker : alive) {
          replica_.OnMessage(worker, Heartbeat{}, now_);
        }
        next_heartbeat += kHeartbeat;
      }
      group_.Settle(now_);
    }
  }
};

TEST_F(PausedCoordinatorTest, KeepsAHealthyGroupHoweverLongThePauseWas) {
  Serve();
  // Also such pauses as end just when a worker would be given up.
  for (Micros pause = kTimeout - 2 * kHeartbeat; pause <= 3 * kTimeout;
       pause += kHeartbeat / 4) {
    RunUntil(now_ + kTimeout, {first_, second_});
    now_ += pause;
    // The loop's thread is sometimes faster than those that read.
    replica_.Tick(now_);
    ASSERT_EQ(replica_.state(), ReplicaState::kServing)
        << LastError() << " after " << pause;
    RunUntil(now_ + kHeartbeat, {first_, second_});
    ASSERT_EQ(replica_.epoch(), 1u) << LastError() << " after " << pause;
  }
}

TEST_F(PausedCoordinatorTest, KeepsAStepThatWasAnsweredMeanwhile) {
  Serve();
  const auto stream = Submit(1, 5, 20);
  replica_.Tick(now_);
  now_ += 2 * kStepTimeoutMs * kMicrosPerMilli;
  replica_.Tick(now_);
  ASSERT_EQ(replica_.state(), ReplicaState::kServing) << LastError();
  group_.Settle(now_);
  EXPECT_EQ(stream->end.value(), FinishReason::kLength);
  EXPECT_TRUE(stream->IsExact());
}

TEST_F(PausedCoordinatorTest, StillGivesUpAWorkerThatStaysSilent) {
  Serve();
  now_ += 2 * kTimeout;
  replica_.Tick(now_);
  const Micros resumed = now_;
  RunUntil(resumed + kTimeout - 1, {first_});
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  RunUntil(resumed + kTimeout, {first_});
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), HasSubstr("no message for 10 s"));
}

TEST_F(PausedCoordinatorTest, ATickInTimeGivesUpASilentWorkerAtOnce) {
  Serve();
  const Micros silent_since = now_;
  RunUntil(silent_since + kTimeout - 1, {first_});
  EXPECT_EQ(replica_.state(), ReplicaState::kServing);
  RunUntil(silent_since + kTimeout, {first_});
  EXPECT_EQ(replica_.state(), ReplicaState::kWaitingForWorkers);
  EXPECT_THAT(LastError(), HasSubstr("worker 2"));
}

}  // namespace
}  // namespace witan
