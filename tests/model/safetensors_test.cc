#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstring>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>

#include "base/limits.h"
#include "base/status.h"
#include "model/checkpoint.h"
#include "model/safetensors_header.h"
#include "tests/testing/half.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

using Json = nlohmann::ordered_json;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// A file with this header text, `data_size` bytes of data, and a header length
// that is true unless given.
std::string FileOf(const std::string& header, size_t data_size,
                   std::optional<uint64_t> header_length = std::nullopt) {
  const uint64_t length = header_length.value_or(header.size());
  std::string file;
  for (int i = 0; i < 8; ++i) {
    file += static_cast<char>((length >> (8 * i)) & 0xff);
  }
  return file + header + std::string(data_size, 'x');
}

// Parses a copy of exactly the right size on the heap, so that a sanitizer
// sees every byte that is read beyond it.
absl::StatusOr<std::vector<TensorEntry>> Parse(const std::string& file) {
  const auto copy = std::make_unique<std::byte[]>(file.size());
  std::memcpy(copy.get(), file.data(), file.size());
  return ParseSafetensors({copy.get(), file.size()});
}

std::string ErrorOf(const std::string& file) {
  const auto entries = Parse(file);
  if (entries.ok()) return "accepted";
  EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(MessageOf(entries.status()));
}

std::string OpenError(const std::string& directory) {
  const auto checkpoint = Checkpoint::Open(directory);
  if (checkpoint.ok()) return "accepted";
  return std::string(MessageOf(checkpoint.status()));
}

// Two tensors: "a" F32 [2, 3] at [0, 24), "b" BF16 [4] at [24, 32).
std::map<std::string, StoredTensor> TwoTensors() {
  return {{"a", {"F32", {2, 3}, "abcdefghijklmnopqrstuvwx"}},
          {"b", {"BF16", {4}, "ABCDEFGH"}}};
}

TEST(SafetensorsTest, ReadsWhatThePythonImplementationWrote) {
  const TempDirectory directory;
  std::filesystem::copy(WITAN_SOURCE_DIR "/tests/model/data/python.safetensors",
                        directory.path() + "/model.safetensors");
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  struct Expected {
    const char* name;
    DType dtype;
    std::vector<int64_t> shape;
  };
  const Expected expected[] = {
      {"scalar", DType::kF32, {}},      {"vector", DType::kF16, {5}},
      {"matrix", DType::kBF16, {3, 4}}, {"cube", DType::kI32, {2, 3, 2}},
      {"empty", DType::kF32, {0, 3}},   {"größe.名前", DType::kBF16, {2, 2}}};
  EXPECT_EQ((*checkpoint)->tensors().size(), std::size(expected));
  int64_t n = 0;
  for (const auto& [name, dtype, shape] : expected) {
    const MappedTensor* tensor = (*checkpoint)->Find(name);
    ASSERT_NE(tensor, nullptr) << name;
    EXPECT_EQ(tensor->dtype, dtype) << name;
    EXPECT_EQ(tensor->shape, shape) << name;
    size_t num_elements = 1;
    for (const int64_t size : shape) num_elements *= static_cast<size_t>(size);
    ASSERT_EQ(tensor->data.size(), num_elements * SizeOf(dtype)) << name;
    for (size_t i = 0; i < num_elements; ++i) {
      const auto step = (7 * static_cast<int64_t>(i) + n) % 13 - 6;
      const std::byte* at = tensor->data.data() + i * SizeOf(dtype);
      if (dtype == DType::kI32) {
        int32_t value = 0;
        std::memcpy(&value, at, 4);
        EXPECT_EQ(value, step) << name << " " << i;
        continue;
      }
      float value = 0;
      if (dtype == DType::kF32) {
        std::memcpy(&value, at, 4);
      } else if (dtype == DType::kF16) {
        uint16_t half = 0;
        std::memcpy(&half, at, 2);
        value = FloatOfHalf(half);
      } else {
        std::memcpy(reinterpret_cast<char*>(&value) + 2, at, 2);
      }
      EXPECT_EQ(value, static_cast<float>(step) / 4) << name << " " << i;
    }
    ++n;
  }
  EXPECT_EQ((*checkpoint)->Find("größe"), nullptr);
}

TEST(SafetensorsTest, TensorsPointIntoTheFile) {
  const TempDirectory directory;
  const std::string file = SafetensorsFile(TwoTensors());
  directory.Write("model.safetensors", file);
  const auto checkpoint = Checkpoint::Open(directory.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  const MappedTensor* b = (*checkpoint)->Find("b");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(std::string(reinterpret_cast<const char*>(b->data.data()), 8),
            "ABCDEFGH");
  EXPECT_EQ(file.substr(static_cast<size_t>(b->file_offset), 8), "ABCDEFGH");
  const FileIdentity& identity = (*checkpoint)->file_identities()[0];
  struct stat info = {};
  ASSERT_EQ(stat((*checkpoint)->files()[0].c_str(), &info), 0);
  EXPECT_EQ(identity.inode, info.st_ino);
  EXPECT_EQ(identity.size_bytes, static_cast<int64_t>(file.size()));
}

TEST(SafetensorsTest, EveryPrefixOfAFileIsRefused) {
  const std::string file = SafetensorsFile(TwoTensors());
  ASSERT_TRUE(Parse(file).ok());
  for (size_t size = 0; size < file.size(); ++size) {
    EXPECT_THAT(ErrorOf(file.substr(0, size)), HasSubstr("truncated"))
        << size << " of " << file.size();
  }
  EXPECT_THAT(ErrorOf(file + "y"), HasSubstr("1 bytes after the last tensor"));
}

TEST(SafetensorsTest, ATruncatedFileOnDiskIsRefusedAndNamed) {
  // Longer than a page, so that a wrong reader would touch unmapped memory.
  const TempDirectory directory;
  const std::string file =
      SafetensorsFile({{"long", {"F32", {5000}, std::string(20000, 'z')}}});
  for (const size_t size : {size_t{0}, size_t{7}, size_t{8}, size_t{20},
                            size_t{4096}, size_t{8192}, file.size() - 1}) {
    const std::string path =
        directory.Write("model.safetensors", file.substr(0, size));
    EXPECT_THAT(OpenError(directory.path()),
                AllOf(HasSubstr(path), HasSubstr("truncated")));
  }
}

TEST(SafetensorsTest, UglyHeadersAreRefusedWithTheReason) {
  const auto tensor = [](const std::string& fields) {
    return "{\"a\":{" + fields + "}}";
  };
  const std::string good_dtype = R"("dtype":"F32",)";
  const std::string good_offsets = R"(,"data_offsets":[0,8])";
  const auto shaped = [&](const std::string& shape) {
    return tensor(good_dtype + "\"shape\":" + shape + good_offsets);
  };
  const auto placed = [&](const std::string& offsets) {
    return tensor(good_dtype + "\"shape\":[2],\"data_offsets\":" + offsets);
  };
  const auto typed = [&](const std::string& dtype) {
    return tensor("\"dtype\":" + dtype + ",\"shape\":[2]" + good_offsets);
  };
  ASSERT_EQ(ErrorOf(FileOf(shaped("[2]"), 8)), "accepted");
  ASSERT_EQ(ErrorOf(FileOf(shaped("[2]") + "   ", 8)), "accepted");
  const std::pair<std::string, const char*> cases[] = {
      // Not the JSON of a header.
      {"", "must be a JSON object"},
      {" {}", "must be a JSON object"},
      {"[]", "must be a JSON object"},
      {"{", "not valid JSON"},
      {"{}}", "not valid JSON"},
      {"{\"a\":}", "not valid JSON"},
      {"{\"\xff\":{}}", "not valid JSON"},
      {"{\"a\":1}", "tensor \"a\" is 1; allowed is a JSON object"},
      {"{\"a\":[]}", "tensor \"a\" is a list"},
      {"{\"a\":null}", "tensor \"a\" is null"},
      {"{\"__metadata__\":1}", "\"__metadata__\" is 1"},
      {"{\"__metadata__\":{\"k\":1}}",
       "__metadata__ \"k\" is 1; allowed is a "
       "string"},
      {"{\"__metadata__\":{\"k\":{}}}", "__metadata__ \"k\" is an object"},
      {"{\"__metadata__\":{\"k\":\"1\",\"k\":\"2\"}}", "\"k\" occurs twice"},
      {"{\"__metadata__\":{},\"__metadata__\":{}}",
       "\"__metadata__\" occurs twice"},
      // Fields.
      {tensor(""), "dtype is absent"},
      {tensor(good_dtype + "\"shape\":[2]"), "data_offsets is absent"},
      {tensor(good_dtype + "\"data_offsets\":[0,8]"), "shape is absent"},
      {tensor("\"shape\":[2]" + good_offsets), "dtype is absent"},
      {tensor("\"x\":1"), "unknown field \"x\""},
      {tensor("\"dtype\":\"F32\",\"dtype\":\"F32\""),
       "the field dtype occurs twice"},
      {tensor("\"shape\":[2],\"shape\":[2]"), "the field shape occurs twice"},
      {tensor("\"data_offsets\":[0,8],\"data_offsets\":[0,8]"),
       "the field data_offsets occurs twice"},
      // dtype.
      {typed("1"), "dtype is 1; allowed is a string"},
      {typed("null"), "dtype is null"},
      {typed("[\"F32\"]"), "dtype is a list"},
      {typed("\"F64\""), "allowed are F32, BF16, F16 and I32"},
      {typed("\"f32\""), "dtype is \"f32\""},
      {typed("\"\""), "dtype is \"\""},
      // shape.
      {shaped("2"), "shape is 2"},
      {shaped("\"2\""), "shape is the string \"2\""},
      {shaped("[-2]"), "shape is the negative number -2"},
      {shaped("[2.0]"), "shape is \"2.0\", which is not an integer"},
      {shaped("[true]"), "shape is a boolean"},
      {shaped("[[2]]"), "shape is a list"},
      {shaped("[{}]"), "shape is an object"},
      {shaped("[3]"), "needs 12 bytes, data_offsets [0, 8] hold 8"},
      {shaped("[]"), "needs 4 bytes"},
      {shaped("[0]"), "needs 0 bytes"},
      {shaped("[1,1,1,1,1,1,1,1,2]"), "more than 8 numbers"},
      {shaped("[18446744073709551616]"), "not an integer below 2^64"},
      {shaped("[18446744073709551615]"), "larger than 2^63 bytes"},
      {shaped("[9223372036854775808]"), "larger than 2^63 bytes"},
      {shaped("[4611686018427387906]"), "larger than 2^63 bytes"},
      {shaped("[4294967296,4294967296]"), "larger than 2^63 bytes"},
      {shaped("[2147483648,2147483648,2]"), "larger than 2^63 bytes"},
      {shaped("[0,18446744073709551615]"), "larger than 2^63 bytes"},
      {shaped("[0,9223372036854775807,9223372036854775807]"),
       "larger than 2^63 bytes"},
      // data_offsets.
      {placed("8"), "data_offsets is 8"},
      {placed("[]"), "has 0 numbers, not 2"},
      {placed("[0]"), "has 1 numbers, not 2"},
      {placed("[0,4,8]"), "has 3 numbers, not 2"},
      {placed("[0,-8]"), "data_offsets is the negative number -8"},
      {placed("[8,0]"), "end before they begin"},
      {placed("[0,9]"), "beyond the 8 bytes of data"},
      {placed("[8,16]"), "beyond the 8 bytes of data"},
      {placed("[18446744073709551608,18446744073709551615]"), "beyond"},
      {placed("[0,18446744073709551615]"), "beyond"},
      {placed("[0,4]"), "needs 8 bytes"},
      {placed("[4,8]"), "needs 8 bytes"},
  };
  for (const auto& [header, expected] : cases) {
    EXPECT_THAT(ErrorOf(FileOf(header, 8)), HasSubstr(expected)) << header;
  }
}

TEST(SafetensorsTest, TensorsMustTileTheData) {
  const auto header = [](std::vector<std::array<uint64_t, 2>> ranges) {
    Json json = Json::object();
    int n = 0;
    for (const auto& [begin, end] : ranges) {
      json[fmt::format("t{}", n++)] = {{"dtype", "F16"},
                                       {"shape", {(end - begin) / 2}},
                                       {"data_offsets", {begin, end}}};
    }
    return json.dump();
  };
  EXPECT_EQ(ErrorOf(FileOf(header({{8, 16}, {0, 8}}), 16)), "accepted");
  EXPECT_EQ(ErrorOf(FileOf(header({{0, 8}, {8, 8}, {0, 0}, {8, 16}}), 16)),
            "accepted");
  EXPECT_EQ(ErrorOf(FileOf("{}", 0)), "accepted");
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 10}, {8, 16}}), 16)),
              HasSubstr("tensor \"t1\" overlaps tensor \"t0\" by 2 bytes"));
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 16}, {0, 16}}), 16)),
              HasSubstr("overlaps"));
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 16}, {4, 8}}), 16)),
              HasSubstr("overlaps"));
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 16}, {4, 4}}), 16)),
              HasSubstr("overlaps"));
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 8}, {10, 16}}), 16)),
              HasSubstr("a gap of 2 bytes that no tensor covers lies between "
                        "tensor \"t0\" and tensor \"t1\""));
  EXPECT_THAT(ErrorOf(FileOf(header({{2, 16}}), 16)),
              HasSubstr("a gap of 2 bytes that no tensor covers lies between "
                        "the beginning of the data"));
  EXPECT_THAT(ErrorOf(FileOf(header({{0, 8}}), 16)),
              HasSubstr("8 bytes after the last tensor"));
  EXPECT_THAT(ErrorOf(FileOf("{}", 1)), HasSubstr("1 bytes after"));
}

TEST(SafetensorsTest, ANameThatOccursTwiceIsRefused) {
  const std::string entry =
      R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]})";
  EXPECT_THAT(ErrorOf(FileOf("{" + entry + "," + entry + "}", 8)),
              HasSubstr("the name \"a\" occurs twice"));
}

TEST(SafetensorsTest, AnAbsurdHeaderLengthIsRefusedBeforeAnythingIsRead) {
  for (const uint64_t length :
       {static_cast<uint64_t>(kMaxSafetensorsHeaderBytes) + 1,
        uint64_t{1} << 32, (uint64_t{1} << 63) - 1, uint64_t{1} << 63,
        std::numeric_limits<uint64_t>::max()}) {
    EXPECT_THAT(ErrorOf(FileOf("{}", 8, length)),
                AllOf(HasSubstr(fmt::format("claims {} bytes", length)),
                      HasSubstr("at most 104857600")));
  }
  EXPECT_THAT(ErrorOf(FileOf("{}", 8, 11)),
              HasSubstr("claims 11 bytes but the file has 10"));
}

TEST(SafetensorsTest, HostileHeadersCostNoMoreThanTheirLength) {
  EXPECT_THAT(ErrorOf(FileOf("{\"a\":" + std::string(1 << 20, '['), 0)),
              HasSubstr("is a list"));
  std::string deep = "{\"a\":{\"shape\":[";
  for (int i = 0; i < 1 << 20; ++i) deep += "1,";
  EXPECT_THAT(ErrorOf(FileOf(deep, 0)), HasSubstr("more than 8 numbers"));
  const std::string long_name(1 << 20, 'n');
  const std::string error = ErrorOf(FileOf("{\"" + long_name + "\":1}", 0));
  EXPECT_THAT(error, HasSubstr("(1048576 bytes)"));
  EXPECT_LT(error.size(), 400u);
}

class ShardedTest : public ::testing::Test {
 protected:
  // Writes an index and the two files "one" (a, b) and "two" (c).
  void WriteShards(const Json& weight_map) {
    directory_.Write("one", SafetensorsFile(TwoTensors()));
    directory_.Write("two", SafetensorsFile({{"c", {"F32", {1}, "cccc"}}}));
    WriteIndex(Json{{"weight_map", weight_map}}.dump());
  }
  void WriteIndex(const std::string& text) {
    directory_.Write("model.safetensors.index.json", text);
  }
  std::string Error() const { return OpenError(directory_.path()); }

  TempDirectory directory_;
};

TEST_F(ShardedTest, ReadsAllFilesOfTheIndex) {
  WriteShards({{"a", "one"}, {"b", "one"}, {"c", "two"}});
  const auto checkpoint = Checkpoint::Open(directory_.path());
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_THAT((*checkpoint)->files(), ElementsAre(directory_.path() + "/one",
                                                  directory_.path() + "/two"));
  EXPECT_EQ((*checkpoint)->tensors().size(), 3u);
  EXPECT_EQ((*checkpoint)->Find("c")->file_index, 1);
  EXPECT_EQ((*checkpoint)->Find("c")->data.size(), 4u);
}

TEST_F(ShardedTest, AnIndexThatDisagreesWithTheFilesIsRefused) {
  WriteShards({{"a", "one"}, {"b", "two"}, {"c", "two"}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("index.json"),
                             HasSubstr("tensor \"b\" should be in two but is "
                                       "in"),
                             HasSubstr("/one")));
  WriteShards({{"a", "one"}, {"b", "one"}, {"c", "two"}, {"d", "two"}});
  EXPECT_THAT(Error(), HasSubstr("tensor \"d\" should be in two but is in no "
                                 "file"));
  WriteShards({{"a", "one"}, {"c", "two"}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("tensor \"b\" of"), HasSubstr("/one"),
                             HasSubstr("is not in the index")));
  WriteShards({{"a", "one"}, {"b", "one"}, {"c", "three"}});
  EXPECT_THAT(Error(), AllOf(HasSubstr("/three"), HasSubstr("not there")));
}

TEST_F(ShardedTest, ANameInTwoFilesIsRefused) {
  WriteShards({{"a", "one"}, {"b", "one"}, {"c", "two"}});
  directory_.Write("two", SafetensorsFile({{"a", {"F32", {1}, "aaaa"}},
                                           {"c", {"F32", {1}, "cccc"}}}));
  EXPECT_THAT(Error(), AllOf(HasSubstr("/two"), HasSubstr("tensor \"a\""),
                             HasSubstr("also in"), HasSubstr("/one")));
}

TEST_F(ShardedTest, ADamagedFileIsNamed) {
  WriteShards({{"a", "one"}, {"b", "one"}, {"c", "two"}});
  std::filesystem::resize_file(directory_.path() + "/two", 9);
  EXPECT_THAT(Error(), AllOf(HasSubstr("/two"), HasSubstr("truncated")));
  std::filesystem::remove(directory_.path() + "/two");
  std::filesystem::create_directory(directory_.path() + "/two");
  EXPECT_THAT(Error(), AllOf(HasSubstr("/two"), HasSubstr("not a regular")));
  std::filesystem::remove(directory_.path() + "/two");
  ASSERT_EQ(mkfifo((directory_.path() + "/two").c_str(), 0600), 0);
  EXPECT_THAT(Error(), AllOf(HasSubstr("/two"), HasSubstr("not a regular")));
}

TEST_F(ShardedTest, UglyIndexesAreRefused) {
  const std::pair<const char*, const char*> cases[] = {
      {"", "not valid JSON"},
      {"[]", "must be a JSON object"},
      {"{}", "weight_map is absent"},
      {R"({"weight_map": []})", "weight_map is a list of 0 values"},
      {R"({"weight_map": {"a": 1}})", "tensor \"a\" is in 1"},
      {R"({"weight_map": {"a": ""}})", "tensor \"a\" is in \"\""},
      {R"({"weight_map": {"a": "../one"}})", "a file in the same directory"},
      {R"({"weight_map": {"a": "/etc/passwd"}})", "same directory"},
      {R"({"weight_map": {"a": "one\u0000"}})", "same directory"},
      {R"({"weight_map": {"a": "."}})", "not a regular file"},
      {R"({"weight_map": {"a": "one", "a": "one"}})", "\"a\" occurs twice"},
  };
  for (const auto& [text, expected] : cases) {
    WriteIndex(text);
    EXPECT_THAT(Error(), HasSubstr(expected)) << text;
  }
}

TEST(CheckpointTest, ADirectoryWithoutWeightsIsNotFound) {
  const TempDirectory directory;
  for (const std::string& path :
       {directory.path(), directory.path() + "/absent"}) {
    const auto checkpoint = Checkpoint::Open(path);
    EXPECT_EQ(checkpoint.status().code(), absl::StatusCode::kNotFound);
    EXPECT_THAT(std::string(MessageOf(checkpoint.status())),
                AllOf(HasSubstr(path), HasSubstr("model.safetensors")));
  }
}

TEST(CheckpointTest, OpensOneFileByItself) {
  const TempDirectory directory;
  const std::string path =
      directory.Write("any.name", SafetensorsFile(TwoTensors()));
  const auto checkpoint = Checkpoint::OpenFile(path);
  ASSERT_TRUE(checkpoint.ok()) << checkpoint.status();
  EXPECT_EQ((*checkpoint)->tensors().size(), 2u);
  EXPECT_THAT((*checkpoint)->files(), ElementsAre(path));
  EXPECT_THAT(std::string(MessageOf(Checkpoint::OpenFile(path + "x").status())),
              AllOf(HasSubstr(path + "x"), HasSubstr("cannot be opened")));
}

}  // namespace
}  // namespace witan
