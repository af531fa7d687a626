#include "base/utf8.h"

#include <cstdint>

namespace witan {

namespace {

bool InRange(char byte, uint8_t low, uint8_t high) {
  const uint8_t value = static_cast<uint8_t>(byte);
  return low <= value && value <= high;
}

}  // namespace

Utf8Step NextUtf8(std::string_view bytes) {
  const uint8_t lead = static_cast<uint8_t>(bytes[0]);
  if (lead < 0x80) return {Utf8Step::kCharacter, 1};
  // Bounds of the second byte keep out overlong forms, surrogates and what
  // lies beyond U+10FFFF.
  size_t num_bytes = 0;
  uint8_t low = 0x80;
  uint8_t high = 0xBF;
  if (lead >= 0xC2 && lead <= 0xDF) {
    num_bytes = 2;
  } else if (lead >= 0xE0 && lead <= 0xEF) {
    num_bytes = 3;
    if (lead == 0xE0) low = 0xA0;
    if (lead == 0xED) high = 0x9F;
  } else if (lead >= 0xF0 && lead <= 0xF4) {
    num_bytes = 4;
    if (lead == 0xF0) low = 0x90;
    if (lead == 0xF4) high = 0x8F;
  } else {
    return {Utf8Step::kInvalid, 1};
  }
  for (size_t i = 1; i < num_bytes; ++i) {
    if (i == bytes.size()) return {Utf8Step::kIncomplete, i};
    if (!InRange(bytes[i], low, high)) return {Utf8Step::kInvalid, i};
    low = 0x80;
    high = 0xBF;
  }
  return {Utf8Step::kCharacter, num_bytes};
}

size_t ValidUtf8Prefix(std::string_view text) {
  size_t position = 0;
  while (position < text.size()) {
    const Utf8Step step = NextUtf8(text.substr(position));
    if (step.kind != Utf8Step::kCharacter) break;
    position += step.num_bytes;
  }
  return position;
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string out;
  while (!text.empty()) {
    const size_t valid = ValidUtf8Prefix(text);
    out += text.substr(0, valid);
    text.remove_prefix(valid);
    if (text.empty()) break;
    out += kReplacementCharacter;
    text.remove_prefix(NextUtf8(text).num_bytes);
  }
  return out;
}

char32_t DecodeUtf8(std::string_view text, size_t* offset) {
  const auto byte = [&](size_t i) {
    return static_cast<uint8_t>(text[*offset + i]);
  };
  const uint8_t lead = byte(0);
  char32_t character = lead;
  size_t num_bytes = 1;
  if (lead >= 0xF0) {
    character = lead & 0x07;
    num_bytes = 4;
  } else if (lead >= 0xE0) {
    character = lead & 0x0F;
    num_bytes = 3;
  } else if (lead >= 0x80) {
    character = lead & 0x1F;
    num_bytes = 2;
  }
  for (size_t i = 1; i < num_bytes; ++i) {
    character = (character << 6) | (byte(i) & 0x3F);
  }
  *offset += num_bytes;
  return character;
}

void AppendUtf8(char32_t character, std::string* text) {
  const auto append = [&](char32_t byte) {
    text->push_back(static_cast<char>(byte));
  };
  if (character < 0x80) {
    append(character);
  } else if (character < 0x800) {
    append(0xC0 | (character >> 6));
    append(0x80 | (character & 0x3F));
  } else if (character < 0x10000) {
    append(0xE0 | (character >> 12));
    append(0x80 | ((character >> 6) & 0x3F));
    append(0x80 | (character & 0x3F));
  } else {
    append(0xF0 | (character >> 18));
    append(0x80 | ((character >> 12) & 0x3F));
    append(0x80 | ((character >> 6) & 0x3F));
    append(0x80 | (character & 0x3F));
  }
}

bool IsWhiteSpace(char32_t character) {
  return (character >= 0x09 && character <= 0x0D) || character == 0x20 ||
         character == 0x85 || character == 0xA0 || character == 0x1680 ||
         (character >= 0x2000 && character <= 0x200A) || character == 0x2028 ||
         character == 0x2029 || character == 0x202F || character == 0x205F ||
         character == 0x3000;
}

size_t CountUtf8(std::string_view text) {
  size_t count = 0;
  for (char byte : text) count += (byte & 0xC0) != 0x80;
  return count;
}

}  // namespace witan
