// A worker dies: its streams say so, the coordinator stays, and the worker that
// is started in its place serves the same bits.

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <string>

#include "base/config.h"
#include "base/worker_protocol.h"
#include "proto/worker.grpc.pb.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

v1::GenerateRequest LongRequest() {
  v1::GenerateRequest request;
  request.set_text("the quick brown fox");
  request.mutable_parameters()->set_max_tokens(400);
  request.mutable_parameters()->set_ignore_eos(true);
  request.mutable_parameters()->set_seed(5);
  request.mutable_parameters()->set_top_logprobs(0);
  return request;
}

// What serve prints once a group that was not there before serves.
std::string ServingAgain(const v1::StatusResponse& status) {
  return fmt::format("serving again, epoch {}\n", status.epoch());
}

bool IsServing(const v1::StatusResponse& status) {
  return status.state() == v1::GROUP_STATE_SERVING;
}

TEST(FailureTest, AKilledWorkerEndsItsStreamsAndComesBackWithTheSameTokens) {
  const TinyModel model;
  LocalServe serve(model.directory(), {"--tp=2", "--ep=2"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const auto channel = serve.channel();
  const auto before = serve.Status();
  const CallResult undisturbed = Generate(channel, LongRequest());
  ASSERT_TRUE(undisturbed.status.ok());

  for (const int victim : {1, 0}) {
    SCOPED_TRACE(victim);
    const auto status = serve.WaitForStatus(IsServing);
    const pid_t pid = static_cast<pid_t>(status.workers(victim).process_id());
    int num_chunks = 0;
    const CallResult broken = Generate(channel, LongRequest(), [&] {
      if (++num_chunks == 3) kill(pid, SIGKILL);
    });
    EXPECT_EQ(broken.status.error_code(), grpc::StatusCode::UNAVAILABLE);
    EXPECT_THAT(broken.status.error_message(), HasSubstr("worker"));
    // What did arrive is a part of the undisturbed run.
    const auto& whole = undisturbed.generation.choices.front().token_ids;
    const auto& part = broken.generation.choices.front().token_ids;
    ASSERT_LE(part.size(), whole.size());
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin()));

    serve.WaitForStatus([&](const v1::StatusResponse& now) {
      return IsServing(now) && now.epoch() > status.epoch();
    });
    const CallResult again = Generate(channel, LongRequest());
    ASSERT_TRUE(again.status.ok()) << again.status.error_message();
    EXPECT_EQ(again.generation.choices.front().token_ids, whole);
  }
  const auto after = serve.Status();
  EXPECT_EQ(after.weights_id(), before.weights_id());
  EXPECT_EQ(after.numerics_id(), before.numerics_id());
  EXPECT_GT(after.epoch(), before.epoch());
  RunningProgram& program = serve.program();
  EXPECT_TRUE(program.ReadUntil([&] {
    return program.err().find(ServingAgain(after)) != std::string::npos;
  }));
  EXPECT_THAT(program.err(), HasSubstr("ended with signal 9"));
  EXPECT_THAT(program.err(), Not(HasSubstr(ServingAgain(before))));
  EXPECT_EQ(serve.Stop(), kExitOk);
}

TEST(FailureTest, ASpareTakesTheDeadWorkersPlace) {
  const TinyModel model;
  LocalServe serve(model.directory(), {"--tp=2", "--ep=1", "--spares=1"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const auto before = serve.WaitForStatus([](const v1::StatusResponse& status) {
    return IsServing(status) && status.workers_size() == 3;
  });
  kill(static_cast<pid_t>(before.workers(0).process_id()), SIGKILL);
  const auto after = serve.WaitForStatus([&](const v1::StatusResponse& now) {
    return IsServing(now) && now.epoch() > before.epoch();
  });
  EXPECT_NE(after.workers(0).process_id(), before.workers(0).process_id());
}

TEST(FailureTest, TheEndOfASpareIsNoNewsOfTheGroup) {
  const TinyModel model;
  LocalServe serve(model.directory(), {"--workers=2"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const auto has_spare = [](const v1::StatusResponse& status) {
    return status.workers_size() == 2;
  };
  const auto before = serve.WaitForStatus(has_spare);
  ASSERT_FALSE(before.workers(1).has_rank());
  kill(static_cast<pid_t>(before.workers(1).process_id()), SIGKILL);
  const auto after = serve.WaitForStatus([&](const v1::StatusResponse& now) {
    return has_spare(now) &&
           now.workers(1).process_id() != before.workers(1).process_id();
  });
  EXPECT_EQ(after.epoch(), before.epoch());
  EXPECT_EQ(serve.Stop(), kExitOk);
  EXPECT_THAT(serve.program().err(), HasSubstr("ended with signal 9"));
  EXPECT_THAT(serve.program().err(), Not(HasSubstr("serving again")));
}

TEST(FailureTest, AWorkerOfAnotherBuildIsRefusedWithBothBuilds) {
  const TinyModel model;
  LocalServe serve(model.directory(), {});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  grpc::ClientContext context;
  const auto stub = worker::v1::WorkerLink::NewStub(serve.channel());
  const auto stream = stub->Attach(&context);
  worker::v1::FromWorker hello;
  auto& registration = *hello.mutable_register_worker();
  registration.set_build_id("feedfacefeedface");
  registration.set_protocol_version(kWorkerProtocolVersion);
  registration.set_host_id("host");
  registration.set_host_name("host");
  registration.set_process_id(1);
  registration.set_device("cpu");
  registration.set_cpu_path("portable");
  registration.set_num_cores(1);
  registration.set_memory_bytes(1 << 30);
  stream->Write(hello);
  worker::v1::FromCoordinator answer;
  EXPECT_FALSE(stream->Read(&answer));
  const grpc::Status status = stream->Finish();
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("feedfacefeedface"));
  EXPECT_THAT(status.error_message(), HasSubstr(serve.Status().build_id()));
  EXPECT_TRUE(Generate(serve.channel(), LongRequest()).status.ok());
}

}  // namespace
}  // namespace witan
