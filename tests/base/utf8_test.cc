#include "base/utf8.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>

namespace witan {
namespace {

// An encoder that shares nothing with the checker.
std::string Encode(uint32_t c) {
  std::string out;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
    out += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 63));
    out += static_cast<char>(0x80 | (c >> 6 & 63));
    out += static_cast<char>(0x80 | (c & 63));
  }
  return out;
}

TEST(Utf8Test, ExactlyTheScalarValuesAreValid) {
  for (uint32_t c = 0; c < 0x1FFFFF; ++c) {
    const bool is_scalar = c <= 0x10FFFF && !(c >= 0xD800 && c <= 0xDFFF);
    ASSERT_EQ(IsValidUtf8(Encode(c)), is_scalar) << std::hex << c;
  }
}

TEST(Utf8Test, OverlongFormsAndFragmentsAreInvalid) {
  for (const char* text :
       {"\xC0\x80", "\xC1\xBF", "\xE0\x80\x80", "\xE0\x9F\xBF",
        "\xF0\x80\x80\x80", "\xF0\x8F\xBF\xBF", "\x80", "\xBF", "\xC3",
        "\xE2\x82", "\xF0\x9F\x98", "\xC3(", "\xE2(\x82", "\xF5\x80\x80\x80",
        "\xFE", "\xFF"}) {
    EXPECT_FALSE(IsValidUtf8(text)) << text;
  }
}

TEST(Utf8Test, ThePrefixEndsAtTheFirstBadByte) {
  EXPECT_EQ(ValidUtf8Prefix("a\xC3\xA9\xFFz"), 3u);
  EXPECT_EQ(ValidUtf8Prefix(""), 0u);
  EXPECT_EQ(ValidUtf8Prefix("\xE2\x82"), 0u);
}

// Expected values from Python: bytes.decode("utf-8", "replace").
TEST(Utf8Test, EachPartThatCouldHaveBegunACharacterIsReplacedOnce) {
  const std::string bad = "\xEF\xBF\xBD";
  EXPECT_EQ(ReplaceInvalidUtf8("h\xC3\xA9"), "h\xC3\xA9");
  EXPECT_EQ(ReplaceInvalidUtf8(""), "");
  EXPECT_EQ(ReplaceInvalidUtf8("a\xFF"
                               "b\xE2\x82"),
            "a" + bad + "b" + bad);
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x9F\x98z"), bad + "z");
  EXPECT_EQ(ReplaceInvalidUtf8("\xF0\x80\x80\x41"), bad + bad + bad + "A");
  EXPECT_EQ(ReplaceInvalidUtf8("\xED\xA0\x80"), bad + bad + bad);
  EXPECT_EQ(ReplaceInvalidUtf8("\xE2\x82\xE2\x82\xAC"), bad + "\xE2\x82\xAC");
}

}  // namespace
}  // namespace witan
