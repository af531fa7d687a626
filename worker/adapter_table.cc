#include "worker/adapter_table.h"

#include <cstring>
#include <tuple>
#include <utility>

#include "base/check.h"
#include "base/status.h"
#include "model/mapped_tensor.h"

namespace witan {
namespace {

// The tensor, to be read as elements of `dtype`.
MappedTensor As(DType dtype, const MappedTensor& tensor) {
  MappedTensor as = tensor;
  if (tensor.dtype == dtype) return as;
  as.dtype = dtype;
  as.conversion = Conversion{tensor.dtype == DType::kF32   ? GgmlType::kF32
                             : tensor.dtype == DType::kF16 ? GgmlType::kF16
                                                           : GgmlType::kBF16};
  return as;
}

// Copies rectangles one after the other into the memory of an adapter.
class Writer {
 public:
  Writer(DType dtype, const Buffer& memory) : dtype_(dtype), memory_(memory) {}

  ConstTensorView Write(const MappedTensor& tensor, IndexRange rows,
                        IndexRange columns) {
    std::byte* const to = Take(rows.size() * columns.size());
    ReadElements(As(dtype_, tensor), rows, columns, to);
    return ConstTensorView(to, dtype_, rows.size(), columns.size());
  }

  // The rows of `b` that are first_row + `rows`.
  ConstTensorView WriteB(const AdapterFactors& factors, IndexRange rows) {
    rows = {factors.first_row + rows.begin, factors.first_row + rows.end};
    if (factors.b_column_step == 1) {
      return Write(*factors.b, rows, {0, factors.rank});
    }
    const MappedTensor b = As(dtype_, *factors.b);
    std::byte* const to = Take(rows.size() * factors.rank);
    std::byte* next = to;
    // Every expert's columns, of which those of one are picked.
    const size_t element_bytes = SizeOf(dtype_);
    const IndexRange columns = {0, factors.rank * factors.b_column_step};
    std::vector<std::byte> all(static_cast<size_t>(columns.size()) *
                               element_bytes);
    for (int64_t row = rows.begin; row < rows.end; ++row) {
      ReadElements(b, {row, row + 1}, columns, all.data());
      for (int64_t i = 0; i < factors.rank; ++i, next += element_bytes) {
        const auto column = static_cast<size_t>(factors.b_first_column +
                                                i * factors.b_column_step);
        std::memcpy(next, all.data() + column * element_bytes, element_bytes);
      }
    }
    return ConstTensorView(to, dtype_, rows.size(), factors.rank);
  }

 private:
  std::byte* Take(int64_t num_elements) {
    std::byte* const to = static_cast<std::byte*>(memory_.data()) + used_bytes_;
    used_bytes_ += static_cast<size_t>(num_elements) * SizeOf(dtype_);
    WITAN_CHECK(used_bytes_ <= memory_.size_bytes(),
                "an adapter takes more than the {} bytes planned",
                memory_.size_bytes());
    return to;
  }

  const DType dtype_;
  const Buffer& memory_;
  size_t used_bytes_ = 0;
};

}  // namespace

AdapterTable::AdapterTable(const ModelConfig& config, const RankShard& shard,
                           const EngineLimits& limits)
    : config_(config),
      shard_(shard),
      limits_(limits),
      memory_(static_cast<size_t>(limits.max_adapters)),
      loaded_(static_cast<size_t>(limits.max_adapters), false) {}

absl::StatusOr<std::unique_ptr<AdapterTable>> AdapterTable::Create(
    const ModelConfig& config, const RankShard& shard,
    const EngineLimits& limits, Backend& backend) {
  std::unique_ptr<AdapterTable> table(new AdapterTable(config, shard, limits));
  const auto bytes =
      static_cast<size_t>(AdapterBytes(config, shard, limits.max_adapter_rank));
  for (Buffer& memory : table->memory_) {
    ASSIGN_OR_RETURN(memory, backend.Allocate(bytes));
  }
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    if (!IsAdaptable(slice.role)) continue;
    auto& of_weight = table->factors_[{slice.role, slice.layer}];
    of_weight.resize(of_weight.size() +
                     static_cast<size_t>(limits.max_adapters));
  }
  return table;
}

bool AdapterTable::Has(int32_t index) const {
  return index >= 0 && index < max_adapters() &&
         loaded_[static_cast<size_t>(index)];
}

absl::Status AdapterTable::Unload(int32_t index) {
  if (index < 0 || index >= max_adapters()) {
    return InvalidArgument("adapter index {} is out of [0, {})", index,
                           max_adapters());
  }
  for (auto& [weight, factors] : factors_) {
    for (size_t i = static_cast<size_t>(index); i < factors.size();
         i += static_cast<size_t>(max_adapters())) {
      factors[i] = {};
    }
  }
  loaded_[static_cast<size_t>(index)] = false;
  return absl::OkStatus();
}

absl::Status AdapterTable::Load(int32_t index, const Adapter& adapter) {
  RETURN_IF_ERROR(Unload(index));
  if (adapter.max_rank() > limits_.max_adapter_rank) {
    return InvalidArgument(
        "the adapter has rank {}, and max_adapter_rank is {}; start the "
        "coordinator with --max-adapter-rank {}",
        adapter.max_rank(), limits_.max_adapter_rank, adapter.max_rank());
  }
  std::map<std::tuple<TensorRole, int64_t, int64_t>, const AdapterFactors*>
      by_weight;
  for (const AdapterFactors& factors : adapter.factors()) {
    by_weight[{factors.role, factors.layer, factors.expert}] = &factors;
  }
  Writer writer(config_.weights, memory_[static_cast<size_t>(index)]);
  for (const TensorSlice& slice : SlicesOfRank(config_, shard_)) {
    const auto found = by_weight.find({slice.role, slice.layer, slice.expert});
    if (found == by_weight.end()) continue;
    const AdapterFactors& factors = *found->second;
    const int64_t expert =
        slice.expert < 0 ? 0 : slice.expert - shard_.experts.begin;
    auto& of_weight = factors_.at({slice.role, slice.layer});
    of_weight[static_cast<size_t>(expert * max_adapters() + index)] = {
        .a = writer.Write(
            *factors.a,
            {factors.a_first_row, factors.a_first_row + factors.rank},
            slice.columns),
        .b = writer.WriteB(factors, slice.rows),
        .scale = factors.scale};
  }
  loaded_[static_cast<size_t>(index)] = true;
  return absl::OkStatus();
}

std::span<const LoraFactors> AdapterTable::Of(TensorRole role,
                                              int64_t layer) const {
  const auto found = factors_.find({role, layer});
  return found == factors_.end() ? std::span<const LoraFactors>()
                                 : found->second;
}

}  // namespace witan
