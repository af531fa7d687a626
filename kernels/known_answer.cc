// KnownAnswerHash: every op on fixed inputs that are cheap, yet touch tails,
// leaves, splits and masks.

#include <bit>
#include <cstdint>
#include <cstring>
#include <numeric>
#include <span>
#include <string>
#include <vector>

#include "base/check.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "base/sha256.h"
#include "base/status.h"
#include "kernels/backend.h"

namespace witan {
namespace {

constexpr int64_t kRows = 5;
constexpr int64_t kHidden = 100;  // not a multiple of any step
constexpr int64_t kHeads = 4;
constexpr int64_t kKvHeads = 2;
constexpr int64_t kHeadDim = 24;
constexpr int64_t kExperts = 5;
constexpr int kTopK = 2;
constexpr int64_t kPositions = 300;  // more than one split
constexpr int64_t kAttendedRows = 50;
constexpr int64_t kBlocks = (kPositions + kBlockTokens - 1) / kBlockTokens;
// What all tensors of one weight dtype take, and to spare.
constexpr size_t kMemoryBytes = size_t{2} << 20;
constexpr size_t kAlignmentBytes = 64;

class KnownAnswers {
 public:
  // `memory` is zeroed, kMemoryBytes long and of `backend`.
  KnownAnswers(Backend& backend, DType weights, const Buffer& memory)
      : backend_(backend),
        weights_(weights),
        activations_(ActivationDType(weights)),
        memory_(memory) {}

  void AddAll(Sha256& hash) {
    hash_ = &hash;
    AddRowOps();
    AddMatMuls();
    AddExperts();
    AddAttention();
    AddSampling();
  }

 private:
  TensorView Zeros(DType dtype, int64_t rows, int64_t columns) {
    const size_t bytes = static_cast<size_t>(rows * columns) * SizeOf(dtype);
    char* data = static_cast<char*>(memory_.data()) + used_bytes_;
    used_bytes_ +=
        (bytes + kAlignmentBytes - 1) / kAlignmentBytes * kAlignmentBytes;
    WITAN_CHECK(used_bytes_ <= memory_.size_bytes(),
                "the known answers take more than {} bytes",
                memory_.size_bytes());
    return TensorView(data, dtype, rows, columns);
  }

  // Numbers m * 2^-e with 7-bit m and e up to 14: exact in every dtype, while
  // their products need more bits than fp32 has, so that sums in another order
  // differ. One call in one statement: arguments have no order.
  TensorView Numbers(DType dtype, int64_t rows, int64_t columns) {
    TensorView view = Zeros(dtype, rows, columns);
    for (int64_t i = 0; i < rows * columns; ++i) {
      state_ = state_ * 1664525 + 1013904223;
      const int exponent = static_cast<int>((state_ >> 8) & 7);
      const float value = (static_cast<float>(state_ >> 25) - 63.5f) /
                          static_cast<float>(64 << exponent);
      char* to = static_cast<char*>(view.data) +
                 static_cast<size_t>(i) * SizeOf(dtype);
      const uint32_t bits = std::bit_cast<uint32_t>(value);
      if (dtype == DType::kF32) {
        std::memcpy(to, &bits, sizeof(bits));
      } else if (dtype == DType::kBF16) {
        const uint16_t half = static_cast<uint16_t>(bits >> 16);
        std::memcpy(to, &half, sizeof(half));
      } else {  // rebias the exponent from 127 to 15
        const uint16_t half =
            static_cast<uint16_t>(((bits >> 16) & 0x8000) |
                                  (((bits & 0x7fffffff) >> 13) - (112 << 10)));
        std::memcpy(to, &half, sizeof(half));
      }
    }
    return view;
  }

  void Add(const TensorView& view) {
    backend_.Synchronize();
    hash_->Update(view.data, static_cast<size_t>(view.rows * view.columns) *
                                 SizeOf(view.dtype));
  }

  void AddRowOps() {
    const TensorView table = Numbers(weights_, 7, kHidden);
    const std::vector<TokenId> token_ids = {6, 0, 3, 3, 1};
    const TensorView residual = Zeros(DType::kF32, kRows, kHidden);
    backend_.Embed(token_ids, table, residual);
    Add(residual);
    const TensorView norm = Zeros(activations_, kRows, kHidden);
    const TensorView delta = Numbers(activations_, kRows, kHidden);
    const TensorView weight = Numbers(weights_, 1, kHidden);
    const TensorView bias = Numbers(weights_, 1, kHidden);
    backend_.AddNorm(residual, delta, {}, {weight, {}, 1e-5f}, norm);
    Add(residual);
    Add(norm);
    const TensorView layer_norm = Zeros(activations_, kRows, kHidden);
    backend_.AddNorm(residual, delta, bias, {weight, bias, 1e-5f}, layer_norm);
    backend_.AddBias(residual, bias);
    Add(residual);
    Add(layer_norm);
    const TensorView product = Zeros(activations_, kRows, kHidden);
    const TensorView gate = Numbers(DType::kF32, kRows, kHidden);
    const TensorView up = Numbers(DType::kF32, kRows, kHidden);
    backend_.SiluMul(gate, up, nullptr, product);
    Add(product);
    const std::vector<int32_t> row_ids = {4, 0, 2};
    const TensorView gathered = Zeros(activations_, 3, kHidden);
    backend_.GatherRows(norm, row_ids, gathered);
    Add(gathered);
  }

  void AddMatMuls() {
    const TensorView x = Numbers(activations_, kRows, kHidden);
    const TensorView w = Numbers(weights_, 37, kHidden);
    const TensorView y = Zeros(DType::kF32, kRows, 37);
    backend_.MatMul(x, w, y);
    Add(y);
    const TensorView rounded = Zeros(activations_, kRows, 37);
    backend_.MatMul(x, w, rounded);
    Add(rounded);
    std::vector<IndexRange> leaf_columns;
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      leaf_columns.push_back(LeafUnits(kHidden, leaf));
    }
    const std::vector<Subtree> subtrees = MaximalSubtrees({0, kNumLeaves});
    const TensorView partials = Zeros(DType::kF32, kRows, 37);
    backend_.MatMulLeaves(x, w, leaf_columns, subtrees, partials);
    Add(partials);
  }

  void AddExperts() {
    const TensorView ids = Zeros(DType::kI32, kRows, kTopK);
    const TensorView weights = Zeros(DType::kF32, kRows, kTopK);
    const TensorView router_logits = Numbers(DType::kF32, kRows, kExperts);
    for (const RoutingKind kind :
         {RoutingKind::kSparseMixer, RoutingKind::kSoftmax,
          RoutingKind::kSoftmaxNormalised}) {
      backend_.RouterTopK(router_logits, {kind, 0.1f}, kTopK, ids, weights);
      Add(ids);
      Add(weights);
    }
    ExpertRows rows;
    rows.num_experts = kExperts;
    const TensorView offsets = Zeros(DType::kI32, 1, kExperts + 1);
    const TensorView source_rows = Zeros(DType::kI32, 1, kRows * kTopK);
    const TensorView slots = Zeros(DType::kI32, 1, kRows * kTopK);
    rows.offsets = offsets.Row<int32_t>(0);
    rows.source_rows = source_rows.Row<int32_t>(0);
    rows.slot_of_choice = slots.Row<int32_t>(0);
    backend_.GroupByExpert(ids, rows);
    Add(offsets);
    Add(source_rows);
    Add(slots);
    std::vector<ConstTensorView> w;
    for (int e = 0; e < kExperts; ++e) {
      w.push_back(Numbers(weights_, kHidden, kHidden));
    }
    const TensorView y = Zeros(activations_, kRows * kTopK, kHidden);
    backend_.GroupedMatMul(Numbers(activations_, kRows, kHidden), true, rows, w,
                           y);
    Add(y);
    const TensorView partials = Zeros(DType::kF32, 2 * kRows, kHidden);
    const std::vector<Subtree> subtrees = {{0, 4}, {4, 4}};
    backend_.CombineExperts(y, rows, ids, weights, kExperts, subtrees,
                            partials);
    Add(partials);
    const std::vector<Partial> parts = {
        {partials.Row<float>(0), subtrees[0]},
        {partials.Row<float>(kRows), subtrees[1]}};
    const TensorView sum = Zeros(activations_, kRows, kHidden);
    backend_.TreeSum(parts, kRows * kHidden, sum);
    Add(sum);
  }

  void AddAttention() {
    const TensorView data = Zeros(
        DType::kI32, 1,
        static_cast<int64_t>(
            backend_.KvBytes(kBlocks, kKvHeads, kHeadDim, activations_) / 4));
    const KvLayer cache = {data.data, kBlocks, kKvHeads, kHeadDim,
                           activations_};
    RopeParameters parameters;
    parameters.theta = 1e4;
    parameters.rotary_dim = kHeadDim;
    std::vector<float> angles = MakeRopeTable(kPositions, parameters);
    hash_->Update(angles.data(), angles.size() * sizeof(float));
    const TensorView rope = Zeros(DType::kF32, kPositions, kHeadDim);
    std::memcpy(rope.data, angles.data(), angles.size() * sizeof(float));
    std::vector<int32_t> block_ids(kBlocks);
    std::iota(block_ids.rbegin(), block_ids.rend(), 0);
    const std::vector<int32_t> row_begin = {0, kPositions};
    const std::vector<int32_t> first_positions = {0};
    const AttentionBatch batch = {row_begin, first_positions, block_ids,
                                  kBlocks};
    const TensorView q = Zeros(activations_, kPositions, kHeads * kHeadDim);
    const TensorView raw_q =
        Numbers(DType::kF32, kPositions, kHeads * kHeadDim);
    const TensorView k = Numbers(DType::kF32, kPositions, kKvHeads * kHeadDim);
    const TensorView v = Numbers(DType::kF32, kPositions, kKvHeads * kHeadDim);
    backend_.RopeWriteKv(raw_q, k, v, rope, batch, cache, q);
    Add(q);
    const std::vector<int32_t> kv_head_of = {0, 0, 0, 1};
    // Attention of the last rows only: they see two splits.
    const std::vector<int32_t> last_row_begin = {0, kAttendedRows};
    const std::vector<int32_t> last_positions = {kPositions - kAttendedRows};
    const AttentionBatch last = {last_row_begin, last_positions, block_ids,
                                 kBlocks};
    const TensorView out =
        Zeros(activations_, kAttendedRows, kHeads * kHeadDim);
    for (const int64_t window : {0, 77}) {
      backend_.PagedAttention(q.Rows(kPositions - kAttendedRows, kPositions),
                              cache, last, kv_head_of, 0.2f, window, out);
      Add(out);
    }
  }

  void AddSampling() {
    const TensorView logits = Numbers(DType::kF32, 2, 1000);
    SamplingParams params;
    params.temperature = 0.7f;
    params.top_p = 0.9f;
    params.seed = 42;
    params.num_top_logprobs = 3;
    SamplingParams plain;
    const std::vector<SampleRow> rows = {{&params, 1, 17, {}, {}},
                                         {&plain, 0, 5, {}, {}}};
    std::vector<SampledToken> tokens(2);
    backend_.Sample(logits, rows, tokens);
    backend_.Synchronize();
    for (const SampledToken& token : tokens) {
      hash_->Update(&token.token_id, sizeof(token.token_id));
      hash_->Update(&token.logprob, sizeof(token.logprob));
      for (const TokenLogprob& top : token.top_logprobs) {
        hash_->Update(&top.token_id, sizeof(top.token_id));
        hash_->Update(&top.logprob, sizeof(top.logprob));
      }
    }
  }

  Backend& backend_;
  const DType weights_;
  const DType activations_;
  const Buffer& memory_;
  size_t used_bytes_ = 0;
  Sha256* hash_ = nullptr;
  uint32_t state_ = 1;
};

}  // namespace

absl::StatusOr<std::string> KnownAnswerHash(Backend& backend) {
  Sha256 hash;
  for (const DType weights : {DType::kBF16, DType::kF32, DType::kF16}) {
    ASSIGN_OR_RETURN(const Buffer memory, backend.Allocate(kMemoryBytes));
    KnownAnswers(backend, weights, memory).AddAll(hash);
  }
  return hash.Finish();
}

}  // namespace witan
