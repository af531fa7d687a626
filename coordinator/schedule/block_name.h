#ifndef WITAN_COORDINATOR_SCHEDULE_BLOCK_NAME_H_
#define WITAN_COORDINATOR_SCHEDULE_BLOCK_NAME_H_

// Names of full KV blocks by all that decides their bits: a block's name is the
// SHA-256 of its parent's name (the block before it) and its own tokens, and
// the parent of a first block is a root made of weights, numerics and tenant.
// So equal names mean equal keys and values, whoever computed them and in
// whatever chunks (numerics contract).

#include <array>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/request.h"

namespace witan {

struct BlockName {
  std::array<uint8_t, 32> bytes{};
  bool operator==(const BlockName&) const = default;
};

struct BlockNameHash {
  size_t operator()(const BlockName& name) const {
    size_t hash = 0;
    std::memcpy(&hash, name.bytes.data(), sizeof(hash));
    return hash;
  }
};

// What all blocks of a replica have in common.
struct PrefixIdentity {
  std::string weights_id;
  std::string numerics_id;
  // Sequences with more tokens have angles of their own (base/rope.h), and so
  // other keys; 0: all have the same.
  int64_t max_short_rope_tokens = 0;
  bool operator==(const PrefixIdentity&) const = default;
};

// Tenants have different roots, so that none learns from the time to its first
// token what another one asked.
// num_tokens: what the sequence has.
// adapter: its content hash; empty: none.
BlockName RootBlockName(const PrefixIdentity& identity, std::string_view tenant,
                        std::string_view adapter, int64_t num_tokens);

// Whether a sequence of num_tokens has the angles of long ones.
inline bool HasLongRope(const PrefixIdentity& identity, int64_t num_tokens) {
  return identity.max_short_rope_tokens > 0 &&
         num_tokens > identity.max_short_rope_tokens;
}

// REQUIRES: kBlockTokens tokens.
BlockName ChildBlockName(const BlockName& parent,
                         std::span<const TokenId> tokens);

// Of the first full blocks of `tokens`, `max_blocks` at most. O(tokens).
std::vector<BlockName> BlockNames(const BlockName& root,
                                  std::span<const TokenId> tokens,
                                  size_t max_blocks);

}  // namespace witan

#endif  // WITAN_COORDINATOR_SCHEDULE_BLOCK_NAME_H_
