// The all-reduce against a naive sum over the eight leaves, bit for bit, for
// every number of ranks, both ways and every transport.

#include "worker/tree_sum.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <random>

#include "tests/worker_comm/group.h"

namespace witan {
namespace {

constexpr int64_t kAlwaysOneShot = int64_t{1} << 40;
constexpr int64_t kAlwaysTwoShot = 0;

using Vector = std::vector<float>;

// Values of very different size, so that another order gives other bits.
std::vector<Vector> RandomLeaves(int64_t n, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<Vector> leaves(kNumLeaves, Vector(n));
  for (Vector& leaf : leaves) {
    for (float& value : leaf) {
      const float fraction =
          static_cast<float>(static_cast<int64_t>(random() % 2001) - 1000);
      value = std::ldexp(fraction / 7.0f, static_cast<int>(random() % 20));
    }
  }
  return leaves;
}

// The node of the tree over leaves [first, first + num).
Vector NaiveNode(const std::vector<Vector>& leaves, int first, int num) {
  if (num == 1) return leaves[first];
  const Vector left = NaiveNode(leaves, first, num / 2);
  const Vector right = NaiveNode(leaves, first + num / 2, num / 2);
  Vector sum(left.size());
  for (size_t i = 0; i < sum.size(); ++i) sum[i] = left[i] + right[i];
  return sum;
}

// Nearest even, for finite values.
uint16_t NaiveBf16(float value) {
  const uint32_t bits = std::bit_cast<uint32_t>(value);
  const uint32_t kept = bits >> 16;
  const uint32_t rest = bits & 0xffff;
  const bool up = rest > 0x8000 || (rest == 0x8000 && kept % 2 == 1);
  return static_cast<uint16_t>(kept + up);
}

std::vector<std::byte> NaiveSum(const std::vector<Vector>& leaves,
                                DType dtype) {
  const Vector sum = NaiveNode(leaves, 0, kNumLeaves);
  std::vector<std::byte> bytes(sum.size() * SizeOf(dtype));
  for (size_t i = 0; i < sum.size(); ++i) {
    const uint16_t rounded = NaiveBf16(sum[i]);
    std::memcpy(bytes.data() + i * SizeOf(dtype),
                dtype == DType::kF32 ? static_cast<const void*>(&sum[i])
                                     : static_cast<const void*>(&rounded),
                SizeOf(dtype));
  }
  return bytes;
}

std::unique_ptr<Backend> MakeBackend() {
  auto backend = MakeCpuBackend({.path = CpuPath::kPortable});
  EXPECT_TRUE(backend.ok()) << backend.status().ToString();
  return *std::move(backend);
}

size_t GroupSendBytes(int size, int64_t num_rows, int64_t hidden) {
  size_t bytes = 0;
  for (int rank = 0; rank < size; ++rank) {
    const size_t num_subtrees =
        MaximalSubtrees(LeavesOfMember(rank, size)).size();
    bytes = std::max(bytes,
                     TreeAllReduce::SendBytes(num_subtrees, num_rows, hidden));
  }
  return bytes;
}

// Writes what `rank` of `size` owns of the leaves.
void WritePartials(const std::vector<Vector>& leaves, int rank, int size,
                   TensorView partials) {
  float* to = partials.Row<float>(0);
  for (const Subtree& subtree : MaximalSubtrees(LeavesOfMember(rank, size))) {
    const Vector node =
        NaiveNode(leaves, subtree.first_leaf, subtree.num_leaves);
    to = std::copy(node.begin(), node.end(), to);
  }
  EXPECT_EQ(to, partials.Row<float>(0) + partials.rows * partials.columns);
}

struct Shape {
  int64_t num_rows;
  int64_t hidden;
};

constexpr Shape kShapes[] = {{0, 64}, {1, 1},   {1, 15},  {1, 16}, {1, 17},
                             {3, 40}, {5, 100}, {1, 256}, {33, 65}};

struct Case {
  TestTransport transport;
  int size;
};

std::ostream& operator<<(std::ostream& out, const Case& c) {
  return out << c.transport << c.size;
}

std::vector<Case> AllCases() {
  std::vector<Case> cases;
  for (const TestTransport transport :
       {TestTransport::kLocal, TestTransport::kSharedMemory,
        TestTransport::kTcp}) {
    for (int size = 1; size <= kNumLeaves; ++size) {
      cases.push_back({transport, size});
    }
  }
  return cases;
}

class TreeAllReduceTest : public ::testing::TestWithParam<Case> {};
INSTANTIATE_TEST_SUITE_P(All, TreeAllReduceTest,
                         ::testing::ValuesIn(AllCases()),
                         ::testing::PrintToStringParamName());

TEST_P(TreeAllReduceTest, GivesTheBitsOfTheNaiveTreeOnEveryRankBothWays) {
  const int size = GetParam().size;
  Group group = ConnectGroup(
      GetParam().transport, PatientOptions(size, GroupSendBytes(size, 33, 65)));
  ASSERT_EQ(static_cast<int>(group.size()), size);
  OnRanks(size, [&](int rank) {
    const auto backend = MakeBackend();
    uint64_t seed = 0;
    for (const int64_t one_shot_max : {kAlwaysOneShot, kAlwaysTwoShot}) {
      TreeAllReduce sum(*backend, *group[rank], one_shot_max);
      for (const Shape& shape : kShapes) {
        for (const DType dtype : {DType::kF32, DType::kBF16}) {
          const int64_t n = shape.num_rows * shape.hidden;
          const std::vector<Vector> leaves = RandomLeaves(n, ++seed);
          WritePartials(leaves, rank, size,
                        sum.PartialsBuffer(shape.num_rows, shape.hidden));
          std::vector<std::byte> out(n * SizeOf(dtype), std::byte{0xee});
          const absl::Status status = sum.Reduce(
              shape.num_rows, shape.hidden,
              TensorView(out.data(), dtype, shape.num_rows, shape.hidden));
          ASSERT_TRUE(status.ok()) << status.ToString();
          backend->Synchronize();
          ASSERT_EQ(out, NaiveSum(leaves, dtype))
              << "rank " << rank << " [" << shape.num_rows << ", "
              << shape.hidden << "] " << NameOf(dtype) << " one-shot up to "
              << one_shot_max;
        }
      }
    }
  });
}

// A communicator of rank 1 of 3 that records which operations are called.
class RecordingCommunicator : public Communicator {
 public:
  explicit RecordingCommunicator(size_t max_send_bytes)
      : buffer_(max_send_bytes), views_(6) {}

  int rank() const override { return 1; }
  int size() const override { return 3; }
  std::byte* SendBuffer() override { return buffer_.data(); }
  size_t max_send_bytes() const override { return buffer_.size(); }
  absl::StatusOr<Views> AllGather(std::span<const size_t> bytes) override {
    calls += "AllGather ";
    for (int r = 0; r < 3; ++r) views_[r] = {buffer_.data(), bytes[r]};
    return Views(views_.data(), 3);
  }
  absl::StatusOr<Views> Gather(std::span<const size_t>, int) override {
    return absl::UnimplementedError("Gather");
  }
  absl::StatusOr<Views> AllToAll(
      std::span<const size_t>, std::span<const size_t> receive_bytes,
      std::span<const size_t> blocks_of_rank) override {
    calls += "AllToAll ";
    size_t i = 0;
    for (int r = 0; r < 3; ++r) {
      for (size_t b = 0; b < blocks_of_rank[r]; ++b) {
        views_[i++] = {buffer_.data(), receive_bytes[r]};
      }
    }
    return Views(views_.data(), i);
  }
  absl::StatusOr<std::span<const std::byte>> Broadcast(size_t, int) override {
    return absl::UnimplementedError("Broadcast");
  }
  absl::Status Barrier() override {
    return absl::UnimplementedError("Barrier");
  }
  void Abort(const std::string&) override {}
  CommunicatorTimes times() const override { return {}; }

  std::string calls;

 private:
  std::vector<std::byte> buffer_;
  std::vector<std::span<const std::byte>> views_;
};

TEST(TreeAllReduceChoiceTest, DependsOnTheLargestRankAndTheGivenNumberOnly) {
  // Three ranks own 2, 3 and 3 leaves: 1, 2 and 2 subtrees.
  const int64_t bytes = 2 * 4 * 100 * sizeof(float);
  RecordingCommunicator comm(bytes);
  const auto backend = MakeBackend();
  std::vector<float> out(400);
  const TensorView view(out.data(), DType::kF32, 4, 100);

  TreeAllReduce exactly(*backend, comm, bytes);
  EXPECT_TRUE(exactly.Reduce(4, 100, view).ok());
  EXPECT_EQ(comm.calls, "AllGather ");

  comm.calls.clear();
  TreeAllReduce too_large(*backend, comm, bytes - 1);
  EXPECT_TRUE(too_large.Reduce(4, 100, view).ok());
  EXPECT_EQ(comm.calls, "AllToAll AllGather ");
}

TEST(TreeAllReduceErrorTest, IsTheCommunicators) {
  Group group = ConnectGroup(TestTransport::kLocal, PatientOptions(2, 1024));
  ASSERT_EQ(group.size(), 2u);
  group[1]->Abort("gone fishing");
  const auto backend = MakeBackend();
  for (const int64_t one_shot_max : {kAlwaysOneShot, kAlwaysTwoShot}) {
    TreeAllReduce sum(*backend, *group[0], one_shot_max);
    std::vector<float> out(64);
    const absl::Status status =
        sum.Reduce(1, 64, TensorView(out.data(), DType::kF32, 1, 64));
    EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
    EXPECT_THAT(status.ToString(), ::testing::HasSubstr("gone fishing"));
  }
}

}  // namespace
}  // namespace witan
