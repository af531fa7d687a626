#include "tests/worker_comm/group.h"

#include <gtest/gtest.h>

#include <thread>

namespace witan {

std::ostream& operator<<(std::ostream& out, TestTransport transport) {
  switch (transport) {
    case TestTransport::kLocal:
      return out << "Local";
    case TestTransport::kSharedMemory:
      return out << "SharedMemory";
    case TestTransport::kTcp:
      break;
  }
  return out << "Tcp";
}

void OnRanks(int size, const std::function<void(int rank)>& body) {
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank) threads.emplace_back(body, rank);
  for (std::thread& thread : threads) thread.join();
}

std::vector<std::unique_ptr<Rendezvous>> MakeRendezvous(
    TestTransport transport, const CommunicatorOptions& options) {
  if (transport == TestTransport::kLocal) return MakeLocalRendezvous(options);
  std::vector<std::unique_ptr<Rendezvous>> group;
  for (int rank = 0; rank < options.size; ++rank) {
    CommunicatorOptions of_rank = options;
    of_rank.rank = rank;
    auto half = transport == TestTransport::kTcp
                    ? MakeTcpRendezvous(of_rank, "127.0.0.1")
                    : MakeShmRendezvous(of_rank);
    EXPECT_TRUE(half.ok()) << half.status().ToString();
    if (!half.ok()) return {};
    group.push_back(*std::move(half));
  }
  return group;
}

std::vector<std::string> EndpointsOf(
    const std::vector<std::unique_ptr<Rendezvous>>& group) {
  std::vector<std::string> endpoints;
  for (const auto& half : group) endpoints.push_back(half->endpoint());
  return endpoints;
}

Group ConnectGroup(TestTransport transport,
                   const CommunicatorOptions& options) {
  const auto group = MakeRendezvous(transport, options);
  if (group.empty()) return {};
  const std::vector<std::string> endpoints = EndpointsOf(group);
  Group communicators(options.size);
  OnRanks(options.size, [&](int rank) {
    auto communicator = group[rank]->Connect(endpoints, kPatienceMs);
    EXPECT_TRUE(communicator.ok()) << communicator.status().ToString();
    if (communicator.ok()) communicators[rank] = *std::move(communicator);
  });
  for (const auto& communicator : communicators) {
    if (communicator == nullptr) return {};
  }
  return communicators;
}

CommunicatorOptions PatientOptions(int size, size_t max_send_bytes) {
  return {.size = size,
          .epoch = 7,
          .max_send_bytes = max_send_bytes,
          .timeout_ms = kPatienceMs};
}

}  // namespace witan
