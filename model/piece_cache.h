#ifndef WITAN_MODEL_PIECE_CACHE_H_
#define WITAN_MODEL_PIECE_CACHE_H_

// Hashes of pieces (model/manifest.h) kept on disk between starts, so that a
// restarted rank need not read its weights twice. Used only when a worker is
// given a directory for it (--cache-dir).
//
// There is one small file per checkpoint file, named by the identity (device,
// inode, time of modification, size) of what was hashed; a changed checkpoint
// therefore finds nothing. A cache file ends with its own SHA-256; one that is
// damaged, cut short or of another format is ignored and replaced. Files are
// replaced by renaming, under a lock, so that the ranks of one host may share
// the directory. An error of the cache never fails the load.

#include <map>
#include <string>

#include "model/checkpoint.h"

namespace witan {

// Key: what was hashed, as text without spaces or line ends (name, position in
// the file, shape, dtype); value: the hash in hex.
using CachedHashes = std::map<std::string, std::string>;

class PieceCache {
 public:
  // Off: knows nothing and keeps nothing.
  PieceCache() = default;
  // `directory` is created when it does not exist; empty turns the cache off.
  explicit PieceCache(std::string directory);

  bool enabled() const { return !directory_.empty(); }

  // What is known of the file; empty when nothing is.
  CachedHashes Load(const FileIdentity& file) const;

  // Adds to what is known of the file, which is at `path`. Does nothing when
  // that file changed since `file` was taken, or so recently that a further
  // change might not show in its time of modification.
  void Store(const std::string& path, const FileIdentity& file,
             const CachedHashes& hashes) const;

 private:
  std::string PathOf(const FileIdentity& file) const;

  std::string directory_;
};

}  // namespace witan

#endif  // WITAN_MODEL_PIECE_CACHE_H_
