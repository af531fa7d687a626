#ifndef WITAN_TESTS_WORKER_COMM_GROUP_H_
#define WITAN_TESTS_WORKER_COMM_GROUP_H_

// All ranks of one group as threads of the test.

#include <functional>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "worker/comm/rendezvous.h"

namespace witan {

// Enough for every wait that is not what a test is about.
constexpr int64_t kPatienceMs = 120'000;

enum class TestTransport { kLocal, kSharedMemory, kTcp };

std::ostream& operator<<(std::ostream& out, TestTransport transport);

// Runs body(rank) for every rank of [0, size), each on a thread of its own.
void OnRanks(int size, const std::function<void(int rank)>& body);

// A rendezvous for each rank; options.rank is not read. A failure is one of
// the running test.
std::vector<std::unique_ptr<Rendezvous>> MakeRendezvous(
    TestTransport transport, const CommunicatorOptions& options);

std::vector<std::string> EndpointsOf(
    const std::vector<std::unique_ptr<Rendezvous>>& group);

using Group = std::vector<std::unique_ptr<Communicator>>;

// The connected communicators, by rank; empty after a failure.
Group ConnectGroup(TestTransport transport, const CommunicatorOptions& options);

// Options of a group that fails no test by being slow.
CommunicatorOptions PatientOptions(int size, size_t max_send_bytes);

}  // namespace witan

#endif  // WITAN_TESTS_WORKER_COMM_GROUP_H_
