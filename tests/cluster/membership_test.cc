#include "coordinator/cluster/membership.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr Micros kTimeout = kWorkerTimeoutMs * kMicrosPerMilli;

RegisterWorker Registration() {
  RegisterWorker registration;
  registration.build_id = "build-a";
  registration.host_name = "h";
  registration.process_id = 123;
  return registration;
}

class MembershipTest : public ::testing::Test {
 protected:
  std::string Refusal(const RegisterWorker& registration) {
    const absl::Status status = membership_.Register(9, registration, 0);
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition) << status;
    EXPECT_EQ(membership_.num_members(), 0);
    return std::string(MessageOf(status));
  }

  Membership membership_{{"build-a", "/models/a"}};
};

TEST_F(MembershipTest, AWorkerOfAnotherBuildIsRefusedWithBothBuildIds) {
  RegisterWorker registration = Registration();
  registration.build_id = "build-b";
  registration.protocol_version = 99;  // looked at only after the build id
  EXPECT_THAT(Refusal(registration),
              AllOf(HasSubstr("build-a"), HasSubstr("build-b")));
}

TEST_F(MembershipTest, AWorkerOfAnotherProtocolIsRefusedWithBothVersions) {
  RegisterWorker registration = Registration();
  registration.protocol_version = 99;
  registration.model_directory = "/models/b";
  EXPECT_THAT(Refusal(registration),
              HasSubstr(fmt::format("version 99, the coordinator {}",
                                    kWorkerProtocolVersion)));
}

TEST_F(MembershipTest, AWorkerToldAnotherModelIsRefusedWithBothDirectories) {
  RegisterWorker registration = Registration();
  registration.model_directory = "/models/b";
  EXPECT_THAT(Refusal(registration),
              AllOf(HasSubstr("/models/a"), HasSubstr("/models/b")));
  registration.model_directory = "/models/a";
  EXPECT_TRUE(membership_.Register(1, registration, 0).ok());
}

TEST_F(MembershipTest, OneConnectionRegistersOnce) {
  EXPECT_TRUE(membership_.Register(1, Registration(), 0).ok());
  EXPECT_EQ(membership_.Register(1, Registration(), 0).code(),
            absl::StatusCode::kAlreadyExists);
  EXPECT_EQ(membership_.num_members(), 1);
}

TEST_F(MembershipTest, TheNumberOfWorkersIsBounded) {
  for (WorkerId id = 1; id <= kMaxWorkers; ++id) {
    ASSERT_TRUE(membership_.Register(id, Registration(), 0).ok());
  }
  EXPECT_EQ(membership_.Register(9999, Registration(), 0).code(),
            absl::StatusCode::kResourceExhausted);
}

TEST_F(MembershipTest, OnlyWorkersThatWereNotHeardOfExpire) {
  EXPECT_EQ(membership_.NextExpiry(), std::numeric_limits<Micros>::max());
  ASSERT_TRUE(membership_.Register(1, Registration(), 100).ok());
  ASSERT_TRUE(membership_.Register(2, Registration(), 100).ok());
  EXPECT_TRUE(membership_.OnHeard(2, 300));
  EXPECT_EQ(membership_.NextExpiry(), 100 + kTimeout);
  EXPECT_THAT(membership_.Expired(99 + kTimeout), IsEmpty());
  EXPECT_THAT(membership_.Expired(100 + kTimeout), ElementsAre(1));
  EXPECT_THAT(membership_.Expired(300 + kTimeout), ElementsAre(1, 2));
  EXPECT_FALSE(membership_.OnHeard(3, 300));
}

TEST_F(MembershipTest, AConnectionHasToRegisterInTime) {
  constexpr Micros kPatience = kRegistrationTimeoutMs * kMicrosPerMilli;
  membership_.OnConnected(1, 100);
  membership_.OnConnected(2, 100);
  membership_.OnConnected(3, 200);
  membership_.OnConnected(4, 100);
  EXPECT_EQ(membership_.NextExpiry(), 100 + kPatience);
  EXPECT_TRUE(membership_.Register(1, Registration(), 300).ok());
  RegisterWorker stranger = Registration();
  stranger.build_id = "build-b";
  EXPECT_FALSE(membership_.Register(4, stranger, 300).ok());
  EXPECT_THAT(membership_.Unregistered(99 + kPatience), IsEmpty());
  EXPECT_THAT(membership_.Unregistered(100 + kPatience), ElementsAre(2));
  EXPECT_THAT(membership_.Unregistered(200 + kPatience), ElementsAre(2, 3));
  EXPECT_FALSE(membership_.OnLost(2, "too late")) << "it was no member";
  EXPECT_THAT(membership_.Unregistered(200 + kPatience), ElementsAre(3));
  EXPECT_EQ(membership_.lost().size(), 0u);
  EXPECT_FALSE(membership_.OnLost(3, "connection closed"));
  EXPECT_EQ(membership_.NextExpiry(), 300 + kTimeout) << "of worker 1";
}

TEST_F(MembershipTest, FailedStartsAreCountedUntilAGroupServes) {
  ASSERT_TRUE(membership_.Register(1, Registration(), 0).ok());
  membership_.OnFailedStart(1);
  membership_.OnFailedStart(1);
  membership_.OnFailedStart(2);  // of one that went away
  EXPECT_EQ(membership_.Find(1)->num_failed_starts, 2);
  membership_.OnServing(1);
  EXPECT_EQ(membership_.Find(1)->num_failed_starts, 0);
}

TEST_F(MembershipTest, AssignedWorkersAreNotIdleAndLostOnesAreRemembered) {
  for (WorkerId id = 1; id <= 3; ++id) {
    ASSERT_TRUE(membership_.Register(id, Registration(), 0).ok());
  }
  membership_.Assign(2, /*epoch=*/5, /*rank=*/1);
  EXPECT_EQ(membership_.Find(2)->Name(),
            "worker 2 (rank 1, pid 123 on host h)");
  EXPECT_EQ(membership_.Find(1)->Name(), "worker 1 (pid 123 on host h)");
  ASSERT_EQ(membership_.Idle().size(), 2u);
  EXPECT_EQ(membership_.Idle()[1].id, 3u);
  EXPECT_TRUE(membership_.OnLost(2, "connection closed"));
  EXPECT_FALSE(membership_.OnLost(2, "connection closed"));
  EXPECT_EQ(membership_.Find(2), nullptr);
  ASSERT_EQ(membership_.lost().size(), 1u);
  EXPECT_EQ(membership_.lost()[0].lost_cause, "connection closed");
  EXPECT_EQ(membership_.lost()[0].state, WorkerState::kLost);

  membership_.Assign(3, 6, 0);
  membership_.ReleaseAll();
  EXPECT_EQ(membership_.Idle().size(), 2u);
  EXPECT_EQ(membership_.Find(3)->rank, -1);
}

TEST_F(MembershipTest, RemembersOnlyTheLastLostWorkers) {
  for (WorkerId id = 1; id <= 100; ++id) {
    ASSERT_TRUE(membership_.Register(id, Registration(), 0).ok());
    ASSERT_TRUE(membership_.OnLost(id, "gone"));
  }
  EXPECT_EQ(membership_.lost().size(), kMaxLostWorkersRemembered);
  EXPECT_EQ(membership_.lost().back().id, 100u);
}

}  // namespace
}  // namespace witan
