#ifndef WITAN_COORDINATOR_TEXT_UNIGRAM_H_
#define WITAN_COORDINATOR_TEXT_UNIGRAM_H_

#include <absl/status/statusor.h>

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/request.h"
#include "coordinator/text/byte_trie.h"
#include "coordinator/text/json_value.h"
#include "coordinator/text/sentencepiece_model.h"

namespace witan {

// The unigram language model of SentencePiece (Kudo 2018): of all ways to cut
// a text into pieces it takes the one with the highest sum of scores (Viterbi),
// the first found of equals. A character that is no piece by itself may be cut
// as unknown, at a score of 10 below the lowest piece. Immutable.
class Unigram {
 public:
  // Of "model" in a tokenizer.json. Pieces are "model.vocab", by id.
  static absl::StatusOr<Unigram> Parse(const JsonValue& model);
  // Of a tokenizer.model. Sums are of single precision there.
  static Unigram FromSentencePiece(const SentencePieceModel& model);

  // Working memory, to be reused from word to word by one thread.
  class Scratch {
   public:
    // Bytes that were looked up in the vocabulary since it was made.
    int64_t num_lookups() const { return num_lookups_; }

   private:
    friend class Unigram;
    struct Node {
      double score = 0;    // of the best path that ends here
      int32_t begin = -1;  // where its last piece begins; -1: no path yet
      TokenId id = 0;
    };
    struct Piece {
      int32_t begin;
      int32_t end;
      TokenId id;
    };
    std::vector<Node> best;  // by byte
    std::vector<Piece> path;
    int64_t num_lookups_ = 0;
  };

  // Appends the ids of `word`. Neighbouring unknown characters make one
  // unknown token, or a byte token for each of their bytes. O(bytes x bytes of
  // the longest piece). REQUIRES: `word` is UTF-8, at most INT32_MAX bytes.
  void Encode(std::string_view word, Scratch* scratch,
              std::vector<TokenId>* ids) const;

 private:
  void FindBestPath(std::string_view word, Scratch* scratch) const;
  void AppendUnknown(std::string_view text, std::vector<TokenId>* ids) const;

  ByteTrie pieces_;             // values are ids
  std::vector<double> scores_;  // by id
  double unknown_score_ = 0;
  TokenId unknown_id_ = 0;
  bool single_precision_ = false;
  bool byte_fallback_ = false;
  std::array<TokenId, 256> byte_ids_;  // -1: none
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_UNIGRAM_H_
