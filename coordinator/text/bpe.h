#ifndef WITAN_COORDINATOR_TEXT_BPE_H_
#define WITAN_COORDINATOR_TEXT_BPE_H_

#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "base/request.h"
#include "coordinator/text/json_value.h"

namespace witan {

// Token spellings and their ids, as "model.vocab" gives them.
using Vocabulary = std::unordered_map<std::string_view, TokenId>;

// The bytes that a token of a byte-level vocabulary stands for: such
// vocabularies spell each byte as one printable character. nullopt when the
// spelling holds any other character.
std::optional<std::string> BytesOfByteLevelToken(std::string_view spelling);

// The value of a byte token, spelled "<0x0A>"; nullopt for other tokens.
std::optional<uint8_t> ByteOfByteToken(std::string_view spelling);

// Byte-pair encoding of one word: starts from bytes or characters and applies
// the merge of the lowest rank, leftmost first, until none applies. Immutable.
class Bpe {
 public:
  // Of "model" in a tokenizer.json. `vocabulary` is only read here.
  static absl::StatusOr<Bpe> Parse(const JsonValue& model,
                                   const Vocabulary& vocabulary,
                                   bool is_byte_level);

  // A vocabulary without a list of merges: any two neighbours whose union is a
  // token of it may merge.
  struct RankedToken {
    std::string_view spelling;  // bytes, or UTF-8 unless is_byte_level
    TokenId id = 0;
    uint32_t rank = 0;  // the lowest merges first; equal ones, leftmost first
  };
  struct RankedOptions {
    // Words start as bytes, of which every one is a token, and a word that is a
    // token is taken whole (tiktoken). Otherwise they start as characters
    // (SentencePiece), the unknown ones among them merge like the others, and
    // what is left of these becomes byte tokens or one unknown token for
    // neighbours.
    bool is_byte_level = false;
    // These are for characters only.
    const Vocabulary* characters = nullptr;  // spellings, others than one
                                             // character are passed over
    bool byte_fallback = false;              // tokens of `characters`
    TokenId unknown_id = 0;
  };
  // ResourceExhausted when more than kMaxTokenizerMerges pairs may merge.
  // REQUIRES: no two spellings are alike, none is empty; each is valid UTF-8
  // unless is_byte_level.
  static absl::StatusOr<Bpe> FromRankedTokens(
      std::span<const RankedToken> tokens, const RankedOptions& options);

  // Working memory, to be reused from word to word by one thread.
  class Scratch {
   public:
    // Pairs of neighbours that were looked up since it was made.
    int64_t num_lookups() const { return num_lookups_; }

   private:
    friend class Bpe;
    struct Symbol {
      TokenId id;
      int32_t previous;  // -1: none
      int32_t next;      // -1: none
      bool merged_away;
    };
    struct Candidate {
      uint32_t rank;
      int32_t position;
      TokenId merged_id;
    };
    std::vector<Symbol> symbols;
    std::vector<Candidate> heap;
    int64_t num_lookups_ = 0;
  };

  // Appends the ids of `word`. O(n log n) in its bytes. What the vocabulary
  // cannot spell becomes byte tokens or the unknown token, or is dropped if
  // the vocabulary has neither. REQUIRES: `word` is not longer than INT32_MAX
  // bytes, and is UTF-8 unless the model is byte-level.
  void Encode(std::string_view word, Scratch* scratch,
              std::vector<TokenId>* ids) const;

 private:
  struct Merge {
    uint32_t rank = 0;
    TokenId merged_id = 0;
  };

  // Finds the merge of two ids; open addressing, at most half full.
  class MergeTable {
   public:
    void Reserve(size_t num_merges);
    void Insert(TokenId left, TokenId right, Merge merge);
    const Merge* Find(TokenId left, TokenId right) const;

   private:
    struct Slot {
      uint64_t key = kEmpty;
      Merge merge;
    };
    static constexpr uint64_t kEmpty = ~uint64_t{0};
    static uint64_t KeyOf(TokenId left, TokenId right);
    size_t SlotOf(uint64_t key) const;
    std::vector<Slot> slots_;
    int shift_ = 0;
  };

  static TokenId PlaceholderOf(char32_t character);
  static char32_t CharacterOf(TokenId placeholder);
  void AddVocabulary(const Vocabulary& vocabulary);
  absl::Status AddUnions(std::span<const RankedToken> tokens);
  absl::Status ParseMerges(const JsonValue& merges,
                           const Vocabulary& vocabulary);
  void AddSymbols(std::string_view word, Scratch* scratch) const;
  void ApplyMerges(Scratch* scratch) const;
  void AppendIds(const Scratch& scratch, std::vector<TokenId>* ids) const;

  bool is_byte_level_ = false;
  bool byte_fallback_ = false;
  bool fuse_unknown_ = false;
  bool ignore_merges_ = false;
  // Unknown characters take part in merges, see RankedOptions.
  bool merges_unknown_ = false;
  std::optional<TokenId> unknown_id_;
  // Of each byte: its symbol (byte-level), or its byte token (byte fallback);
  // -1 when there is none.
  std::array<TokenId, 256> byte_ids_;
  std::unordered_map<char32_t, TokenId> character_ids_;
  // Whole words to be taken without merging, only with ignore_merges.
  struct ViewHash {
    using is_transparent = void;
    size_t operator()(std::string_view text) const {
      return std::hash<std::string_view>()(text);
    }
  };
  std::unordered_map<std::string, TokenId, ViewHash, std::equal_to<>> word_ids_;
  MergeTable merges_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_BPE_H_
