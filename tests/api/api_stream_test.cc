// Streams of the API at their limits: their ends, their chunks, their errors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <string>

#include "base/limits.h"
#include "base/metric_names.h"
#include "base/status.h"
#include "net/channel.h"
#include "proto/cluster.grpc.pb.h"
#include "tests/api/running_api.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

TEST(ApiStreamTest, AnIdAndAStreamAreFreeOnceTheirStreamHasEnded) {
  const TinyModel model;
  RunningApi api(model.directory(), {.max_streams = 1});
  v1::GenerateRequest request = APrompt(1);
  request.set_request_id("again");
  for (int i = 0; i < 300; ++i) {
    const StreamResult result = api.Generate(request);
    ASSERT_TRUE(result.status.ok())
        << "use " << i << ": " << result.status.error_message();
  }
  // Also after an end that the client did not ask for.
  request.mutable_parameters()->set_max_tokens(100000);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(api.Generate(request).status.error_code(),
              grpc::StatusCode::INVALID_ARGUMENT)
        << "use " << i;
  }
}

TEST(ApiStreamTest, OneTenantLeavesPlacesForOthers) {
  const TinyModel model;
  RunningApi api(model.directory(), {.max_streams = 8});
  api.engine().HoldTokens();
  v1::GenerateRequest request = APrompt(3);
  request.set_tenant("greedy");
  std::vector<std::unique_ptr<grpc::ClientContext>> contexts;
  std::vector<std::unique_ptr<grpc::ClientReader<v1::GenerateResponse>>>
      streams;
  for (int i = 0; i < 7; ++i) {
    contexts.push_back(std::make_unique<grpc::ClientContext>());
    streams.push_back(api.inference().Generate(contexts.back().get(), request));
  }
  api.engine().WaitForLive(7);
  const StreamResult refused = api.Generate(request);
  EXPECT_EQ(refused.status.error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_THAT(refused.status.error_message(), HasSubstr("greedy"));
  EXPECT_THAT(refused.status.error_details(), HasSubstr("RetryInfo"));
  request.set_tenant("modest");
  contexts.push_back(std::make_unique<grpc::ClientContext>());
  streams.push_back(api.inference().Generate(contexts.back().get(), request));
  api.engine().WaitForLive(8);
  // Places come back, to the tenant too.
  api.engine().FailAll(Unavailable("over"));
  for (size_t i = 0; i < streams.size(); ++i) {
    ReadStream(*contexts[i], *streams[i]);
  }
  request.set_tenant("greedy");
  grpc::ClientContext context;
  const auto stream = api.inference().Generate(&context, request);
  api.engine().WaitForLive(1);
  api.engine().FailAll(Unavailable("over"));
  ReadStream(context, *stream);
}

TEST(ApiStreamTest, StopTokensAndStopStringsWaitForTheSameNumberOfTokens) {
  const TinyModel model;
  RunningApi api(model.directory());
  for (int min_tokens = 0; min_tokens <= 3; ++min_tokens) {
    v1::GenerateRequest by_token = APrompt(60);
    by_token.mutable_parameters()->set_min_tokens(min_tokens);
    v1::GenerateRequest by_string = by_token;
    by_token.mutable_parameters()->add_stop_token_ids(kTinyFirstByteToken +
                                                      'b');
    by_string.mutable_parameters()->add_stop("b");
    // b is token 1, and the next one token 27.
    const int expected = min_tokens <= 1 ? 2 : 28;
    EXPECT_EQ(api.Generate(by_token).NumTokens(), expected) << min_tokens;
    EXPECT_EQ(api.Generate(by_string).NumTokens(), expected) << min_tokens;
  }
}

TEST(ApiStreamTest, AnErrorOfAnyLengthArrivesWithItsCodeAndItsBeginning) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  // Every character takes nine bytes in a header.
  std::string reason;
  while (reason.size() < kMaxReasonBytes) reason += "\xE2\x82\xAC";
  grpc::ClientContext context;
  const auto reader = api.inference().Generate(&context, APrompt(9));
  api.engine().WaitForLive(1);
  api.engine().FailAll(Unavailable("x{}", reason));
  const StreamResult result = ReadStream(context, *reader);
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::UNAVAILABLE);
  const std::string message = result.status.error_message();
  EXPECT_EQ(message, ("x" + reason).substr(0, message.size() - 3) + "...");
  EXPECT_LE(message.size(), kMaxStatusMessageBytes);
  EXPECT_GT(message.size(), kMaxStatusMessageBytes - 4);
  EXPECT_THAT(result.status.error_details(), HasSubstr("RetryInfo"));
}

TEST(ApiStreamTest, ASequenceThatIsLateEndsItsStreamWithThatCode) {
  const TinyModel model;
  RunningApi api(model.directory());
  api.engine().HoldTokens();
  grpc::ClientContext context;
  const auto reader = api.inference().Generate(&context, APrompt(400));
  api.engine().WaitForLive(1);
  api.engine().Step();
  api.engine().FailAll(DeadlineExceeded("the deadline passed after 1 token"));
  const StreamResult result = ReadStream(context, *reader);
  EXPECT_EQ(result.choices.at(0).text, "a");
  EXPECT_EQ(result.status.error_code(), grpc::StatusCode::DEADLINE_EXCEEDED);
  EXPECT_THAT(result.status.error_message(), HasSubstr("after 1 token"));
  EXPECT_FALSE(result.trailers.contains("grpc-retry-pushback-ms"))
      << "a retry would be late as well";
}

TEST(ApiStreamTest, AReaderThatPausesGetsItsTokensInChunksOfBoundedSize) {
  const TinyModel model;
  // A few tokens of this size fill what the stream takes without a reader, so
  // that all later ones wait in the server.
  const auto large_token = [](int choice, int64_t index) {
    SampledToken token = NextLetter(choice, index);
    token.top_logprobs.resize(4000, {.token_id = 1, .logprob = -1.5f});
    return token;
  };
  RunningApi api(model.directory(), {.next_token = large_token});
  v1::GenerateRequest request = APrompt(500);
  request.mutable_parameters()->set_top_logprobs(1);
  request.mutable_parameters()->set_num_choices(2);
  grpc::ClientContext context;
  api.engine().HoldTokens();
  const auto reader = api.inference().Generate(&context, request);
  api.engine().WaitForLive(2);
  for (int i = 0; i < 500; ++i) api.engine().Step();
  api.engine().WaitForLive(0);
  const StreamResult result = ReadStream(context, *reader);
  ASSERT_TRUE(result.status.ok()) << result.status.error_message();
  int largest = 0;
  int64_t next_index[2] = {0, 0};
  for (const v1::GenerateResponse& chunk : result.chunks) {
    largest = std::max(largest, chunk.token_ids_size());
    EXPECT_EQ(chunk.token_index(), next_index[chunk.choice()]);
    EXPECT_EQ(chunk.logprobs_size(), chunk.token_ids_size());
    next_index[chunk.choice()] += chunk.token_ids_size();
  }
  EXPECT_EQ(largest, kMaxChunkTokens);
  EXPECT_EQ(next_index[0], 500);
  EXPECT_EQ(next_index[1], 500);
}

TEST(ApiStreamTest, WhatIsRefusedForWantOfRoomIsCounted) {
  const TinyModel model;
  RunningApi api(model.directory(), {.max_streams = 1});
  api.engine().HoldTokens();
  grpc::ClientContext context;
  v1::GenerateRequest request = APrompt(9);
  request.mutable_parameters()->set_num_choices(2);
  const auto reader = api.inference().Generate(&context, request);
  api.engine().WaitForLive(2);
  EXPECT_EQ(api.Generate(APrompt(1)).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  const auto count = [&api](const std::string& series) {
    const std::string text = "\n" + api.Scrape();
    const size_t at = text.find("\n" + series + " ");
    return at == std::string::npos
               ? 0
               : std::stoi(text.substr(at + series.size() + 2));
  };
  const std::string refused = std::string(metric::kRequests) +
                              "{method=\"generate\","
                              "outcome=\"resource_exhausted\"}";
  const std::string rejected = metric::kAdmissionRejected;
  EXPECT_EQ(count(refused), 1);
  EXPECT_EQ(count(rejected + "{reason=\"streams\"}"), 1);
  EXPECT_EQ(count(rejected + "{reason=\"queue\"}"), 0);
  // The scheduler's queue is full: both choices of one request are refused.
  api.engine().FailAll(ResourceExhausted("4096 sequences are waiting already"));
  EXPECT_EQ(ReadStream(context, *reader).status.error_code(),
            grpc::StatusCode::RESOURCE_EXHAUSTED);
  EXPECT_EQ(count(refused), 2);
  EXPECT_EQ(count(rejected + "{reason=\"queue\"}"), 1);
  EXPECT_EQ(count(std::string(metric::kQueueTime) + "_count"), 0)
      << "they were never in the queue";
  EXPECT_EQ(count(metric::kRequestsInFlight), 0);
}

TEST(ApiStreamTest, WhatTheSchedulerCountsIsExported) {
  const TinyModel model;
  RunningApi api(model.directory());
  ReplicaSnapshot snapshot = *api.engine().Snapshot();
  snapshot.scheduler.num_look_ahead_steps = 5;
  snapshot.scheduler.num_discarded_rows = 6;
  snapshot.scheduler.num_finished = 7;
  api.engine().SetSnapshot(snapshot);
  const std::string text = api.Scrape();
  EXPECT_THAT(text, HasSubstr(std::string(metric::kLookAheadSteps) +
                              "{replica=\"0\"} 5\n"));
  EXPECT_THAT(text, HasSubstr(std::string(metric::kDiscardedRows) +
                              "{replica=\"0\"} 6\n"));
  EXPECT_THAT(text, HasSubstr(std::string(metric::kSequencesFinished) +
                              "{replica=\"0\"} 7\n"));
}

TEST(ApiStreamTest, StatusTellsWhichWorkersWentAway) {
  const TinyModel model;
  RunningApi api(model.directory());
  ReplicaSnapshot snapshot = *api.engine().Snapshot();
  WorkerInfo lost;
  lost.id = 4;
  lost.registration.host_name = "far\xff";
  lost.registration.process_id = 9;
  lost.lost_cause = "connection closed";
  snapshot.lost_workers = {lost};
  api.engine().SetSnapshot(snapshot);
  const auto cluster = v1::Cluster::NewStub(
      MakeChannel(api.server().grpc_address(), {.max_receive_bytes = 1 << 20}));
  grpc::ClientContext context;
  v1::StatusResponse status;
  ASSERT_TRUE(cluster->Status(&context, {}, &status).ok());
  ASSERT_EQ(status.lost_workers_size(), 1);
  EXPECT_EQ(status.lost_workers(0).worker_id(), 4u);
  EXPECT_EQ(status.lost_workers(0).host_name(), "far\xEF\xBF\xBD");
  EXPECT_EQ(status.lost_workers(0).process_id(), 9);
  EXPECT_EQ(status.lost_workers(0).cause(), "connection closed");
}

}  // namespace
}  // namespace witan
