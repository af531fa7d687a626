#include "model/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "base/bounds.h"
#include "base/limits.h"
#include "base/mutex.h"
#include "base/parallel.h"
#include "base/sha256.h"
#include "base/status.h"
#include "model/families.h"
#include "model/json_object.h"

namespace witan {
namespace {

struct Piece {
  std::string name;
  TensorPlace place;
  TensorSlice slice;
};

// The pieces of one tensor that lie in `held`, a slice of it.
void AppendPieces(const ModelConfig& config, const TensorSlice& held,
                  std::vector<Piece>& pieces) {
  const TensorPlace place = PlaceOf(config, held.role, held.layer, held.expert);
  const std::string label =
      place.is_part ? fmt::format("{}@{}", place.name, place.first_row)
                    : place.name;
  const auto add = [&](int64_t index, const TensorSlice& slice) {
    const bool is_held = slice.rows.begin >= held.rows.begin &&
                         slice.rows.end <= held.rows.end &&
                         slice.columns.begin >= held.columns.begin &&
                         slice.columns.end <= held.columns.end;
    if (is_held && slice.rows.size() > 0 && slice.columns.size() > 0) {
      pieces.push_back({fmt::format("{}#{}", label, index), place, slice});
    }
  };
  TensorSlice slice = WholeTensor(config, held.role, held.layer, held.expert);
  const auto add_leaves = [&](IndexRange& cut, auto&& range_of_leaf) {
    for (int leaf = 0; leaf < kNumLeaves; ++leaf) {
      cut = range_of_leaf(leaf);
      add(leaf, slice);
    }
  };
  const int64_t dim = config.head_dim;
  const auto heads = [&](int leaf) {
    const IndexRange range = LeafUnits(config.num_heads, leaf);
    return IndexRange{range.begin * dim, range.end * dim};
  };
  const auto add_kv_heads = [&](IndexRange& cut) {
    for (int64_t head = 0; head < config.num_kv_heads; ++head) {
      cut = {head * dim, (head + 1) * dim};
      add(head, slice);
    }
  };
  const auto ffn = [&](int leaf) {
    return FfnColumns(config, {leaf, leaf + 1});
  };
  const auto vocab = [&](int leaf) {
    return LeafUnits(config.vocab_size, leaf);
  };
  switch (held.role) {
    case TensorRole::kQuery:
      return add_leaves(slice.rows, heads);
    case TensorRole::kQueryBias:
    case TensorRole::kOutput:
      return add_leaves(slice.columns, heads);
    case TensorRole::kKey:
    case TensorRole::kValue:
      return add_kv_heads(slice.rows);
    case TensorRole::kKeyBias:
    case TensorRole::kValueBias:
      return add_kv_heads(slice.columns);
    case TensorRole::kGate:
    case TensorRole::kUp:
      return add_leaves(slice.rows, ffn);
    case TensorRole::kDown:
      return add_leaves(slice.columns, ffn);
    case TensorRole::kLmHead:
      if (!config.tie_word_embeddings) add_leaves(slice.rows, vocab);
      return;
    case TensorRole::kLmHeadBias:
      return add_leaves(slice.columns, vocab);
    default:
      add(0, slice);
  }
}

std::vector<Piece> PiecesOfRank(const ModelConfig& config,
                                const RankShard& shard) {
  std::vector<Piece> pieces;
  for (const TensorSlice& slice : SlicesOfRank(config, shard)) {
    AppendPieces(config, slice, pieces);
  }
  return pieces;
}

// Adds to a count that several threads make, and reports each percent.
class Progress {
 public:
  Progress(const HashProgress& report, int64_t total)
      : report_(report), total_(total) {}
  void Add(int64_t bytes) {
    MutexLock lock(mutex_);
    done_ += bytes;
    if (!report_ || (done_ - reported_ < total_ / 100 && done_ < total_)) {
      return;
    }
    reported_ = done_;
    report_(done_, total_);
  }

 private:
  const HashProgress& report_;
  const int64_t total_;
  Mutex mutex_;
  int64_t done_ WITAN_GUARDED_BY(mutex_) = 0;
  int64_t reported_ WITAN_GUARDED_BY(mutex_) = 0;
};

// Rows of the piece in the tensor that the checkpoint has.
IndexRange RowsOf(const Piece& piece) {
  return {piece.place.first_row + piece.slice.rows.begin,
          piece.place.first_row + piece.slice.rows.end};
}

// Where the elements of a piece lie: `num_rows` segments of `row_bytes`, one
// every `stride_bytes`.
struct Segments {
  const std::byte* first = nullptr;
  int64_t num_rows = 0;
  int64_t row_bytes = 0;
  int64_t stride_bytes = 0;
};

// REQUIRES: the tensor needs no conversion.
Segments SegmentsOf(const Piece& piece, const MappedTensor& tensor) {
  const auto element = static_cast<int64_t>(SizeOf(tensor.dtype));
  const TensorSlice& slice = piece.slice;
  Segments segments;
  segments.num_rows = slice.rows.size();
  segments.row_bytes = slice.columns.size() * element;
  segments.stride_bytes = tensor.shape.back() * element;
  segments.first = tensor.data.data() +
                   RowsOf(piece).begin * segments.stride_bytes +
                   slice.columns.begin * element;
  if (segments.row_bytes == segments.stride_bytes) {  // adjacent rows
    segments.row_bytes *= segments.num_rows;
    segments.stride_bytes = segments.row_bytes;
    segments.num_rows = 1;
  }
  return segments;
}

// Feeds the bytes to the hash in chunks of about kChunkBytes: short segments
// are collected first (a call per segment costs more than hashing it), long
// ones are cut so that progress is reported and a stop is noticed. False when
// it was stopped: then the hash is of no use.
bool UpdateHash(const Segments& segments, const std::stop_token& stop,
                Sha256& hash, Progress& progress) {
  constexpr int64_t kChunkBytes = 16 << 20;
  constexpr int64_t kShortSegmentBytes = 8 << 10;
  constexpr int64_t kCollectBytes = 64 << 10;
  if (segments.row_bytes >= kShortSegmentBytes) {
    for (int64_t row = 0; row < segments.num_rows; ++row) {
      const std::byte* at = segments.first + row * segments.stride_bytes;
      for (int64_t done = 0; done < segments.row_bytes; done += kChunkBytes) {
        if (stop.stop_requested()) return false;
        const int64_t size = std::min(kChunkBytes, segments.row_bytes - done);
        hash.Update(at + done, static_cast<size_t>(size));
        progress.Add(size);
      }
    }
    return true;
  }
  const int64_t rows_at_once = kCollectBytes / segments.row_bytes;
  std::vector<std::byte> collected(
      static_cast<size_t>(rows_at_once * segments.row_bytes));
  for (int64_t row = 0; row < segments.num_rows; row += rows_at_once) {
    if (stop.stop_requested()) return false;
    const int64_t num_rows = std::min(rows_at_once, segments.num_rows - row);
    for (int64_t i = 0; i < num_rows; ++i) {
      std::memcpy(collected.data() + i * segments.row_bytes,
                  segments.first + (row + i) * segments.stride_bytes,
                  static_cast<size_t>(segments.row_bytes));
    }
    hash.Update(collected.data(),
                static_cast<size_t>(num_rows * segments.row_bytes));
    progress.Add(num_rows * segments.row_bytes);
  }
  return true;
}

// The same of a tensor whose elements are made as they are read.
bool UpdateHash(const Piece& piece, const MappedTensor& tensor,
                const std::stop_token& stop, Sha256& hash, Progress& progress) {
  constexpr int64_t kChunkBytes = 1 << 20;
  const auto [begin, end] = RowsOf(piece);
  const int64_t row_bytes =
      piece.slice.columns.size() * static_cast<int64_t>(SizeOf(tensor.dtype));
  const int64_t rows_at_once = std::max<int64_t>(1, kChunkBytes / row_bytes);
  std::vector<std::byte> elements(
      static_cast<size_t>(std::min(rows_at_once, end - begin) * row_bytes));
  for (int64_t row = begin; row < end; row += rows_at_once) {
    if (stop.stop_requested()) return false;
    const IndexRange rows = {row, std::min(row + rows_at_once, end)};
    ReadElements(tensor, rows, piece.slice.columns, elements.data());
    hash.Update(elements.data(), static_cast<size_t>(rows.size() * row_bytes));
    progress.Add(rows.size() * row_bytes);
  }
  return true;
}

// One piece to hash.
struct Job {
  const Piece* piece = nullptr;
  const MappedTensor* tensor = nullptr;
  std::string cache_key;
  std::string hash;  // empty until it is known

  int64_t size_bytes() const {
    return piece->slice.rows.size() * piece->slice.columns.size() *
           static_cast<int64_t>(SizeOf(tensor->dtype));
  }
  std::string ShapeText() const {
    return fmt::format("{} [{}]", NameOf(tensor->dtype),
                       fmt::join(StoredShape(piece->slice), ", "));
  }
  void Run(const std::stop_token& stop, Progress& progress) {
    Sha256 sha256;
    sha256.Update(ShapeText() + "\n");
    const bool is_whole =
        tensor->conversion
            ? UpdateHash(*piece, *tensor, stop, sha256, progress)
            : UpdateHash(SegmentsOf(*piece, *tensor), stop, sha256, progress);
    if (is_whole) hash = sha256.Finish();
  }
};

void RunJobs(std::vector<Job*> jobs, int num_threads,
             const std::stop_token& stop, Progress& progress) {
  // Large ones first, so that the threads end together.
  std::stable_sort(jobs.begin(), jobs.end(), [](const Job* a, const Job* b) {
    return a->size_bytes() > b->size_bytes();
  });
  ForEachOnThreads(jobs.size(), num_threads,
                   [&](size_t i) { jobs[i]->Run(stop, progress); });
}

// What was hashed: with what is in the file (piece_cache.h), all that decides.
std::string CacheKeyOf(const Job& job) {
  const IndexRange rows = RowsOf(*job.piece);
  const IndexRange columns = job.piece->slice.columns;
  std::string key = fmt::format(
      "{}@{}+[{},{})x[{},{})/{},{}", job.piece->name, job.tensor->file_offset,
      rows.begin, rows.end, columns.begin, columns.end,
      job.tensor->row_elements(), NameOf(job.tensor->dtype));
  if (const auto& conversion = job.tensor->conversion) {
    key += fmt::format(",{},{}", TraitsOf(conversion->stored).name,
                       conversion->interleaved_head_dim);
  }
  return key;
}

bool IsHash(const std::string& text) {
  return text.size() == 64 &&
         text.find_first_not_of("0123456789abcdef") == std::string::npos;
}

}  // namespace

absl::StatusOr<PieceHashes> HashPieces(const ModelConfig& config,
                                       const Checkpoint& checkpoint,
                                       const RankShard& shard, int num_threads,
                                       const HashProgress& progress,
                                       const PieceCache& cache,
                                       const std::stop_token& stop) {
  std::vector<CachedHashes> known;  // by file index
  for (const FileIdentity& file : checkpoint.file_identities()) {
    known.push_back(cache.Load(file));
  }
  const std::vector<Piece> pieces = PiecesOfRank(config, shard);
  RETURN_IF_ERROR(CheckCount("pieces of weights of one rank",
                             static_cast<int64_t>(pieces.size()), kMaxPieces));
  std::vector<Job> jobs;
  jobs.reserve(pieces.size());
  std::vector<Job*> unknown;
  int64_t total_bytes = 0;
  int64_t known_bytes = 0;
  for (const Piece& piece : pieces) {
    Job& job = jobs.emplace_back();
    job.piece = &piece;
    job.tensor = checkpoint.Find(piece.place.name);
    job.cache_key = CacheKeyOf(job);
    total_bytes += job.size_bytes();
    const CachedHashes& hashes = known[job.tensor->file_index];
    const auto found = hashes.find(job.cache_key);
    if (found == hashes.end()) {
      unknown.push_back(&job);
    } else {
      job.hash = found->second;
      known_bytes += job.size_bytes();
    }
  }
  Progress report(progress, total_bytes);
  report.Add(known_bytes);
  RunJobs(unknown, num_threads, stop, report);

  std::vector<CachedHashes> news(checkpoint.files().size());
  for (const Job* job : unknown) {
    if (job->hash.empty()) continue;
    news[job->tensor->file_index].emplace(job->cache_key, job->hash);
  }
  for (size_t i = 0; i < news.size(); ++i) {
    cache.Store(checkpoint.files()[i], checkpoint.file_identities()[i],
                news[i]);
  }
  PieceHashes hashes;
  for (const Job& job : jobs) {
    if (job.hash.empty()) return Cancelled("hashing the weights was stopped");
    hashes.emplace(job.piece->name, job.hash);
  }
  return hashes;
}

Manifest::Manifest(const ModelConfig& config) {
  const RankShard everything = MakeRankShard(config, Layout{}, 0);
  for (const Piece& piece : PiecesOfRank(config, everything)) {
    expected_.emplace(piece.name, -1);
  }
}

absl::Status Manifest::Add(int rank, const PieceHashes& pieces) {
  for (const auto& [name, hash] : pieces) {
    const auto expected = expected_.find(name);
    if (expected == expected_.end()) {
      return InvalidArgument(
          "rank {} reports weights {} that this model does not have; start its "
          "worker with the model of the others",
          rank, Quoted(name));
    }
    if (!IsHash(hash)) {
      return InvalidArgument(
          "rank {} reports {} for weights {}; allowed are 64 digits of "
          "lower-case hex",
          rank, Quoted(hash), name);
    }
    const auto known = hashes_.find(name);
    if (known != hashes_.end() && known->second != hash) {
      return FailedPrecondition(
          "weights {} differ: {} on rank {}, {} on rank {}; copy the same "
          "checkpoint to both hosts",
          name, known->second, expected->second, hash, rank);
    }
  }
  for (const auto& [name, hash] : pieces) {
    if (hashes_.emplace(name, hash).second) expected_[name] = rank;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> Manifest::WeightsId() const {
  Sha256 id;
  for (const auto& [name, rank] : expected_) {
    const auto hash = hashes_.find(name);
    if (hash == hashes_.end()) {
      return FailedPrecondition(
          "{} of {} pieces of the weights were reported; {} was not",
          hashes_.size(), expected_.size(), name);
    }
    id.Update(fmt::format("{} {}\n", name, hash->second));
  }
  return id.Finish();
}

}  // namespace witan
