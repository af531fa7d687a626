// Clients that go away at any moment leave nothing behind.

#include <fmt/format.h>
#include <grpcpp/grpcpp.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/local_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr int kNumClients = 1000;
constexpr int kNumThreads = 16;

int NumDescriptors(pid_t pid) {
  int num = 0;
  for ([[maybe_unused]] const auto& entry :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/fd", pid))) {
    ++num;
  }
  return num;
}

int NumThreads(pid_t pid) {
  std::ifstream status(fmt::format("/proc/{}/status", pid));
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with("Threads:")) return std::stoi(line.substr(8));
  }
  return -1;
}

v1::GenerateRequest MakeRequest(std::mt19937_64& random) {
  v1::GenerateRequest request;
  const int num_prompt_tokens = 1 + static_cast<int>(random() % 150);
  for (int i = 0; i < num_prompt_tokens; ++i) {
    // Some prompts begin alike.
    request.mutable_token_ids()->add_ids(6 + static_cast<int>(random() % 2));
  }
  auto& parameters = *request.mutable_parameters();
  parameters.set_max_tokens(1 + static_cast<int>(random() % 150));
  parameters.set_ignore_eos(true);
  if (random() % 8 == 0) parameters.set_num_choices(3);
  request.set_tenant(fmt::format("tenant{}", random() % 3));
  request.set_priority(static_cast<int>(random() % 3));
  return request;
}

struct Counts {
  std::atomic<int> num_complete = 0;
  std::atomic<int> num_left_before_a_token = 0;
  std::atomic<int> num_left_in_the_middle = 0;
};

// One client with a connection of its own that reads so many messages and then
// goes away without a word.
void ComeAndGo(const std::string& server, uint64_t seed, Counts& counts) {
  std::mt19937_64 random(seed);
  grpc::ChannelArguments arguments;
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  const auto stub = v1::Inference::NewStub(grpc::CreateCustomChannel(
      server, grpc::InsecureChannelCredentials(), arguments));
  grpc::ClientContext context;
  const auto stream = stub->Generate(&context, MakeRequest(random));
  const int max_messages =
      random() % 4 == 0 ? 1 << 30 : static_cast<int>(random() % 40);
  v1::GenerateResponse chunk;
  int num_messages = 0;
  while (num_messages < max_messages && stream->Read(&chunk)) ++num_messages;
  if (num_messages == max_messages) context.TryCancel();
  while (stream->Read(&chunk)) {
  }
  if (stream->Finish().ok()) {
    ++counts.num_complete;
  } else if (num_messages == 0) {
    ++counts.num_left_before_a_token;
  } else {
    ++counts.num_left_in_the_middle;
  }
}

TEST(DisconnectTest, AThousandClientsThatGoAwayLeaveNothingBehind) {
  const TinyModel model;
  LocalServe serve(model.directory(), {"--tp=2", "--ep=2", "--max-sequences=16",
                                       "--num-blocks=80"});
  ASSERT_NE(serve.ready_line(), "") << serve.program().err();
  const pid_t coordinator = ChildOf(serve.program().pid(), "witan-coordinator");
  const pid_t worker = ChildOf(serve.program().pid(), "witan-worker");
  ASSERT_GT(coordinator, 0);
  ASSERT_GT(worker, 0);
  const std::string server = serve.server();
  Counts counts;
  const auto run = [&server, &counts](uint64_t first, int num_clients) {
    std::atomic<int> next = 0;
    std::vector<std::thread> threads;
    for (int i = 0; i < kNumThreads; ++i) {
      threads.emplace_back([&] {
        for (int client; (client = next++) < num_clients;) {
          ComeAndGo(server, first + static_cast<uint64_t>(client), counts);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
  };
  const auto is_idle = [](const v1::StatusResponse& status) {
    return status.scheduler().used_blocks() == 0 &&
           status.scheduler().running_sequences() == 0 &&
           status.scheduler().waiting_sequences() == 0 &&
           status.scheduler().paused_sequences() == 0;
  };
  run(1, kNumClients / 4);  // gRPC makes its threads as they are needed
  serve.WaitForStatus(is_idle);
  const int num_descriptors[] = {NumDescriptors(coordinator),
                                 NumDescriptors(worker)};
  const int num_threads[] = {NumThreads(coordinator), NumThreads(worker)};
  run(1000, kNumClients);
  const v1::StatusResponse idle = serve.WaitForStatus(is_idle);
  EXPECT_GT(idle.scheduler().total_blocks(), 0);
  // Closed sockets are let go by a thread of gRPC's.
  serve.WaitForStatus([&](const v1::StatusResponse&) {
    return NumDescriptors(coordinator) <= num_descriptors[0];
  });
  EXPECT_LE(NumDescriptors(worker), num_descriptors[1]);
  EXPECT_LE(NumThreads(coordinator), num_threads[0] + kNumThreads)
      << "gRPC's pool may grow with the connections open at once, not with "
         "those there ever were";
  EXPECT_LE(NumThreads(worker), num_threads[1]);
  // It was what this test is about.
  EXPECT_GT(counts.num_complete, kNumClients / 10);
  EXPECT_GT(counts.num_left_before_a_token, kNumClients / 100);
  EXPECT_GT(counts.num_left_in_the_middle, kNumClients / 4);
  EXPECT_GT(idle.scheduler().prefix_hit_tokens(), 0);
  EXPECT_GT(idle.scheduler().preemptions(), 0);
  EXPECT_EQ(serve.Stop(), 0);
}

}  // namespace
}  // namespace witan
