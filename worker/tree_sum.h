#ifndef WITAN_WORKER_TREE_SUM_H_
#define WITAN_WORKER_TREE_SUM_H_

// The all-reduce of the numerics contract: the sum over the eight leaves, in
// the order of the tree, whoever owns which leaf. Every rank gets the same
// bits, which are those of a single rank.
//
// Small sums go one-shot: every rank reads all partial sums and adds them
// itself. Large ones go two-shot: each rank adds one chunk of the elements, and
// the rounded chunks are gathered. Chunks are cut along rows x hidden, never
// along leaves. Which way a sum goes depends on its size and one number of the
// epoch alone, never on the rank.

#include <absl/status/status.h>

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/leaves.h"
#include "kernels/backend.h"
#include "worker/comm/communicator.h"

namespace witan {

// Sums so far, by the way they went; those of a group of one rank go neither.
struct SumCounts {
  int64_t one_shot = 0;
  int64_t two_shot = 0;
};

// Used by the step thread of one rank. Rank r of the group owns the leaves
// LeavesOfMember(r, size).
class TreeAllReduce {
 public:
  // Bytes that the send buffer needs for a rank with `num_subtrees` subtrees
  // (MaximalSubtrees); a group needs the maximum over its ranks.
  static size_t SendBytes(size_t num_subtrees, int64_t num_rows,
                          int64_t hidden);

  // A sum of up to one_shot_max_bytes of partials (of the rank with most
  // subtrees) goes one-shot. All ranks are given the same number. Both
  // references outlive this object.
  TreeAllReduce(Backend& backend, Communicator& comm,
                int64_t one_shot_max_bytes);

  // Where this rank writes its partial sums, fp32 [subtrees * T, H], subtree
  // by subtree as MaximalSubtrees orders them: the memory the others read.
  // Valid until Reduce. REQUIRES: SendBytes fits the communicator.
  TensorView PartialsBuffer(int64_t num_rows, int64_t hidden);

  // out = the sum of all ranks' partials [T, H], rounded once to the dtype of
  // `out` (contiguous). It is enqueued on the backend's stream. The error is
  // the communicator's.
  absl::Status Reduce(int64_t num_rows, int64_t hidden, TensorView out);

  const SumCounts& counts() const { return counts_; }

 private:
  absl::Status OneShot(int64_t num_elements, TensorView out);
  absl::Status TwoShot(int64_t num_elements, TensorView out);

  Backend& backend_;
  Communicator& comm_;
  const int64_t one_shot_max_bytes_;
  std::vector<std::vector<Subtree>> subtrees_of_rank_;
  size_t max_subtrees_ = 0;
  std::vector<Partial> partials_;  // of all ranks, by rank
  std::vector<size_t> send_bytes_;
  std::vector<size_t> receive_bytes_;
  std::vector<size_t> blocks_of_rank_;
  SumCounts counts_;
};

}  // namespace witan

#endif  // WITAN_WORKER_TREE_SUM_H_
