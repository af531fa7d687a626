// What every transport promises, with ranks as threads: the operations against
// a naive model, and how a group ends.

#include "worker/comm/communicator.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <latch>
#include <random>
#include <thread>

#include "base/status.h"
#include "tests/worker_comm/group.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

constexpr TestTransport kAllTransports[] = {
    TestTransport::kLocal, TestTransport::kSharedMemory, TestTransport::kTcp};

// The byte that `rank` writes at `index` of the send buffer of operation
// `number`.
std::byte Pattern(uint64_t number, int rank, size_t index) {
  uint64_t x = number * 0x9e3779b97f4a7c15 + rank * 0xbf58476d1ce4e5b9 + index;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return static_cast<std::byte>(x >> 56);
}

void Fill(Communicator& comm, uint64_t number) {
  for (size_t i = 0; i < comm.max_send_bytes(); ++i) {
    comm.SendBuffer()[i] = Pattern(number, comm.rank(), i);
  }
}

// True when `view` is what `rank` wrote at [begin, begin + view.size()).
bool Holds(std::span<const std::byte> view, uint64_t number, int rank,
           size_t begin) {
  for (size_t i = 0; i < view.size(); ++i) {
    if (view[i] != Pattern(number, rank, begin + i)) return false;
  }
  return true;
}

size_t Sum(const std::vector<size_t>& values) {
  size_t sum = 0;
  for (const size_t value : values) sum += value;
  return sum;
}

// A random operation, drawn alike on every rank.
struct Draw {
  enum Kind { kAllGather, kGather, kAllToAll, kBroadcast, kBarrier } kind;
  int root;
  size_t bytes;
  std::vector<size_t> bytes_of_rank = {};
  std::vector<std::vector<size_t>> chunk_bytes = {};  // by sender, receiver
  std::vector<size_t> blocks_of_rank = {};
};

Draw DrawOperation(std::mt19937_64& random, int size, size_t max_bytes) {
  const auto below = [&random](size_t n) { return random() % n; };
  // Often nothing, often little, sometimes all.
  const auto draw_bytes = [&](size_t max) -> size_t {
    switch (below(4)) {
      case 0:
        return 0;
      case 1:
        return below(std::min<size_t>(max, 100) + 1);
      case 2:
        return below(max + 1);
      default:
        return max;
    }
  };
  Draw draw{.kind = static_cast<Draw::Kind>(below(5)),
            .root = static_cast<int>(below(size)),
            .bytes = draw_bytes(max_bytes)};
  for (int rank = 0; rank < size; ++rank) {
    draw.bytes_of_rank.push_back(draw_bytes(max_bytes));
    draw.blocks_of_rank.push_back(below(4));
    std::vector<size_t>& chunks = draw.chunk_bytes.emplace_back();
    for (int receiver = 0; receiver < size; ++receiver) {
      chunks.push_back(draw_bytes(max_bytes / (4 * size)));
    }
  }
  return draw;
}

// "" or what went wrong.
std::string RunDraw(Communicator& comm, const Draw& draw, uint64_t number) {
  const int rank = comm.rank();
  const int size = comm.size();
  const size_t group_size = size;
  switch (draw.kind) {
    case Draw::kAllGather:
    case Draw::kGather: {
      const bool receives = draw.kind == Draw::kAllGather || rank == draw.root;
      const auto views = draw.kind == Draw::kAllGather
                             ? comm.AllGather(draw.bytes_of_rank)
                             : comm.Gather(draw.bytes_of_rank, draw.root);
      if (!views.ok()) return views.status().ToString();
      if (views->size() != (receives ? group_size : 0))
        return "number of views";
      for (int peer = 0; receives && peer < size; ++peer) {
        if ((*views)[peer].size() != draw.bytes_of_rank[peer] ||
            !Holds((*views)[peer], number, peer, 0)) {
          return fmt::format("gathered bytes of rank {}", peer);
        }
      }
      return "";
    }
    case Draw::kAllToAll: {
      std::vector<size_t> receive_bytes;
      for (int peer = 0; peer < size; ++peer) {
        receive_bytes.push_back(draw.chunk_bytes[peer][rank]);
      }
      const auto views = comm.AllToAll(draw.chunk_bytes[rank], receive_bytes,
                                       draw.blocks_of_rank);
      if (!views.ok()) return views.status().ToString();
      size_t i = 0;
      for (int peer = 0; peer < size; ++peer) {
        const std::vector<size_t>& chunks = draw.chunk_bytes[peer];
        size_t begin = 0;
        for (int r = 0; r < rank; ++r) begin += chunks[r];
        for (size_t b = 0; b < draw.blocks_of_rank[peer]; ++b, ++i) {
          if (i >= views->size() || (*views)[i].size() != chunks[rank] ||
              !Holds((*views)[i], number, peer, begin + b * Sum(chunks))) {
            return fmt::format("block {} of rank {}", b, peer);
          }
        }
      }
      return i == views->size() ? "" : "number of views";
    }
    case Draw::kBroadcast: {
      const auto view = comm.Broadcast(draw.bytes, draw.root);
      if (!view.ok()) return view.status().ToString();
      return view->size() == draw.bytes && Holds(*view, number, draw.root, 0)
                 ? ""
                 : "broadcast bytes";
    }
    case Draw::kBarrier:
      break;
  }
  return comm.Barrier().ToString() == "OK" ? "" : "barrier";
}

struct Case {
  TestTransport transport;
  int size;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.transport << c.size;
}

std::vector<Case> CasesOf(std::vector<int> sizes) {
  std::vector<Case> cases;
  for (const TestTransport transport : kAllTransports) {
    for (const int size : sizes) cases.push_back({transport, size});
  }
  return cases;
}

class CommunicatorTest : public ::testing::TestWithParam<Case> {
 protected:
  TestTransport transport() const { return GetParam().transport; }
  int size() const { return GetParam().size; }
};
INSTANTIATE_TEST_SUITE_P(All, CommunicatorTest,
                         ::testing::ValuesIn(CasesOf({1, 2, 3, 4, 5, 6, 7, 8})),
                         ::testing::PrintToStringParamName());

class GroupEndTest : public CommunicatorTest {};
INSTANTIATE_TEST_SUITE_P(All, GroupEndTest,
                         ::testing::ValuesIn(CasesOf({2, 3, 5})),
                         ::testing::PrintToStringParamName());

TEST_P(CommunicatorTest, MovesWhatTheNaiveModelMoves) {
  constexpr size_t kMaxBytes = 3000;
  constexpr int kNumOperations = 150;
  Group group = ConnectGroup(transport(), PatientOptions(size(), kMaxBytes));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    std::mt19937_64 random(size());
    for (int number = 0; number < kNumOperations; ++number) {
      Fill(*group[rank], number);
      const std::string wrong = RunDraw(
          *group[rank], DrawOperation(random, size(), kMaxBytes), number);
      ASSERT_EQ(wrong, "") << "rank " << rank << " operation " << number;
    }
  });
}

TEST_P(CommunicatorTest, KeepsViewsWhileTheNextSendBufferIsFilled) {
  constexpr size_t kBytes = 5000;
  Group group = ConnectGroup(transport(), PatientOptions(size(), kBytes));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  const std::vector<size_t> bytes(size(), kBytes);
  OnRanks(size(), [&](int rank) {
    Communicator& comm = *group[rank];
    Fill(comm, 0);
    for (int number = 0; number < 50; ++number) {
      const auto views = comm.AllGather(bytes);
      ASSERT_TRUE(views.ok()) << views.status().ToString();
      Fill(comm, number + 1);
      for (int peer = 0; peer < size(); ++peer) {
        ASSERT_TRUE(Holds((*views)[peer], number, peer, 0));
      }
    }
  });
}

TEST_P(CommunicatorTest, MovesMoreThanAnySocketBufferBothWays) {
  constexpr size_t kBytes = size_t{9} << 20;
  Group group = ConnectGroup(transport(), PatientOptions(size(), kBytes));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  std::vector<size_t> bytes(size(), 0);
  bytes[0] = kBytes;
  bytes[size() - 1] = kBytes;
  OnRanks(size(), [&](int rank) {
    Communicator& comm = *group[rank];
    std::memset(comm.SendBuffer(), rank + 1, kBytes);
    const auto views = comm.AllGather(bytes);
    ASSERT_TRUE(views.ok()) << views.status().ToString();
    for (const int peer : {0, size() - 1}) {
      const std::vector<std::byte> expected(kBytes,
                                            static_cast<std::byte>(peer + 1));
      ASSERT_EQ((*views)[peer].size(), kBytes);
      EXPECT_EQ(std::memcmp((*views)[peer].data(), expected.data(), kBytes), 0);
    }
  });
}

TEST_P(CommunicatorTest, GivesAlignedSendBuffers) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    std::byte* const first = group[rank]->SendBuffer();
    EXPECT_EQ(reinterpret_cast<uintptr_t>(first) % 64, 0);
    EXPECT_TRUE(group[rank]->Barrier().ok());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(group[rank]->SendBuffer()) % 64, 0);
    EXPECT_NE(group[rank]->SendBuffer(), first);
  });
}

TEST_P(CommunicatorTest, CountsWaitingAsPartOfTheTimeSpent) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    for (int i = 0; i < 100; ++i) EXPECT_TRUE(group[rank]->Barrier().ok());
    EXPECT_GT(group[rank]->times().total_us, 0);
    EXPECT_GE(group[rank]->times().wait_us, 0);
    EXPECT_GE(group[rank]->times().total_us, group[rank]->times().wait_us);
  });
}

TEST_P(GroupEndTest, AbortWakesEveryRankWithTheReason) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  // The last rank calls nothing: the others wait, and are told by Abort only.
  std::thread aborter([&] { group[size() - 1]->Abort("operator said so"); });
  OnRanks(size() - 1, [&](int rank) {
    const absl::Status status = group[rank]->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.ToString(), HasSubstr("operator said so"));
    // Dead it stays, with the same words.
    EXPECT_EQ(group[rank]->Barrier(), status);
    EXPECT_EQ(group[rank]->Broadcast(10, 0).status(), status);
  });
  aborter.join();
  const absl::Status status = group[size() - 1]->Barrier();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("operator said so"));
}

TEST_P(GroupEndTest, AbortInTheMiddleOfTrafficEndsAllRanks) {
  constexpr size_t kBytes = 1 << 20;
  Group group = ConnectGroup(transport(), PatientOptions(size(), kBytes));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  const std::vector<size_t> bytes(size(), kBytes);
  std::thread aborter;
  OnRanks(size(), [&](int rank) {
    absl::Status status;
    for (int number = 0; status.ok(); ++number) {
      if (rank == 0 && number == 5) {
        aborter = std::thread([&] { group[0]->Abort("enough"); });
      }
      status = group[rank]->AllGather(bytes).status();
    }
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable)
        << status.ToString();
  });
  aborter.join();
}

TEST_P(GroupEndTest, TheFirstAbortCountsAndALongReasonIsCut) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  group[0]->Abort(std::string(10 * kMaxAbortReasonBytes, 'x'));
  group[0]->Abort("second");
  OnRanks(size(), [&](int rank) {
    const absl::Status status = group[rank]->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.ToString(), HasSubstr("xxx [cut]"));
    EXPECT_LT(status.message().size(), 2 * kMaxAbortReasonBytes);
  });
}

TEST_P(GroupEndTest, ARankThatNeverComesIsNamed) {
  // Long enough for ranks that are let go together to find each other, however
  // busy the machine is; a rank that waits alone need not wait for that.
  CommunicatorOptions options = PatientOptions(size(), 100);
  options.timeout_ms = size() == 2 ? 1 : 2000;
  Group group = ConnectGroup(transport(), options);
  ASSERT_EQ(static_cast<int>(group.size()), size());
  const int late = size() - 1;
  std::atomic<int> num_out_of_time = 0;
  std::latch together(late);
  OnRanks(late, [&](int rank) {
    together.arrive_and_wait();
    const absl::Status status = group[rank]->Broadcast(10, 0).status();
    // Its own deadline, or the word of a rank whose deadline came first.
    num_out_of_time += absl::IsDeadlineExceeded(status);
    EXPECT_TRUE(absl::IsDeadlineExceeded(status) || absl::IsUnavailable(status))
        << status.ToString();
    EXPECT_THAT(
        status.ToString(),
        HasSubstr(fmt::format(
            "rank {} did not come to Broadcast (operation 1 of epoch 7)",
            late)));
  });
  EXPECT_GE(num_out_of_time, 1);
  // It is told, when it comes at last, that the group is dead, and why.
  EXPECT_THAT(group[late]->Broadcast(10, 0).status().ToString(),
              HasSubstr(fmt::format("rank {} did not come", late)));
}

TEST_P(GroupEndTest, ARankThatLeavesIsNamed) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    if (rank == 1) {
      EXPECT_TRUE(group[rank]->Barrier().ok());
      group[rank].reset();
      return;
    }
    // A rank that is slow in the first may hear from one in the second.
    absl::Status status;
    for (int i = 0; i < 2 && status.ok(); ++i) status = group[rank]->Barrier();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.ToString(), HasSubstr("rank 1 "));
  });
}

TEST_P(GroupEndTest, RanksThatAllLeaveAfterTheLastOperationHurtNobody) {
  for (int round = 0; round < 20; ++round) {
    Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
    ASSERT_EQ(static_cast<int>(group.size()), size());
    OnRanks(size(), [&](int rank) {
      const absl::Status status = group[rank]->Barrier();
      EXPECT_TRUE(status.ok()) << status.ToString();
      group[rank].reset();
    });
  }
}

TEST_P(GroupEndTest, ADifferentOperationIsFoundOut) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    const absl::Status status = rank == 1
                                    ? group[rank]->Barrier()
                                    : group[rank]->Broadcast(10, 0).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
    EXPECT_THAT(status.ToString(), HasSubstr("disagree on operation 1"));
    EXPECT_THAT(status.ToString(), HasSubstr("Broadcast of 10 bytes, root 0"));
    EXPECT_THAT(status.ToString(), HasSubstr("Barrier"));
  });
}

TEST_P(GroupEndTest, DifferentSizesAreFoundOut) {
  for (const int odd : {0, 1}) {
    Group group = ConnectGroup(transport(), PatientOptions(size(), 1000));
    ASSERT_EQ(static_cast<int>(group.size()), size());
    OnRanks(size(), [&](int rank) {
      const std::vector<size_t> bytes(size(), rank == odd ? 640 : 64);
      const absl::Status status = group[rank]->AllGather(bytes).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition)
          << status.ToString();
      EXPECT_THAT(status.ToString(), HasSubstr("AllGather of 640 bytes"));
      EXPECT_THAT(status.ToString(), HasSubstr("AllGather of 64 bytes"));
    });
  }
}

TEST_P(GroupEndTest, DifferentChunksAndBlocksAreFoundOut) {
  for (const bool blocks_differ : {false, true}) {
    Group group = ConnectGroup(transport(), PatientOptions(size(), 1000));
    ASSERT_EQ(static_cast<int>(group.size()), size());
    OnRanks(size(), [&](int rank) {
      const bool odd = rank == 0;
      const std::vector<size_t> chunks(size(), odd && !blocks_differ ? 24 : 8);
      const std::vector<size_t> blocks(size(), odd && blocks_differ ? 3 : 2);
      const absl::Status status =
          group[rank]->AllToAll(chunks, chunks, blocks).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition)
          << status.ToString();
      EXPECT_THAT(status.ToString(), HasSubstr("AllToAll of 2 blocks of 8"));
      EXPECT_THAT(
          status.ToString(),
          HasSubstr(blocks_differ ? "3 blocks of 8" : "2 blocks of 24"));
    });
  }
}

TEST_P(GroupEndTest, ADifferentRootIsFoundOut) {
  Group group = ConnectGroup(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  OnRanks(size(), [&](int rank) {
    const absl::Status status =
        group[rank]->Gather(std::vector<size_t>(size(), 8), rank == 1).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition)
        << status.ToString();
  });
}

TEST_P(GroupEndTest, AbortEndsConnect) {
  const auto group = MakeRendezvous(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  const std::vector<std::string> endpoints = EndpointsOf(group);
  std::thread aborter([&] { group[0]->Abort("not today"); });
  // The last rank never comes.
  OnRanks(size() - 1, [&](int rank) {
    if (rank != 0) return;
    const absl::Status status =
        group[rank]->Connect(endpoints, kPatienceMs).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.ToString(), HasSubstr("not today"));
  });
  aborter.join();
}

TEST_P(GroupEndTest, ARankThatNeverConnectsIsNamed) {
  const auto group = MakeRendezvous(transport(), PatientOptions(size(), 100));
  ASSERT_EQ(static_cast<int>(group.size()), size());
  const std::vector<std::string> endpoints = EndpointsOf(group);
  // Nobody else comes, however long it takes.
  const absl::Status status =
      group[0]->Connect(endpoints, /*timeout_ms=*/1).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(status.ToString(), HasSubstr(fmt::format("{}", size() - 1)));
}

// Endpoints carry who they are of; ranks in one process have none.
class EndpointTest : public CommunicatorTest {
 protected:
  // The status of rank 0's Connect when rank 1's endpoint is `endpoint`.
  absl::Status ConnectWith(const CommunicatorOptions& other,
                           const std::string& forged = "") {
    const auto group = MakeRendezvous(transport(), PatientOptions(2, 100));
    const auto foreign = MakeRendezvous(transport(), other);
    std::vector<std::string> endpoints = EndpointsOf(group);
    endpoints[1] = forged.empty() ? foreign[1]->endpoint() : forged;
    return group[0]->Connect(endpoints, kPatienceMs).status();
  }
};
INSTANTIATE_TEST_SUITE_P(All, EndpointTest,
                         ::testing::Values(Case{TestTransport::kSharedMemory,
                                                2},
                                           Case{TestTransport::kTcp, 2}),
                         ::testing::PrintToStringParamName());

TEST_P(EndpointTest, FitsTheLimit) {
  for (const auto& half :
       MakeRendezvous(transport(), PatientOptions(2, 1000))) {
    EXPECT_LE(half->endpoint().size(), kMaxRendezvousBytes);
    EXPECT_FALSE(half->endpoint().empty());
  }
}

TEST_P(EndpointTest, OfAnotherEpochSizeOrBufferIsRefused) {
  CommunicatorOptions options = PatientOptions(2, 100);
  options.epoch = 8;
  EXPECT_EQ(ConnectWith(options).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ConnectWith(PatientOptions(3, 100)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(ConnectWith(PatientOptions(2, 200)).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_P(EndpointTest, ThatCannotBeReadIsRefused) {
  const auto group = MakeRendezvous(transport(), PatientOptions(2, 100));
  const std::string good = group[1]->endpoint();
  for (const std::string& forged :
       {std::string("nonsense"), good.substr(0, good.find(" nonce")),
        std::string(kMaxRendezvousBytes + 1, 'x'), "witan-rdma" + good,
        std::string("witan-tcp 1 epoch=7 rank=1 size=99999999999999999999999 "),
        std::string(good).replace(good.find("nonce=") + 6, 2, "zz"),
        good + std::string(1, '\0')}) {
    EXPECT_EQ(ConnectWith(PatientOptions(2, 100), forged).code(),
              absl::StatusCode::kInvalidArgument)
        << forged.substr(0, 100);
  }
}

TEST_P(EndpointTest, MustBeOnePerRank) {
  const auto group = MakeRendezvous(transport(), PatientOptions(2, 100));
  std::vector<std::string> endpoints = EndpointsOf(group);
  endpoints.push_back(endpoints[1]);
  EXPECT_EQ(group[0]->Connect(endpoints, kPatienceMs).status().code(),
            absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace witan
