#ifndef WITAN_MODEL_MANIFEST_H_
#define WITAN_MODEL_MANIFEST_H_

// The identity of weights. Every tensor is cut where any layout may cut it (at
// its leaves along heads, vocabulary rows or experts; KV projections at KV
// heads; the rest whole) and each piece is hashed with SHA-256. A rank reports
// the pieces it holds; the coordinator refuses two hashes for one piece, and
// the weights id, a hash over all pieces, is the same for every layout. What is
// hashed are the elements that are computed with: a GGUF file that keeps a
// directory's numbers has its id, and quantised weights are hashed as the
// numbers that they become.
//
// Piece i of a query or output projection, of a dense FFN and of the output
// table is leaf i (empty leaves have no piece), of a key or value projection KV
// head i, and so of their biases; every other tensor is piece 0 of itself. Tied
// output tables are part of the embedding.

#include <absl/status/statusor.h>

#include <cstdint>
#include <functional>
#include <map>
#include <stop_token>
#include <string>
#include <vector>

#include "model/checkpoint.h"
#include "model/config.h"
#include "model/piece_cache.h"
#include "model/shard_plan.h"

namespace witan {

// Piece name ("TENSOR#index", or "TENSOR@row#index" of one of several that the
// file has in one tensor, from that row on) -> lower-case hex SHA-256 of dtype,
// shape of the piece and its bytes in row-major order.
using PieceHashes = std::map<std::string, std::string>;

// Bytes hashed so far and in total. Called by one thread at a time, now and
// then, the last time with both equal.
using HashProgress = std::function<void(int64_t done, int64_t total)>;

// Hashes of all pieces that the rank's slices hold, on up to num_threads
// threads. `progress` may be empty. Hashes of files that did not change are
// taken from `cache`, and new ones are kept there. The only error is CANCELLED,
// soon after `stop` was requested; what was hashed by then is in the cache.
// REQUIRES: CheckCheckpoint was OK.
absl::StatusOr<PieceHashes> HashPieces(const ModelConfig& config,
                                       const Checkpoint& checkpoint,
                                       const RankShard& shard, int num_threads,
                                       const HashProgress& progress,
                                       const PieceCache& cache = PieceCache(),
                                       const std::stop_token& stop = {});

// Collects what ranks report. One thread at a time.
class Manifest {
 public:
  explicit Manifest(const ModelConfig& config);
  // FAILED_PRECONDITION names a piece for which another rank reported another
  // hash, with both values; INVALID_ARGUMENT a piece that this model does not
  // have or a value that is no hash. Nothing is added then.
  absl::Status Add(int rank, const PieceHashes& pieces);
  // FAILED_PRECONDITION (with a piece's name) until every piece was reported.
  absl::StatusOr<std::string> WeightsId() const;

 private:
  std::map<std::string, int> expected_;  // piece -> first rank, or -1
  PieceHashes hashes_;
};

}  // namespace witan

#endif  // WITAN_MODEL_MANIFEST_H_
