#include "model/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>

#include "base/sha256.h"
#include "base/status.h"
#include "model/families.h"
#include "model/piece_cache.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct LoadedModel {
  explicit LoadedModel(const std::string& directory)
      : config(*ReadModelConfig(directory)),
        checkpoint(*Checkpoint::Open(directory)) {}

  PieceHashes Hashes(Layout layout, int rank, int num_threads = 2,
                     const PieceCache& cache = PieceCache()) const {
    return HashPieces(config, *checkpoint, MakeRankShard(config, layout, rank),
                      num_threads, nullptr, cache)
        .value();
  }

  ModelConfig config;
  std::unique_ptr<Checkpoint> checkpoint;
};

// Few bytes, since every layout hashes them: 7 heads leave a leaf empty, 3
// experts leave five.
TinyModelOptions SmallOptions() {
  TinyModelOptions options;
  options.config.hidden_size = 16;
  options.config.intermediate_size = 24;
  options.config.num_heads = 7;
  options.config.num_kv_heads = 7;
  options.config.head_dim = 4;
  options.config.rope.rotary_dim = 4;
  options.config.num_experts = 3;
  options.config.vocab_size = 37;
  return options;
}

TEST(ManifestTest, EveryLayoutAndNumberOfThreadsYieldsTheSameWeightsId) {
  for (const bool tied : {false, true}) {
    TinyModelOptions options = SmallOptions();
    options.config.tie_word_embeddings = tied;
    const TinyModel model(options);
    const LoadedModel loaded(model.directory());
    std::set<std::string> ids;
    for (int tp = 1; tp <= 8; ++tp) {
      for (int ep = 1; ep <= 8; ++ep) {
        const Layout layout{tp, ep};
        Manifest manifest(loaded.config);
        for (int rank = 0; rank < layout.num_ranks(); ++rank) {
          const absl::Status status =
              manifest.Add(rank, loaded.Hashes(layout, rank, 1 + rank % 3));
          ASSERT_TRUE(status.ok()) << status;
        }
        const auto id = manifest.WeightsId();
        ASSERT_TRUE(id.ok()) << id.status();
        ids.insert(*id);
      }
    }
    EXPECT_EQ(ids.size(), 1u);
    EXPECT_EQ(ids.begin()->size(), 64u);
  }
}

TEST(ManifestTest, ShardedAndSingleFilesOfOneModelHaveOneId) {
  TinyModelOptions options = SmallOptions();
  const TinyModel single(options);
  options.num_shards = 4;
  const TinyModel sharded(options);
  EXPECT_EQ(LoadedModel(single.directory()).Hashes({1, 1}, 0),
            LoadedModel(sharded.directory()).Hashes({1, 1}, 0));
}

// Which piece holds an element, by the rules in words.
std::string NaivePieceOf(const ModelConfig& config, const TensorSlice& tensor,
                         int64_t row, int64_t column) {
  const auto leaf_of = [](int64_t unit, int64_t num_units) {
    int64_t leaf = 0;
    while (unit >= (leaf + 1) * num_units / 8) ++leaf;
    return leaf;
  };
  int64_t index = 0;
  switch (tensor.role) {
    case TensorRole::kQuery:
      index = leaf_of(row / config.head_dim, config.num_heads);
      break;
    case TensorRole::kOutput:
      index = leaf_of(column / config.head_dim, config.num_heads);
      break;
    case TensorRole::kKey:
    case TensorRole::kValue:
      index = row / config.head_dim;
      break;
    case TensorRole::kLmHead:
      index = leaf_of(row, config.vocab_size);
      break;
    default:
      break;
  }
  return fmt::format(
      "{}#{}", PlaceOf(config, tensor.role, tensor.layer, tensor.expert).name,
      index);
}

// Every piece from its definition, element by element.
PieceHashes NaiveHashes(const LoadedModel& loaded) {
  const ModelConfig& config = loaded.config;
  std::map<std::string, std::string> bytes;
  std::map<std::string, std::pair<std::set<int64_t>, std::set<int64_t>>>
      extents;
  std::map<std::string, bool> is_vector;
  for (const TensorSlice& tensor : ExpectedTensors(config)) {
    const MappedTensor* mapped = loaded.checkpoint->Find(
        PlaceOf(config, tensor.role, tensor.layer, tensor.expert).name);
    const size_t element = SizeOf(config.weights);
    for (int64_t row = 0; row < tensor.rows.end; ++row) {
      for (int64_t column = 0; column < tensor.columns.end; ++column) {
        const std::string piece = NaivePieceOf(config, tensor, row, column);
        const auto i =
            static_cast<size_t>(row * tensor.columns.end + column) * element;
        bytes[piece].append(
            reinterpret_cast<const char*>(mapped->data.data()) + i, element);
        extents[piece].first.insert(row);
        extents[piece].second.insert(column);
        is_vector[piece] = mapped->shape.size() == 1;
      }
    }
  }
  PieceHashes hashes;
  for (const auto& [piece, content] : bytes) {
    const auto& [rows, columns] = extents[piece];
    Sha256 hash;
    hash.Update(
        is_vector[piece]
            ? fmt::format("bfloat16 [{}]\n", columns.size())
            : fmt::format("bfloat16 [{}, {}]\n", rows.size(), columns.size()));
    hash.Update(content);
    hashes[piece] = hash.Finish();
  }
  return hashes;
}

TEST(ManifestTest, PiecesAreWhatTheirDefinitionSays) {
  // Output projections whose leaves have few bytes a row, enough rows of one
  // kilobyte to be read in more than one go, and rows of eight kilobytes.
  TinyModelOptions many_rows = SmallOptions();
  many_rows.config.num_layers = 1;
  many_rows.config.hidden_size = 70;
  many_rows.config.num_heads = 8;
  many_rows.config.num_kv_heads = 4;
  many_rows.config.head_dim = 512;
  many_rows.config.rope.rotary_dim = 512;
  TinyModelOptions long_rows = many_rows;
  long_rows.config.hidden_size = 3;
  long_rows.config.num_heads = 64;
  for (const TinyModelOptions& options :
       {SmallOptions(), many_rows, long_rows}) {
    const TinyModel model(options);
    const LoadedModel loaded(model.directory());
    EXPECT_EQ(loaded.Hashes({1, 1}, 0), NaiveHashes(loaded));
  }
}

TEST(ManifestTest, ARankHashesItsOwnPiecesOnly) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  const PieceHashes all = loaded.Hashes({1, 1}, 0);
  const PieceHashes mine = loaded.Hashes({2, 3}, 1);  // tp 1 of 2, ep 1 of 3
  EXPECT_TRUE(mine.contains("model.layers.0.self_attn.q_proj.weight#7"));
  EXPECT_FALSE(mine.contains("model.layers.0.self_attn.q_proj.weight#3"));
  EXPECT_TRUE(mine.contains("lm_head.weight#4"));
  EXPECT_FALSE(mine.contains("lm_head.weight#0"));
  // Of three experts, leaf 2 holds the first and leaf 5 the second; the
  // second rank of three owns leaves 2 to 4.
  EXPECT_TRUE(
      mine.contains("model.layers.1.block_sparse_moe.experts.0.w2.weight#0"));
  EXPECT_FALSE(
      mine.contains("model.layers.1.block_sparse_moe.experts.1.w2.weight#0"));
  for (const auto& [piece, hash] : mine) EXPECT_EQ(hash, all.at(piece));
}

TEST(ManifestTest, OneFlippedBitChangesThePieceThatHoldsItAndNoOther) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  const PieceHashes before = loaded.Hashes({1, 1}, 0);
  const std::string path = loaded.checkpoint->files()[0];
  for (const TensorSlice& tensor : ExpectedTensors(loaded.config)) {
    const std::string name =
        PlaceOf(loaded.config, tensor.role, tensor.layer, tensor.expert).name;
    // First, last and some element between.
    const int64_t num_elements = tensor.columns.end * tensor.rows.end;
    for (const int64_t i :
         {int64_t{0}, num_elements * 5 / 8, num_elements - 1}) {
      const TempDirectory copy;
      std::filesystem::copy(model.directory(), copy.path());
      std::fstream file(copy.path() + "/model.safetensors",
                        std::ios::in | std::ios::out | std::ios::binary);
      const std::streamoff at =
          loaded.checkpoint->Find(name)->file_offset + i * 2 + i % 2;
      file.seekg(at);
      const char byte = static_cast<char>(file.get() ^ (1 << (i % 8)));
      file.seekp(at);
      file.put(byte);
      file.close();
      const PieceHashes after = LoadedModel(copy.path()).Hashes({1, 1}, 0);
      std::vector<std::string> changed;
      for (const auto& [piece, hash] : before) {
        if (after.at(piece) != hash) changed.push_back(piece);
      }
      EXPECT_THAT(changed, ElementsAre(NaivePieceOf(loaded.config, tensor,
                                                    i / tensor.columns.end,
                                                    i % tensor.columns.end)));
    }
  }
}

TEST(ManifestTest, ASecondRankWithAnotherHashIsRefusedNamingThePiece) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  const PieceHashes good = loaded.Hashes({1, 1}, 0);
  const std::string piece = "model.layers.1.self_attn.o_proj.weight#4";
  PieceHashes bad = good;
  bad.at(piece) = std::string(64, 'a');
  Manifest manifest(loaded.config);
  ASSERT_TRUE(manifest.Add(2, good).ok());
  const absl::Status status = manifest.Add(5, bad);
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(MessageOf(status)),
              AllOf(HasSubstr(piece), HasSubstr(good.at(piece) + " on rank 2"),
                    HasSubstr(bad.at(piece) + " on rank 5")));
  EXPECT_TRUE(manifest.Add(6, good).ok());
}

TEST(ManifestTest, WhatIsNoPieceOrNoHashIsRefused) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  PieceHashes hashes = loaded.Hashes({1, 1}, 0);
  Manifest manifest(loaded.config);
  for (const char* piece :
       {"", "lm_head.weight", "lm_head.weight#8", "lm_head.weight#-1",
        "model.layers.0.self_attn.q_proj.weight#0",  // an empty leaf
        "model.layers.2.input_layernorm.weight#0"}) {
    const absl::Status status =
        manifest.Add(3, {{piece, std::string(64, '0')}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << piece;
    EXPECT_THAT(
        std::string(MessageOf(status)),
        AllOf(HasSubstr("rank 3"), HasSubstr(fmt::format("\"{}\"", piece))));
  }
  for (const std::string& hash :
       {std::string(), std::string(63, '0'), std::string(65, '0'),
        std::string(64, 'A'), std::string(64, 'g'), std::string(5000, '0')}) {
    const absl::Status status = manifest.Add(3, {{"lm_head.weight#1", hash}});
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << hash;
    EXPECT_LT(MessageOf(status).size(), 400u);
  }
  // A refused report leaves nothing behind.
  PieceHashes mixed = {{"lm_head.weight#1", std::string(64, '1')},
                       {"zzz", std::string(64, '1')}};
  ASSERT_FALSE(manifest.Add(3, mixed).ok());
  EXPECT_TRUE(manifest.Add(4, hashes).ok());
  EXPECT_TRUE(manifest.WeightsId().ok());
}

TEST(ManifestTest, ThereIsNoIdBeforeEveryPieceWasReported) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  PieceHashes hashes = loaded.Hashes({1, 1}, 0);
  const auto last = std::prev(hashes.end());
  Manifest manifest(loaded.config);
  const std::string name = last->first;
  const std::string hash = last->second;
  hashes.erase(last);
  ASSERT_TRUE(manifest.Add(0, hashes).ok());
  const auto id = manifest.WeightsId();
  EXPECT_EQ(id.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(MessageOf(id.status())), HasSubstr(name));
  ASSERT_TRUE(manifest.Add(0, {{name, hash}}).ok());
  EXPECT_TRUE(manifest.WeightsId().ok());
}

TEST(ManifestTest, ProgressRisesToTheTotal) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  int64_t last = -1;
  int64_t last_total = 0;
  int num_calls = 0;
  const auto progress = [&](int64_t done, int64_t total) {
    EXPECT_GE(done, last);
    EXPECT_LE(done, total);
    last = done;
    last_total = total;
    ++num_calls;
  };
  ASSERT_TRUE(HashPieces(loaded.config, *loaded.checkpoint,
                         MakeRankShard(loaded.config, Layout{1, 1}, 0), 3,
                         progress)
                  .ok());
  int64_t expected = 0;
  for (const auto& [name, tensor] : loaded.checkpoint->tensors()) {
    expected += static_cast<int64_t>(tensor.data.size());
  }
  EXPECT_EQ(last, expected);
  EXPECT_EQ(last_total, expected);
  EXPECT_LE(num_calls, 102);
}

TEST(ManifestTest, AStopEndsTheHashingAtTheNextPiece) {
  const TinyModel model(SmallOptions());
  const LoadedModel loaded(model.directory());
  std::stop_source stop;
  int num_calls = 0;
  const auto hashes = HashPieces(
      loaded.config, *loaded.checkpoint,
      MakeRankShard(loaded.config, Layout{1, 1}, 0), 1,
      [&](int64_t done, int64_t total) {
        EXPECT_LT(done, total);
        ++num_calls;
        stop.request_stop();
      },
      PieceCache(), stop.get_token());
  EXPECT_EQ(hashes.status().code(), absl::StatusCode::kCancelled);
  EXPECT_EQ(num_calls, 1);
}

// The cache believes that a file of the same identity has the same bytes. So
// a test can change bytes behind its back, and stale hashes show that they
// came from the cache.
class CacheTest : public ::testing::Test {
 protected:
  CacheTest() : model_(SmallOptions()) {
    weights_ = model_.directory() + "/model.safetensors";
    SetAge(std::chrono::hours(2));
  }

  void SetAge(std::chrono::seconds age) {
    std::filesystem::last_write_time(
        weights_, std::filesystem::file_time_type::clock::now() - age);
  }
  std::string CacheDirectory() const {
    return directory_.path() + "/made/here";
  }
  PieceHashes Hashes(const std::string& cache_directory) const {
    return LoadedModel(model_.directory())
        .Hashes({1, 1}, 0, 2, PieceCache(cache_directory));
  }
  PieceHashes Hashes() const { return Hashes(CacheDirectory()); }
  PieceHashes TrueHashes() const { return Hashes(""); }
  // Flips the last byte and sets the old time.
  void ChangeBehindItsBack() {
    const auto time = std::filesystem::last_write_time(weights_);
    std::fstream file(weights_,
                      std::ios::in | std::ios::out | std::ios::binary);
    file.seekg(-1, std::ios::end);
    const char byte = static_cast<char>(file.get() ^ 1);
    file.seekp(-1, std::ios::end);
    file.put(byte);
    file.close();
    std::filesystem::last_write_time(weights_, time);
  }
  std::string CacheFile() const {
    for (const auto& entry :
         std::filesystem::directory_iterator(CacheDirectory())) {
      if (entry.path().filename().string().starts_with("pieces-")) {
        return entry.path().string();
      }
    }
    return "";
  }

  TempDirectory directory_;
  TinyModel model_;
  std::string weights_;
};

TEST_F(CacheTest, HashesOfAnUnchangedFileComeFromTheCache) {
  const PieceHashes first = Hashes();
  ASSERT_NE(CacheFile(), "");
  ChangeBehindItsBack();
  EXPECT_EQ(Hashes(), first);
  EXPECT_NE(TrueHashes(), first);
}

TEST_F(CacheTest, AStopLeavesOnlyWholeHashesThere) {
  const LoadedModel loaded(model_.directory());
  std::stop_source stop;
  const auto stopped = HashPieces(
      loaded.config, *loaded.checkpoint,
      MakeRankShard(loaded.config, Layout{1, 1}, 0), 1,
      [&](int64_t, int64_t) { stop.request_stop(); },
      PieceCache(CacheDirectory()), stop.get_token());
  EXPECT_FALSE(stopped.ok());
  ASSERT_NE(CacheFile(), "");
  EXPECT_EQ(Hashes(), TrueHashes());
}

TEST_F(CacheTest, AChangedTimeOfModificationIsNoticed) {
  const PieceHashes first = Hashes();
  ChangeBehindItsBack();
  SetAge(std::chrono::hours(1));
  EXPECT_NE(Hashes(), first);
}

TEST_F(CacheTest, RanksAddToWhatIsKnown) {
  const LoadedModel loaded(model_.directory());
  for (const int rank : {0, 1}) {
    loaded.Hashes({2, 2}, rank, 2, PieceCache(CacheDirectory()));
  }
  ChangeBehindItsBack();
  const PieceHashes cached = Hashes();
  ChangeBehindItsBack();  // back
  EXPECT_EQ(cached, TrueHashes());
}

TEST_F(CacheTest, ADamagedCacheIsIgnoredAndReplaced) {
  const PieceHashes first = Hashes();
  const std::string path = CacheFile();
  const auto size = std::filesystem::file_size(path);
  ChangeBehindItsBack();
  const std::pair<const char*, std::function<void()>> damages[] = {
      {"empty", [&] { std::filesystem::resize_file(path, 0); }},
      {"cut", [&] { std::filesystem::resize_file(path, size - 1); }},
      {"longer", [&] { std::ofstream(path, std::ios::app) << "x"; }},
      {"flipped",
       [&] {
         std::fstream file(path, std::ios::in | std::ios::out);
         file.seekp(static_cast<std::streamoff>(size / 2));
         file.put('~');
       }},
      {"a directory",
       [&] {
         std::filesystem::remove(path);
         std::filesystem::create_directory(path);
       }},
  };
  for (const auto& [what, damage] : damages) {
    damage();
    EXPECT_NE(Hashes(), first) << what;
  }
}

TEST_F(CacheTest, AFileThatJustChangedIsNotCached) {
  SetAge(std::chrono::seconds(0));
  Hashes();
  EXPECT_EQ(std::filesystem::exists(CacheDirectory()) ? CacheFile() : "", "");
}

TEST_F(CacheTest, ADirectoryThatCannotBeMadeChangesNothing) {
  EXPECT_EQ(Hashes(weights_ + "/x"), TrueHashes());
}

TEST(PieceCacheTest, NoPrefixAndNoChangedByteOfACacheFileIsBelieved) {
  const TempDirectory directory;
  const std::string weights = directory.Write("weights", "w");
  std::filesystem::last_write_time(
      weights,
      std::filesystem::file_time_type::clock::now() - std::chrono::hours(2));
  const FileIdentity identity = *IdentityOfFile(weights);
  const TempDirectory cache_directory;
  const PieceCache cache(cache_directory.path());
  const CachedHashes hashes = {{"a", std::string(64, '1')},
                               {"b@0", std::string(64, '2')}};
  cache.Store(weights, identity, hashes);
  ASSERT_EQ(cache.Load(identity), hashes);
  std::filesystem::remove(cache_directory.path() + "/lock");
  const std::string path =
      std::filesystem::directory_iterator(cache_directory.path())
          ->path()
          .string();
  std::stringstream text;
  text << std::ifstream(path).rdbuf();
  const std::string good = text.str();
  const auto load = [&](const std::string& content) {
    std::filesystem::remove(path);
    std::ofstream(path) << content;
    return cache.Load(identity);
  };
  ASSERT_EQ(load(good), hashes);
  for (size_t i = 0; i < good.size(); ++i) {
    EXPECT_EQ(load(good.substr(0, i)), CachedHashes()) << i;
    std::string flipped = good;
    flipped[i] ^= 1;
    EXPECT_EQ(load(flipped), CachedHashes()) << i;
  }
  FileIdentity other = identity;
  other.size_bytes += 1;
  EXPECT_EQ(cache.Load(other), CachedHashes());
}

}  // namespace
}  // namespace witan
