#include "coordinator/schedule/block_name.h"

#include <algorithm>

#include "base/check.h"
#include "base/limits.h"
#include "base/sha256.h"

namespace witan {
namespace {

void UpdateField(Sha256& hash, std::string_view field) {
  const uint64_t size_bytes = field.size();
  hash.Update(&size_bytes, sizeof(size_bytes));
  hash.Update(field);
}

}  // namespace

BlockName RootBlockName(const PrefixIdentity& identity, std::string_view tenant,
                        std::string_view adapter, int64_t num_tokens) {
  Sha256 hash;
  UpdateField(hash, identity.weights_id);
  UpdateField(hash, identity.numerics_id);
  UpdateField(hash, tenant);
  UpdateField(hash, adapter);
  UpdateField(hash, HasLongRope(identity, num_tokens) ? "long" : "short");
  return {hash.FinishBytes()};
}

BlockName ChildBlockName(const BlockName& parent,
                         std::span<const TokenId> tokens) {
  WITAN_CHECK(tokens.size() == kBlockTokens, "{} tokens", tokens.size());
  Sha256 hash;
  hash.Update(parent.bytes.data(), parent.bytes.size());
  hash.Update(tokens.data(), tokens.size_bytes());
  return {hash.FinishBytes()};
}

std::vector<BlockName> BlockNames(const BlockName& root,
                                  std::span<const TokenId> tokens,
                                  size_t max_blocks) {
  std::vector<BlockName> names;
  const size_t num_blocks = std::min(tokens.size() / kBlockTokens, max_blocks);
  names.reserve(num_blocks);
  for (size_t block = 0; block < num_blocks; ++block) {
    names.push_back(
        ChildBlockName(names.empty() ? root : names.back(),
                       tokens.subspan(block * kBlockTokens, kBlockTokens)));
  }
  return names;
}

}  // namespace witan
