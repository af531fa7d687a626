#ifndef WITAN_WORKER_ADAPTER_TABLE_H_
#define WITAN_WORKER_ADAPTER_TABLE_H_

// The adapters that a rank holds: its slices of their factors, in the model's
// dtype, by an index below max_adapters that the coordinator gives.
//
// A column-parallel weight has all of `a` and its own rows of `b`; a
// row-parallel one its own columns of `a` and all of `b`; an expert both whole.

#include <absl/status/statusor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <vector>

#include "kernels/backend.h"
#include "model/adapter.h"
#include "model/memory_plan.h"
#include "model/shard_plan.h"

namespace witan {

// Owned and used by the step thread of one rank.
class AdapterTable {
 public:
  // Allocates limits.max_adapters times AdapterBytes. Everything passed by
  // reference outlives the table.
  static absl::StatusOr<std::unique_ptr<AdapterTable>> Create(
      const ModelConfig& config, const RankShard& shard,
      const EngineLimits& limits, Backend& backend);

  // Replaces what the index held. INVALID_ARGUMENT names a rank above the
  // limit, or an index out of [0, max_adapters).
  absl::Status Load(int32_t index, const Adapter& adapter);
  absl::Status Unload(int32_t index);
  bool Has(int32_t index) const;

  int64_t max_adapters() const { return static_cast<int64_t>(loaded_.size()); }
  // Of one weight [max_adapters]; of the rank's experts [experts *
  // max_adapters], adapter after adapter. Valid until the next Load or Unload.
  std::span<const LoraFactors> Of(TensorRole role, int64_t layer) const;

 private:
  AdapterTable(const ModelConfig& config, const RankShard& shard,
               const EngineLimits& limits);

  const ModelConfig& config_;
  const RankShard& shard_;
  const EngineLimits limits_;
  std::vector<Buffer> memory_;  // by index
  std::vector<bool> loaded_;
  std::map<std::pair<TensorRole, int64_t>, std::vector<LoraFactors>> factors_;
};

// The adapters that the rows of one step have.
struct StepAdapters {
  const AdapterTable* table = nullptr;
  AdapterOfRow adapter_of_row;  // empty: no row has one

  bool any() const { return !adapter_of_row.empty(); }
};

}  // namespace witan

#endif  // WITAN_WORKER_ADAPTER_TABLE_H_
