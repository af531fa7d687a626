// Many clients at once on one cluster of processes.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <thread>
#include <vector>

#include "base/limits.h"
#include "tests/e2e/local_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr int kNumClients = 64;
constexpr int kNumBlocks = 60;  // with the null block

// Mixed lengths: the shortest asks for one token, the longest for 120.
v1::GenerateRequest MakeRequest(int client) {
  v1::GenerateRequest request;
  const int prompt_tokens = 1 + client * 5 % 200;
  for (int i = 0; i < prompt_tokens; ++i) {
    request.mutable_token_ids()->add_ids(6 + (client * 17 + i * 3) % 256);
  }
  request.mutable_parameters()->set_max_tokens(1 + client * 7 % 120);
  request.mutable_parameters()->set_ignore_eos(true);
  request.mutable_parameters()->set_seed(static_cast<uint64_t>(client));
  return request;
}

TEST(LoadTest, SixtyFourClientsFinishAndGiveTheirBlocksBack) {
  const TinyModel model;
  // Fewer slots and blocks than clients want, so that some wait and some are
  // preempted.
  LocalServe serve(model.directory(),
                   {"--tp=2", "--ep=2", "--max-sequences=24",
                    fmt::format("--num-blocks={}", kNumBlocks)});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const auto channel = serve.channel();
  std::vector<CallResult> together(kNumClients);
  std::vector<std::thread> clients;
  std::atomic<int> num_done = 0;
  for (int i = 0; i < kNumClients; ++i) {
    clients.emplace_back([&, i] {
      together[static_cast<size_t>(i)] = Generate(channel, MakeRequest(i));
      ++num_done;
    });
  }
  int64_t max_waiting = 0;
  int64_t max_used_blocks = 0;
  while (num_done < kNumClients) {
    const v1::SchedulerStatus now = serve.Status().scheduler();
    max_waiting = std::max(max_waiting, now.waiting_sequences());
    max_used_blocks = std::max(max_used_blocks, now.used_blocks());
  }
  for (std::thread& client : clients) client.join();
  for (int i = 0; i < kNumClients; ++i) {
    const CallResult& result = together[static_cast<size_t>(i)];
    ASSERT_TRUE(result.status.ok())
        << i << ": " << result.status.error_message();
    const ChoiceResult& choice = result.generation.choices.front();
    EXPECT_EQ(choice.finish_reason, v1::FINISH_REASON_LENGTH);
    EXPECT_EQ(static_cast<int>(choice.token_ids.size()), 1 + i * 7 % 120);
  }
  const auto idle = serve.WaitForStatus([](const v1::StatusResponse& status) {
    return status.scheduler().used_blocks() == 0;
  });
  EXPECT_EQ(idle.scheduler().running_sequences(), 0);
  EXPECT_EQ(idle.scheduler().waiting_sequences(), 0);
  // It was the crowd that this test is about.
  EXPECT_EQ(idle.scheduler().total_blocks(), kNumBlocks - 1);
  EXPECT_GT(idle.scheduler().preemptions(), 0);
  EXPECT_GT(max_waiting, 0);
  EXPECT_GT(max_used_blocks, 0);

  // Alone on the same cluster: the crowd changed nothing.
  for (const int i : {0, 13, 40, 63}) {
    const CallResult alone = Generate(channel, MakeRequest(i));
    ASSERT_TRUE(alone.status.ok()) << alone.status.error_message();
    EXPECT_EQ(
        alone.generation.choices.front().token_ids,
        together[static_cast<size_t>(i)].generation.choices.front().token_ids);
  }
}

TEST(LoadTest, AClientThatGoesAwayGivesItsBlocksBack) {
  constexpr int kMaxTokens = 300;
  const TinyModel model;
  // One slot: the other choices wait for the first one to end, so that whoever
  // leaves at the first token leaves thousands undone.
  LocalServe serve(model.directory(), {"--max-sequences=1"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  v1::GenerateRequest request = MakeRequest(50);
  request.mutable_parameters()->set_max_tokens(kMaxTokens);
  request.mutable_parameters()->set_num_choices(kMaxChoices);
  {
    grpc::ClientContext context;
    const auto stub = v1::Inference::NewStub(serve.channel());
    const auto stream = stub->Generate(&context, request);
    v1::GenerateResponse chunk;
    ASSERT_TRUE(stream->Read(&chunk));
    context.TryCancel();
    while (stream->Read(&chunk)) {
    }
    EXPECT_EQ(stream->Finish().error_code(), grpc::StatusCode::CANCELLED);
  }
  // All of it goes, also what had not begun.
  const auto idle = serve.WaitForStatus([](const v1::StatusResponse& status) {
    return status.scheduler().used_blocks() == 0 &&
           status.scheduler().running_sequences() == 0 &&
           status.scheduler().waiting_sequences() == 0;
  });
  EXPECT_LT(idle.scheduler().generated_tokens(), kMaxChoices * kMaxTokens);
}

}  // namespace
}  // namespace witan
