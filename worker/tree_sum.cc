#include "worker/tree_sum.h"

#include <algorithm>

#include "base/status.h"

namespace witan {
namespace {

// Chunks begin at whole cache lines of fp32.
constexpr int64_t kChunkElements = 16;

// Row 0, for copies of one row on the backend's stream.
constexpr int32_t kFirstRow[] = {0};

// The elements, of n, that `rank` adds in the two-shot form.
IndexRange ChunkOf(int rank, int num_ranks, int64_t n) {
  const int64_t units = (n + kChunkElements - 1) / kChunkElements;
  return {std::min(n, rank * units / num_ranks * kChunkElements),
          std::min(n, (rank + 1) * units / num_ranks * kChunkElements)};
}

}  // namespace

size_t TreeAllReduce::SendBytes(size_t num_subtrees, int64_t num_rows,
                                int64_t hidden) {
  return num_subtrees * num_rows * hidden * sizeof(float);
}

TreeAllReduce::TreeAllReduce(Backend& backend, Communicator& comm,
                             int64_t one_shot_max_bytes)
    : backend_(backend),
      comm_(comm),
      one_shot_max_bytes_(one_shot_max_bytes),
      send_bytes_(comm.size()),
      receive_bytes_(comm.size()) {
  for (int rank = 0; rank < comm.size(); ++rank) {
    subtrees_of_rank_.push_back(
        MaximalSubtrees(LeavesOfMember(rank, comm.size())));
    blocks_of_rank_.push_back(subtrees_of_rank_[rank].size());
    max_subtrees_ = std::max(max_subtrees_, subtrees_of_rank_[rank].size());
    for (const Subtree& subtree : subtrees_of_rank_[rank]) {
      partials_.push_back({.subtree = subtree});
    }
  }
}

TensorView TreeAllReduce::PartialsBuffer(int64_t num_rows, int64_t hidden) {
  const int64_t num_subtrees = blocks_of_rank_[comm_.rank()];
  WITAN_CHECK(
      SendBytes(max_subtrees_, num_rows, hidden) <= comm_.max_send_bytes(),
      "partials of [{}, {}] do not fit into {} bytes", num_rows, hidden,
      comm_.max_send_bytes());
  return TensorView(comm_.SendBuffer(), DType::kF32, num_subtrees * num_rows,
                    hidden);
}

absl::Status TreeAllReduce::Reduce(int64_t num_rows, int64_t hidden,
                                   TensorView out) {
  const int64_t num_elements = num_rows * hidden;
  WITAN_CHECK(out.rows * out.columns == num_elements &&
                  (out.rows <= 1 || out.row_stride == out.columns),
              "out is not a contiguous [{}, {}]", num_rows, hidden);
  if (comm_.size() == 1) {
    partials_[0].data = reinterpret_cast<const float*>(comm_.SendBuffer());
    backend_.TreeSum(partials_, num_elements, out);
    return absl::OkStatus();
  }
  const int64_t bytes = SendBytes(max_subtrees_, num_rows, hidden);
  return bytes <= one_shot_max_bytes_ ? OneShot(num_elements, out)
                                      : TwoShot(num_elements, out);
}

absl::Status TreeAllReduce::OneShot(int64_t num_elements, TensorView out) {
  ++counts_.one_shot;
  const size_t vector_bytes = num_elements * sizeof(float);
  for (int rank = 0; rank < comm_.size(); ++rank) {
    send_bytes_[rank] = blocks_of_rank_[rank] * vector_bytes;
  }
  backend_.Synchronize();
  ASSIGN_OR_RETURN(const Communicator::Views views,
                   comm_.AllGather(send_bytes_));
  size_t i = 0;
  for (int rank = 0; rank < comm_.size(); ++rank) {
    for (size_t block = 0; block < blocks_of_rank_[rank]; ++block) {
      partials_[i++].data = reinterpret_cast<const float*>(
          views[rank].data() + block * vector_bytes);
    }
  }
  backend_.TreeSum(partials_, num_elements, out);
  return absl::OkStatus();
}

absl::Status TreeAllReduce::TwoShot(int64_t num_elements, TensorView out) {
  ++counts_.two_shot;
  const int num_ranks = comm_.size();
  const IndexRange mine = ChunkOf(comm_.rank(), num_ranks, num_elements);
  for (int rank = 0; rank < num_ranks; ++rank) {
    send_bytes_[rank] =
        ChunkOf(rank, num_ranks, num_elements).size() * sizeof(float);
    receive_bytes_[rank] = mine.size() * sizeof(float);
  }
  backend_.Synchronize();
  ASSIGN_OR_RETURN(
      Communicator::Views views,
      comm_.AllToAll(send_bytes_, receive_bytes_, blocks_of_rank_));
  for (size_t i = 0; i < views.size(); ++i) {
    partials_[i].data = reinterpret_cast<const float*>(views[i].data());
  }
  backend_.TreeSum(partials_, mine.size(),
                   TensorView(comm_.SendBuffer(), out.dtype, 1, mine.size()));

  const size_t element_bytes = SizeOf(out.dtype);
  for (int rank = 0; rank < num_ranks; ++rank) {
    send_bytes_[rank] =
        ChunkOf(rank, num_ranks, num_elements).size() * element_bytes;
  }
  backend_.Synchronize();
  ASSIGN_OR_RETURN(views, comm_.AllGather(send_bytes_));
  for (int rank = 0; rank < num_ranks; ++rank) {
    const IndexRange chunk = ChunkOf(rank, num_ranks, num_elements);
    backend_.GatherRows(
        ConstTensorView(views[rank].data(), out.dtype, 1, chunk.size()),
        kFirstRow,
        TensorView(
            static_cast<std::byte*>(out.data) + chunk.begin * element_bytes,
            out.dtype, 1, chunk.size()));
  }
  return absl::OkStatus();
}

}  // namespace witan
