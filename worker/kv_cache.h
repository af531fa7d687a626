#ifndef WITAN_WORKER_KV_CACHE_H_
#define WITAN_WORKER_KV_CACHE_H_

// The bytes of the paged KV cache of one rank. Which block holds what is
// decided by the coordinator (coordinator/schedule/block_allocator.h); ids
// arrive with the step plans.

#include <absl/status/statusor.h>

#include <memory>
#include <vector>

#include "kernels/backend.h"
#include "model/config.h"
#include "model/shard_plan.h"

namespace witan {

class PagedKvCache {
 public:
  // Allocates num_blocks blocks of kBlockTokens positions for every layer and
  // the rank's KV heads. `backend` outlives the cache.
  static absl::StatusOr<std::unique_ptr<PagedKvCache>> Allocate(
      Backend& backend, const ModelConfig& config, const RankShard& shard,
      int64_t num_blocks);

  const KvLayer& layer(int64_t index) const { return layers_[index]; }
  int64_t num_blocks() const { return num_blocks_; }
  int64_t size_bytes() const { return size_bytes_; }

 private:
  PagedKvCache() = default;

  std::vector<Buffer> buffers_;
  std::vector<KvLayer> layers_;
  int64_t num_blocks_ = 0;
  int64_t size_bytes_ = 0;
};

}  // namespace witan

#endif  // WITAN_WORKER_KV_CACHE_H_
