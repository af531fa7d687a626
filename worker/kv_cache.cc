#include "worker/kv_cache.h"

#include <utility>

#include "base/status.h"

namespace witan {

absl::StatusOr<std::unique_ptr<PagedKvCache>> PagedKvCache::Allocate(
    Backend& backend, const ModelConfig& config, const RankShard& shard,
    int64_t num_blocks) {
  std::unique_ptr<PagedKvCache> cache(new PagedKvCache);
  cache->num_blocks_ = num_blocks;
  const DType dtype = ActivationDType(config.weights);
  const int64_t num_kv_heads = shard.kv_heads.size();
  const size_t layer_bytes =
      backend.KvBytes(num_blocks, num_kv_heads, config.head_dim, dtype);
  for (int64_t i = 0; i < config.num_layers; ++i) {
    ASSIGN_OR_RETURN(Buffer buffer, backend.Allocate(layer_bytes));
    cache->layers_.push_back(KvLayer{.data = buffer.data(),
                                     .num_blocks = num_blocks,
                                     .num_kv_heads = num_kv_heads,
                                     .head_dim = config.head_dim,
                                     .dtype = dtype});
    cache->buffers_.push_back(std::move(buffer));
    cache->size_bytes_ += static_cast<int64_t>(layer_bytes);
  }
  return cache;
}

}  // namespace witan
