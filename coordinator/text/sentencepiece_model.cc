#include "coordinator/text/sentencepiece_model.h"

#include <cmath>
#include <unordered_map>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "coordinator/text/bpe.h"
#include "coordinator/text/protobuf_reader.h"

namespace witan {

namespace {

using Piece = SentencePieceModel::Piece;
using Kind = SentencePieceModel::Kind;

absl::StatusOr<Piece> ReadPiece(std::string_view message) {
  Piece piece;
  ProtobufReader reader(message);
  ProtobufField field;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader.Next(&field));
    if (!found) break;
    if (field.number() == 1) {
      ASSIGN_OR_RETURN(piece.text, field.Bytes("piece"));
    } else if (field.number() == 2) {
      ASSIGN_OR_RETURN(piece.score, field.Float("score"));
    } else if (field.number() == 3) {
      ASSIGN_OR_RETURN(const uint64_t kind, field.Varint("type"));
      if (kind < 1 || kind > 6) {
        return InvalidArgument("type: got {}; expected 1 to 6", kind);
      }
      piece.kind = static_cast<Kind>(kind);
    }
  }
  if (piece.text.empty() || piece.text.size() > kMaxTokenSpellingBytes) {
    return InvalidArgument("piece: {} bytes; allowed: 1 to {}",
                           piece.text.size(), kMaxTokenSpellingBytes);
  }
  if (!IsValidUtf8(piece.text)) return InvalidArgument("piece: not UTF-8");
  if (!std::isfinite(piece.score)) {
    return InvalidArgument("score: got {}; expected a finite number",
                           piece.score);
  }
  return piece;
}

absl::Status ReadTrainerSpec(std::string_view message,
                             SentencePieceModel* model) {
  ProtobufReader reader(message);
  ProtobufField field;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader.Next(&field));
    if (!found) return absl::OkStatus();
    switch (field.number()) {
      case 3: {
        ASSIGN_OR_RETURN(const uint64_t type, field.Varint("model_type"));
        if (type != 1 && type != 2) {
          return InvalidArgument(
              "model_type: got {}; expected 1 (UNIGRAM) or 2 (BPE)", type);
        }
        model->algorithm = static_cast<SentencePieceModel::Algorithm>(type);
        break;
      }
      case 24: {
        ASSIGN_OR_RETURN(model->treat_whitespace_as_suffix,
                         field.Bool("treat_whitespace_as_suffix"));
        break;
      }
      case 35: {
        ASSIGN_OR_RETURN(model->byte_fallback, field.Bool("byte_fallback"));
        break;
      }
      case 44: {
        ASSIGN_OR_RETURN(model->unknown_surface, field.Bytes("unk_surface"));
        if (model->unknown_surface.size() > kMaxTokenSpellingBytes ||
            !IsValidUtf8(model->unknown_surface)) {
          return InvalidArgument(
              "unk_surface: expected at most {} bytes, UTF-8",
              kMaxTokenSpellingBytes);
        }
        break;
      }
      case 46: {
        ASSIGN_OR_RETURN(model->bos_piece, field.Bytes("bos_piece"));
        break;
      }
      case 47: {
        ASSIGN_OR_RETURN(model->eos_piece, field.Bytes("eos_piece"));
        break;
      }
      default:
        break;
    }
  }
}

absl::Status ReadNormalizerSpec(std::string_view message,
                                SentencePieceModel* model) {
  ProtobufReader reader(message);
  ProtobufField field;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader.Next(&field));
    if (!found) return absl::OkStatus();
    if (field.number() == 2) {
      ASSIGN_OR_RETURN(model->precompiled_charsmap,
                       field.Bytes("precompiled_charsmap"));
    } else if (field.number() == 3) {
      ASSIGN_OR_RETURN(model->add_dummy_prefix, field.Bool("add_dummy_prefix"));
    } else if (field.number() == 4) {
      ASSIGN_OR_RETURN(model->remove_extra_whitespaces,
                       field.Bool("remove_extra_whitespaces"));
    } else if (field.number() == 5) {
      ASSIGN_OR_RETURN(model->escape_whitespaces,
                       field.Bool("escape_whitespaces"));
    }
  }
}

// What decides about decoding and is not supported.
absl::Status CheckDenormalizerSpec(std::string_view message) {
  ProtobufReader reader(message);
  ProtobufField field;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader.Next(&field));
    if (!found) return absl::OkStatus();
    if (field.number() != 2) continue;
    ASSIGN_OR_RETURN(const std::string_view charsmap,
                     field.Bytes("precompiled_charsmap"));
    if (!charsmap.empty()) {
      return InvalidArgument(
          "precompiled_charsmap: got {} bytes; expected none: text is decoded "
          "as it comes and cannot be rewritten as a whole",
          charsmap.size());
    }
  }
}

absl::Status ReadFile(std::string_view file, SentencePieceModel* model) {
  ProtobufReader reader(file);
  ProtobufField field;
  for (;;) {
    ASSIGN_OR_RETURN(const bool found, reader.Next(&field));
    if (!found) return absl::OkStatus();
    switch (field.number()) {
      case 1: {
        if (model->pieces.size() >= static_cast<size_t>(kMaxVocabSize)) {
          return InvalidArgument("pieces: more than {}", kMaxVocabSize);
        }
        ASSIGN_OR_RETURN(const std::string_view message, field.Bytes("pieces"));
        absl::StatusOr<Piece> piece = ReadPiece(message);
        if (!piece.ok()) {
          return Annotate(piece.status(),
                          fmt::format("pieces[{}]", model->pieces.size()));
        }
        model->pieces.push_back(*std::move(piece));
        break;
      }
      case 2: {
        ASSIGN_OR_RETURN(const std::string_view message,
                         field.Bytes("trainer_spec"));
        RETURN_IF_ERROR(
            Annotate(ReadTrainerSpec(message, model), "trainer_spec"));
        break;
      }
      case 3: {
        ASSIGN_OR_RETURN(const std::string_view message,
                         field.Bytes("normalizer_spec"));
        RETURN_IF_ERROR(
            Annotate(ReadNormalizerSpec(message, model), "normalizer_spec"));
        break;
      }
      case 5: {
        ASSIGN_OR_RETURN(const std::string_view message,
                         field.Bytes("denormalizer_spec"));
        RETURN_IF_ERROR(
            Annotate(CheckDenormalizerSpec(message), "denormalizer_spec"));
        break;
      }
      default:
        break;
    }
  }
}

// One unknown piece, all bytes or none, every spelling once.
absl::Status CheckPieces(SentencePieceModel* model) {
  std::unordered_map<std::string_view, size_t> seen;
  bool has_unknown = false;
  size_t num_bytes = 0;
  for (size_t id = 0; id < model->pieces.size(); ++id) {
    const Piece& piece = model->pieces[id];
    const auto [entry, inserted] = seen.emplace(piece.text, id);
    if (!inserted) {
      return InvalidArgument("pieces[{}]: '{}' is also pieces[{}]", id,
                             piece.text, entry->second);
    }
    const auto token_id = static_cast<TokenId>(id);
    if (piece.kind == Kind::kUnknown) {
      if (has_unknown) {
        return InvalidArgument("pieces[{}]: a second one of type UNKNOWN", id);
      }
      has_unknown = true;
      model->unknown_id = token_id;
    } else if (piece.kind == Kind::kByte) {
      const std::optional<uint8_t> byte = ByteOfByteToken(piece.text);
      if (!byte.has_value() || piece.text != fmt::format("<0x{:02X}>", *byte)) {
        return InvalidArgument(
            "pieces[{}]: got '{}' for a BYTE; expected <0x00> to <0xFF>", id,
            piece.text);
      }
      ++num_bytes;
    } else if (piece.kind == Kind::kControl) {
      if (piece.text == model->bos_piece) model->bos_id = token_id;
      if (piece.text == model->eos_piece) model->eos_id = token_id;
    } else if (piece.kind == Kind::kUnused &&
               model->algorithm == SentencePieceModel::Algorithm::kBpe) {
      return InvalidArgument(
          "pieces[{}]: type UNUSED is not supported in a BPE model", id);
    }
  }
  if (!has_unknown) return InvalidArgument("pieces: none has type UNKNOWN");
  if (num_bytes != 0 && !model->byte_fallback) {
    return InvalidArgument(
        "pieces: {} of type BYTE, but trainer_spec.byte_fallback is false",
        num_bytes);
  }
  if (model->byte_fallback && num_bytes != 256) {
    return InvalidArgument(
        "pieces: {} of type BYTE; trainer_spec.byte_fallback needs 256",
        num_bytes);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<SentencePieceModel> SentencePieceModel::Parse(
    std::string_view file) {
  SentencePieceModel model;
  RETURN_IF_ERROR(Annotate(ReadFile(file, &model), "tokenizer.model"));
  RETURN_IF_ERROR(Annotate(CheckPieces(&model), "tokenizer.model"));
  return model;
}

}  // namespace witan
