#include "model/gguf.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "tests/testing/gguf_file.h"

namespace witan {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr uint64_t kHuge = std::numeric_limits<uint64_t>::max();
constexpr auto kF32 = static_cast<uint32_t>(GgmlType::kF32);
constexpr auto kQ8_0 = static_cast<uint32_t>(GgmlType::kQ8_0);

// Parses a copy of exactly the right size on the heap, so that a sanitizer
// sees every byte that is read beyond it.
class Parsed {
 public:
  explicit Parsed(const std::string& file)
      : bytes_(std::make_unique<std::byte[]>(file.size())) {
    std::memcpy(bytes_.get(), file.data(), file.size());
    gguf_ = ParseGguf({bytes_.get(), file.size()});
  }
  const absl::StatusOr<Gguf>& operator*() const { return gguf_; }
  std::string error() const {
    if (gguf_.ok()) return "accepted";
    EXPECT_EQ(gguf_.status().code(), absl::StatusCode::kInvalidArgument);
    return std::string(MessageOf(gguf_.status()));
  }

 private:
  std::unique_ptr<std::byte[]> bytes_;
  absl::StatusOr<Gguf> gguf_ = Internal("not parsed");
};

std::string ErrorOf(const std::string& file) { return Parsed(file).error(); }

GgufFile Small() {
  GgufFile file;
  file.Text("general.architecture", "llama")
      .Integer("llama.block_count", 2)
      .Float("llama.epsilon", 1e-5F)
      .Bool("yes", true)
      .Texts("words", {"a", "", "größe"})
      .Integers("types", {1, -2})
      .Floats("scores", {0.5F})
      .Tensor("first.weight", kF32, {3, 2}, std::string(24, 'a'))
      .Tensor("second.weight", kQ8_0, {64}, std::string(68, 'b'));
  return file;
}

TEST(GgufTest, ReadsKeysAndTensors) {
  const Parsed parsed(Small().Bytes());
  ASSERT_TRUE((*parsed).ok()) << parsed.error();
  const Gguf& gguf = **parsed;
  EXPECT_EQ(std::get<std::string_view>(*gguf.Find("general.architecture")),
            "llama");
  EXPECT_EQ(std::get<uint64_t>(*gguf.Find("llama.block_count")), 2u);
  EXPECT_EQ(std::get<double>(*gguf.Find("llama.epsilon")), double{1e-5F});
  EXPECT_TRUE(std::get<bool>(*gguf.Find("yes")));
  EXPECT_THAT(std::get<std::vector<std::string_view>>(*gguf.Find("words")),
              ElementsAre("a", "", "größe"));
  EXPECT_THAT(std::get<std::vector<int64_t>>(*gguf.Find("types")),
              ElementsAre(1, -2));
  EXPECT_THAT(std::get<std::vector<double>>(*gguf.Find("scores")),
              ElementsAre(0.5));
  EXPECT_EQ(gguf.Find("none"), nullptr);
  ASSERT_EQ(gguf.tensors.size(), 2u);
  EXPECT_EQ(gguf.tensors[0].name, "first.weight");
  EXPECT_THAT(gguf.tensors[0].shape, ElementsAre(2, 3));
  EXPECT_EQ(gguf.tensors[0].data.size(), 24u);
  EXPECT_EQ(gguf.tensors[0].data.front(), std::byte{'a'});
  EXPECT_EQ(gguf.tensors[1].type, GgmlType::kQ8_0);
  EXPECT_EQ(gguf.tensors[1].data.size(), 68u);
  EXPECT_EQ(gguf.tensors[1].data.back(), std::byte{'b'});
}

TEST(GgufTest, EveryPrefixOfAFileIsRefused) {
  const std::string file = Small().Bytes();
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_NE(ErrorOf(file.substr(0, size)), "accepted") << size;
  }
  EXPECT_EQ(ErrorOf(file), "accepted");
}

TEST(GgufTest, OtherFilesAndVersionsAreRefusedWithTheReason) {
  EXPECT_THAT(ErrorOf("PK\x03\x04 and so on"), HasSubstr("no GGUF file"));
  GgufFile file = Small();
  file.version = 1;
  EXPECT_THAT(ErrorOf(file.Bytes()),
              AllOf(HasSubstr("version is 1"), HasSubstr("2 or 3")));
  file.version = 0x03000000;
  EXPECT_THAT(ErrorOf(file.Bytes()), HasSubstr("big-endian"));
  file.version = 2;
  EXPECT_EQ(ErrorOf(file.Bytes()), "accepted");
}

TEST(GgufTest, AbsurdCountsAreRefusedBeforeAnythingIsReserved) {
  for (const uint64_t more : {uint64_t{1} << 20, kHuge / 8, kHuge - 9}) {
    GgufFile file = Small();
    file.more_keys = more;
    EXPECT_THAT(ErrorOf(file.Bytes()), HasSubstr("the number of keys is"));
    file.more_keys = 0;
    file.more_tensors = more;
    EXPECT_THAT(ErrorOf(file.Bytes()), HasSubstr("the number of tensors is"));
  }
  for (const uint32_t type : {GgufFile::kUint8, GgufFile::kString,
                              GgufFile::kUint64, GgufFile::kBool}) {
    for (const uint64_t count : {uint64_t{1} << 40, kHuge, kHuge / 8 + 1}) {
      const std::string value = GgufBytes(type) + GgufBytes(count);
      EXPECT_THAT(ErrorOf(GgufFile().Key("k", GgufFile::kArray, value).Bytes()),
                  AllOf(HasSubstr("\"k\""), HasSubstr(std::to_string(count))));
    }
  }
}

TEST(GgufTest, ListsTakeNoMoreMemoryThanTheLimitAllows) {
  const uint64_t count = kMaxGgufListElements / 2 + 1;
  const std::string value =
      GgufBytes(GgufFile::kUint8) + GgufBytes(count) + std::string(count, '\1');
  GgufFile file;
  file.Key("one", GgufFile::kArray, value);
  EXPECT_EQ(ErrorOf(file.Bytes()), "accepted");
  file.Key("two", GgufFile::kArray, value);
  EXPECT_THAT(ErrorOf(file.Bytes()), HasSubstr("in all lists together"));
}

TEST(GgufTest, LengthsOfStringsNearTheEndOfNumbersAreRefused) {
  for (const uint64_t length : {kHuge, kHuge - 7, kHuge / 2, uint64_t{1000}}) {
    const std::string text = GgufBytes(length) + "abc";
    EXPECT_THAT(ErrorOf(GgufFile().Key("k", GgufFile::kString, text).Bytes()),
                HasSubstr(std::to_string(length)));
    std::string file = GgufFile().Integer("k", 1).Bytes();
    file.replace(24, 8, GgufBytes(length));
    EXPECT_THAT(ErrorOf(file), HasSubstr(std::to_string(length)));
  }
}

TEST(GgufTest, UglyKeysAreRefusedByName) {
  EXPECT_THAT(ErrorOf(GgufFile().Integer("", 1).Bytes()),
              HasSubstr("1 to 1024 bytes"));
  EXPECT_THAT(ErrorOf(GgufFile().Integer("\xff", 1).Bytes()),
              HasSubstr("UTF-8"));
  EXPECT_THAT(ErrorOf(GgufFile().Integer(std::string(1025, 'k'), 1).Bytes()),
              HasSubstr("1 to 1024 bytes"));
  EXPECT_THAT(ErrorOf(GgufFile().Integer("k", 1).Integer("k", 1).Bytes()),
              HasSubstr("\"k\" occurs twice"));
  EXPECT_THAT(ErrorOf(GgufFile().Key("k", 13, "1234").Bytes()),
              HasSubstr("of type 13"));
  EXPECT_THAT(ErrorOf(GgufFile().Key("k", GgufFile::kBool, "\2").Bytes()),
              HasSubstr("0 or 1"));
  const std::string list_of_lists =
      GgufBytes(GgufFile::kArray) + GgufBytes(uint64_t{1});
  EXPECT_THAT(
      ErrorOf(GgufFile().Key("k", GgufFile::kArray, list_of_lists).Bytes()),
      HasSubstr("list of lists"));
}

TEST(GgufTest, AlignmentsMustBePowersOfTwo) {
  for (const uint32_t alignment : {0u, 1u, 7u, 24u, 1u << 17, 0xffffffffu}) {
    EXPECT_THAT(
        ErrorOf(GgufFile().Integer("general.alignment", alignment).Bytes()),
        AllOf(HasSubstr("general.alignment"), HasSubstr("power of two")));
  }
  EXPECT_THAT(ErrorOf(GgufFile().Text("general.alignment", "32").Bytes()),
              HasSubstr("power of two"));
  GgufFile file;
  file.alignment = 64;
  file.Integer("general.alignment", 64)
      .Tensor("a", kF32, {1}, "1234")
      .Tensor("b", kF32, {1}, "5678");
  EXPECT_EQ(ErrorOf(file.Bytes()), "accepted");
}

TEST(GgufTest, UglyTensorsAreRefusedByName) {
  const auto error_of = [](uint32_t type,
                           const std::vector<uint64_t>& dimensions) {
    return ErrorOf(
        GgufFile().Tensor("t", type, dimensions, std::string(64, 'x')).Bytes());
  };
  EXPECT_THAT(error_of(kF32, {}), HasSubstr("\"t\" has 0 dimensions"));
  EXPECT_THAT(error_of(kF32, {1, 1, 1, 1, 1}), HasSubstr("has 5 dimensions"));
  EXPECT_THAT(error_of(kF32, {0}), HasSubstr("a dimension of 0"));
  EXPECT_THAT(error_of(kF32, {kHuge}), HasSubstr("2^60"));
  EXPECT_THAT(error_of(kF32, {uint64_t{1} << 32, uint64_t{1} << 32}),
              HasSubstr("2^60"));
  EXPECT_THAT(error_of(kF32, {uint64_t{1} << 59}), HasSubstr("cut short"));
  EXPECT_THAT(error_of(kF32, {17}), HasSubstr("has 64"));
  EXPECT_THAT(error_of(kQ8_0, {33}), HasSubstr("a multiple of 32"));
  // IQ2_XXS, which needs tables, a type that was taken out, and none.
  for (const uint32_t type : {16u, 4u, 1000u}) {
    EXPECT_THAT(error_of(type, {32}),
                AllOf(HasSubstr(std::to_string(type)), HasSubstr("Q4_K")));
  }
  EXPECT_EQ(error_of(kF32, {16}), "accepted");
}

TEST(GgufTest, TensorsLieInTheFileAlignedAndApart) {
  const auto error_of = [](uint64_t offset) {
    return ErrorOf(GgufFile()
                       .Tensor("a", kF32, {16}, std::string(64, 'x'))
                       .TensorAt(offset, "b", kF32, {16}, std::string(64, 'x'))
                       .Bytes());
  };
  EXPECT_EQ(error_of(64), "accepted");
  EXPECT_THAT(error_of(0), HasSubstr("overlaps"));
  EXPECT_THAT(error_of(32), HasSubstr("overlaps"));
  EXPECT_THAT(error_of(68), HasSubstr("a multiple of 32"));
  EXPECT_THAT(error_of(96), HasSubstr("at offset 96"));
  EXPECT_THAT(error_of(kHuge - 31), HasSubstr("at offset 184467440737095515"));
  EXPECT_THAT(ErrorOf(GgufFile()
                          .Tensor("same", kF32, {1}, "1234")
                          .Tensor("same", kF32, {1}, "1234")
                          .Bytes()),
              HasSubstr("\"same\" occurs twice"));
}

}  // namespace
}  // namespace witan
