#include "coordinator/text/bpe.h"

#include <algorithm>
#include <bit>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan {

namespace {

// Bytes that are printable characters of Latin-1 spell themselves; the others
// are spelled by the characters from U+0100 on, in order.
bool SpellsItself(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
         (byte >= 0xAE && byte <= 0xFF);
}

// Byte of each spelling character below U+0144, or -1.
std::array<int16_t, 0x144> MakeByteOfCharacter() {
  std::array<int16_t, 0x144> byte_of;
  byte_of.fill(-1);
  int next = 0x100;
  for (int byte = 0; byte < 256; ++byte) {
    byte_of[SpellsItself(byte) ? byte : next++] = static_cast<int16_t>(byte);
  }
  return byte_of;
}

int HexDigit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

absl::Status RefuseAffix(const JsonValue& value) {
  ASSIGN_OR_RETURN(const std::string_view affix, value.StringOr(""));
  if (!affix.empty()) return value.Mismatch("null or an empty string");
  return absl::OkStatus();
}

}  // namespace

std::optional<std::string> BytesOfByteLevelToken(std::string_view spelling) {
  static const std::array<int16_t, 0x144> kByteOfCharacter =
      MakeByteOfCharacter();
  std::string bytes;
  size_t offset = 0;
  while (offset < spelling.size()) {
    const char32_t character = DecodeUtf8(spelling, &offset);
    if (character >= kByteOfCharacter.size() ||
        kByteOfCharacter[character] < 0) {
      return std::nullopt;
    }
    bytes.push_back(static_cast<char>(kByteOfCharacter[character]));
  }
  return bytes;
}

std::optional<uint8_t> ByteOfByteToken(std::string_view spelling) {
  if (spelling.size() != 6 || !spelling.starts_with("<0x") ||
      !spelling.ends_with('>')) {
    return std::nullopt;
  }
  const int high = HexDigit(spelling[3]);
  const int low = HexDigit(spelling[4]);
  if (high < 0 || low < 0) return std::nullopt;
  return static_cast<uint8_t>(high * 16 + low);
}

uint64_t Bpe::MergeTable::KeyOf(TokenId left, TokenId right) {
  return (uint64_t{static_cast<uint32_t>(left)} << 32) |
         static_cast<uint32_t>(right);
}

size_t Bpe::MergeTable::SlotOf(uint64_t key) const {
  // Fibonacci hashing: the high bits of the product are well mixed.
  return static_cast<size_t>((key * 0x9E3779B97F4A7C15u) >> shift_);
}

void Bpe::MergeTable::Reserve(size_t num_merges) {
  const size_t num_slots = std::bit_ceil(2 * num_merges + 2);
  slots_.assign(num_slots, Slot());
  shift_ = 64 - std::countr_zero(num_slots);
}

void Bpe::MergeTable::Insert(TokenId left, TokenId right, Merge merge) {
  const uint64_t key = KeyOf(left, right);
  size_t slot = SlotOf(key);
  while (slots_[slot].key != kEmpty && slots_[slot].key != key) {
    slot = (slot + 1) & (slots_.size() - 1);
  }
  slots_[slot] = {key, merge};
}

const Bpe::Merge* Bpe::MergeTable::Find(TokenId left, TokenId right) const {
  const uint64_t key = KeyOf(left, right);
  size_t slot = SlotOf(key);
  while (slots_[slot].key != key) {
    if (slots_[slot].key == kEmpty) return nullptr;
    slot = (slot + 1) & (slots_.size() - 1);
  }
  return &slots_[slot].merge;
}

absl::StatusOr<Bpe> Bpe::Parse(const JsonValue& model,
                               const Vocabulary& vocabulary,
                               bool is_byte_level) {
  Bpe bpe;
  bpe.is_byte_level_ = is_byte_level;
  ASSIGN_OR_RETURN(bpe.byte_fallback_, model["byte_fallback"].BoolOr(false));
  ASSIGN_OR_RETURN(bpe.fuse_unknown_, model["fuse_unk"].BoolOr(false));
  ASSIGN_OR_RETURN(bpe.ignore_merges_, model["ignore_merges"].BoolOr(false));
  if (const JsonValue dropout = model["dropout"]; dropout.exists()) {
    double probability = 1.0;
    if (dropout.element().get(probability) != simdjson::SUCCESS ||
        probability != 0.0) {
      return dropout.Mismatch("null or 0: encoding must not be random");
    }
  }
  RETURN_IF_ERROR(RefuseAffix(model["continuing_subword_prefix"]));
  RETURN_IF_ERROR(RefuseAffix(model["end_of_word_suffix"]));
  if (const JsonValue unknown = model["unk_token"]; unknown.exists()) {
    ASSIGN_OR_RETURN(const std::string_view token, unknown.String());
    const auto found = vocabulary.find(token);
    if (found == vocabulary.end()) {
      return unknown.Mismatch("a token of model.vocab");
    }
    bpe.unknown_id_ = found->second;
  }
  bpe.AddVocabulary(vocabulary);
  RETURN_IF_ERROR(bpe.ParseMerges(model["merges"], vocabulary));
  return bpe;
}

TokenId Bpe::PlaceholderOf(char32_t character) {
  return -2 - static_cast<TokenId>(character);
}

char32_t Bpe::CharacterOf(TokenId placeholder) {
  return static_cast<char32_t>(-2 - placeholder);
}

absl::StatusOr<Bpe> Bpe::FromRankedTokens(std::span<const RankedToken> tokens,
                                          const RankedOptions& options) {
  Bpe bpe;
  bpe.is_byte_level_ = options.is_byte_level;
  bpe.byte_ids_.fill(-1);
  if (options.is_byte_level) {
    bpe.ignore_merges_ = true;
    for (const RankedToken& token : tokens) {
      if (token.spelling.size() == 1) {
        bpe.byte_ids_[static_cast<uint8_t>(token.spelling[0])] = token.id;
      }
      bpe.word_ids_.emplace(token.spelling, token.id);
    }
  } else {
    bpe.merges_unknown_ = true;
    bpe.byte_fallback_ = options.byte_fallback;
    bpe.unknown_id_ = options.unknown_id;
    bpe.AddVocabulary(*options.characters);
  }
  RETURN_IF_ERROR(bpe.AddUnions(tokens));
  return bpe;
}

absl::Status Bpe::AddUnions(std::span<const RankedToken> tokens) {
  // What a symbol can be: one byte or character, or a union of them.
  std::unordered_map<std::string_view, TokenId> symbols;
  symbols.reserve(tokens.size());
  for (const RankedToken& token : tokens) {
    symbols.emplace(token.spelling, token.id);
  }
  const auto symbol_of = [&](std::string_view text) -> std::optional<TokenId> {
    size_t end = 1;
    if (!is_byte_level_) {
      end = 0;
      const char32_t character = DecodeUtf8(text, &end);
      if (end == text.size()) {
        const auto known = character_ids_.find(character);
        return known == character_ids_.end() ? PlaceholderOf(character)
                                             : known->second;
      }
    }
    const auto found = symbols.find(text);
    if (found == symbols.end()) return std::nullopt;
    return found->second;
  };
  struct Union {
    TokenId left;
    TokenId right;
    Merge merge;
  };
  std::vector<Union> unions;
  for (const RankedToken& token : tokens) {
    for (size_t cut = 1; cut < token.spelling.size(); ++cut) {
      if (!is_byte_level_ && (token.spelling[cut] & 0xC0) == 0x80) continue;
      const auto left = symbol_of(token.spelling.substr(0, cut));
      if (!left.has_value()) continue;
      const auto right = symbol_of(token.spelling.substr(cut));
      if (!right.has_value()) continue;
      if (unions.size() >= kMaxTokenizerMerges) {
        return ResourceExhausted("more than {} pairs of tokens may merge",
                                 kMaxTokenizerMerges);
      }
      unions.push_back({*left, *right, {token.rank, token.id}});
    }
  }
  merges_.Reserve(unions.size());
  for (const Union& pair : unions) {
    merges_.Insert(pair.left, pair.right, pair.merge);
  }
  return absl::OkStatus();
}

void Bpe::AddVocabulary(const Vocabulary& vocabulary) {
  byte_ids_.fill(-1);
  for (const auto& [spelling, id] : vocabulary) {
    if (is_byte_level_) {
      std::optional<std::string> bytes = BytesOfByteLevelToken(spelling);
      if (!bytes.has_value()) continue;  // no text can spell it
      if (bytes->size() == 1) byte_ids_[static_cast<uint8_t>((*bytes)[0])] = id;
      if (ignore_merges_) word_ids_.emplace(*std::move(bytes), id);
      continue;
    }
    size_t offset = 0;
    if (!spelling.empty()) {
      const char32_t first = DecodeUtf8(spelling, &offset);
      if (offset == spelling.size()) character_ids_.emplace(first, id);
    }
    // Only the spelling with capital letters takes part in the fallback.
    const std::optional<uint8_t> byte = ByteOfByteToken(spelling);
    if (byte_fallback_ && byte.has_value() &&
        spelling == fmt::format("<0x{:02X}>", *byte)) {
      byte_ids_[*byte] = id;
    }
    if (ignore_merges_) word_ids_.emplace(spelling, id);
  }
}

absl::Status Bpe::ParseMerges(const JsonValue& merges,
                              const Vocabulary& vocabulary) {
  simdjson::dom::array array;
  if (!merges.exists() || merges.element().get(array) != simdjson::SUCCESS) {
    return merges.Mismatch("an array");
  }
  // simdjson counts no further than 2^24 - 1.
  static_assert(kMaxTokenizerMerges < (size_t{1} << 24) - 1);
  if (array.size() > kMaxTokenizerMerges) {
    return InvalidArgument("{}: more than {} merges", merges.path(),
                           kMaxTokenizerMerges);
  }
  merges_.Reserve(array.size());
  uint32_t index = 0;
  std::string merged;
  for (simdjson::dom::element element : array) {
    const uint32_t rank = index++;
    const auto refuse = [&](std::string_view expected) {
      return JsonValue(element, fmt::format("{}[{}]", merges.path(), rank))
          .Mismatch(expected);
    };
    std::string_view left;
    std::string_view right;
    simdjson::dom::array pair;
    if (element.get(pair) == simdjson::SUCCESS) {
      if (pair.size() != 2 || pair.at(0).get(left) != simdjson::SUCCESS ||
          pair.at(1).get(right) != simdjson::SUCCESS) {
        return refuse("two tokens");
      }
    } else {
      std::string_view both;
      const bool is_string = element.get(both) == simdjson::SUCCESS;
      // The first line of a merges.txt, which older files took over.
      if (is_string && both.starts_with("#version")) continue;
      if (!is_string || std::count(both.begin(), both.end(), ' ') != 1) {
        return refuse("two tokens with a space between, or an array of them");
      }
      left = both.substr(0, both.find(' '));
      right = both.substr(both.find(' ') + 1);
    }
    merged = left;
    merged += right;
    const auto left_id = vocabulary.find(left);
    const auto right_id = vocabulary.find(right);
    const auto merged_id = vocabulary.find(merged);
    if (left_id == vocabulary.end() || right_id == vocabulary.end() ||
        merged_id == vocabulary.end()) {
      return refuse("both tokens and their union in model.vocab");
    }
    merges_.Insert(left_id->second, right_id->second,
                   {rank, merged_id->second});
  }
  return absl::OkStatus();
}

void Bpe::Encode(std::string_view word, Scratch* scratch,
                 std::vector<TokenId>* ids) const {
  if (ignore_merges_) {
    const auto found = word_ids_.find(word);
    if (found != word_ids_.end()) {
      ids->push_back(found->second);
      return;
    }
  }
  AddSymbols(word, scratch);
  ApplyMerges(scratch);
  AppendIds(*scratch, ids);
}

void Bpe::AppendIds(const Scratch& scratch, std::vector<TokenId>* ids) const {
  bool follows_unknown = false;
  for (const Scratch::Symbol& symbol : scratch.symbols) {
    if (symbol.merged_away) continue;
    if (symbol.id >= 0) {
      ids->push_back(symbol.id);
    } else if (byte_fallback_) {
      std::string character;
      AppendUtf8(CharacterOf(symbol.id), &character);
      for (char byte : character) {
        ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
      }
    } else if (!follows_unknown) {
      ids->push_back(*unknown_id_);
    }
    follows_unknown = symbol.id < 0;
  }
}

void Bpe::AddSymbols(std::string_view word, Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  symbols.clear();
  const auto add = [&](TokenId id) { symbols.push_back({id, 0, 0, false}); };
  // An unknown token is added only when something known follows, so that
  // neighbours can be fused into one.
  bool unknown_pending = false;
  const auto flush_unknown = [&] {
    if (unknown_pending) add(*unknown_id_);
    unknown_pending = false;
  };
  size_t offset = 0;
  while (offset < word.size()) {
    const size_t begin = offset;
    TokenId id = -1;
    if (is_byte_level_) {
      id = byte_ids_[static_cast<uint8_t>(word[offset++])];
    } else {
      const char32_t character = DecodeUtf8(word, &offset);
      const auto found = character_ids_.find(character);
      if (found != character_ids_.end()) {
        id = found->second;
      } else if (merges_unknown_) {
        add(PlaceholderOf(character));
        continue;
      }
    }
    if (id >= 0) {
      flush_unknown();
      add(id);
      continue;
    }
    const std::string_view character = word.substr(begin, offset - begin);
    const auto byte_id = [&](char byte) {
      return byte_ids_[static_cast<uint8_t>(byte)];
    };
    if (byte_fallback_ &&
        std::all_of(character.begin(), character.end(),
                    [&](char byte) { return byte_id(byte) >= 0; })) {
      for (char byte : character) add(byte_id(byte));
    } else if (unknown_id_.has_value()) {
      if (!fuse_unknown_) flush_unknown();
      unknown_pending = true;
    }
  }
  flush_unknown();
  for (size_t i = 0; i < symbols.size(); ++i) {
    symbols[i].previous = static_cast<int32_t>(i) - 1;
    symbols[i].next = i + 1 < symbols.size() ? static_cast<int32_t>(i) + 1 : -1;
  }
}

void Bpe::ApplyMerges(Scratch* scratch) const {
  std::vector<Scratch::Symbol>& symbols = scratch->symbols;
  std::vector<Scratch::Candidate>& heap = scratch->heap;
  const auto is_worse = [](const Scratch::Candidate& a,
                           const Scratch::Candidate& b) {
    return a.rank != b.rank ? a.rank > b.rank : a.position > b.position;
  };
  heap.clear();
  const auto push = [&](int32_t position) {
    ++scratch->num_lookups_;
    const Scratch::Symbol& left = symbols[position];
    const Merge* merge = merges_.Find(left.id, symbols[left.next].id);
    if (merge == nullptr) return false;
    heap.push_back({merge->rank, position, merge->merged_id});
    return true;
  };
  for (size_t i = 0; i + 1 < symbols.size(); ++i) {
    push(static_cast<int32_t>(i));
  }
  std::make_heap(heap.begin(), heap.end(), is_worse);
  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end(), is_worse);
    const Scratch::Candidate best = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[best.position];
    if (left.merged_away || left.next < 0) continue;
    Scratch::Symbol& right = symbols[left.next];
    // Out of date when one of the two has grown since.
    const Merge* merge = merges_.Find(left.id, right.id);
    if (merge == nullptr || merge->merged_id != best.merged_id) continue;
    left.id = best.merged_id;
    left.next = right.next;
    right.merged_away = true;
    if (left.next >= 0) {
      symbols[left.next].previous = best.position;
      if (push(best.position)) {
        std::push_heap(heap.begin(), heap.end(), is_worse);
      }
    }
    if (left.previous >= 0 && push(left.previous)) {
      std::push_heap(heap.begin(), heap.end(), is_worse);
    }
  }
}

}  // namespace witan
