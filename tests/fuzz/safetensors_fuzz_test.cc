// Seeded mutations of safetensors files. Whatever the bytes, the parser
// answers; what it accepts tiles the data. To replay a failure, run the one
// seed that the message names.

#include <gtest/gtest.h>

#include <array>
#include <cstring>
#include <memory>
#include <random>
#include <set>

#include "model/safetensors_header.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr uint64_t kNumSeeds = 40000;

// Text that a header may hold, and much that it may not.
constexpr const char* kFragments[] = {"\"dtype\":\"F32\"",
                                      "\"dtype\":\"F16\"",
                                      "\"shape\":[2]",
                                      "\"shape\":[0]",
                                      "\"shape\":[]",
                                      "\"data_offsets\":[0,8]",
                                      "\"data_offsets\"",
                                      "\"__metadata__\":{}",
                                      "18446744073709551615",
                                      "9223372036854775808",
                                      "4294967296",
                                      "-1",
                                      "1e400",
                                      "null",
                                      "{",
                                      "}",
                                      "[",
                                      "]",
                                      ",",
                                      ":",
                                      "\"",
                                      "\\u0000",
                                      "\\ud800",
                                      "\xff",
                                      "[[[[[[[[",
                                      "{\"a\":{\"a\":{"};

std::string GoodFile(std::mt19937_64& random) {
  std::map<std::string, StoredTensor> tensors;
  const uint64_t num_tensors = random() % 4;
  for (uint64_t i = 0; i < num_tensors; ++i) {
    const auto rows = static_cast<int64_t>(random() % 4);
    tensors[fmt::format("t{}", i)] = {
        "BF16", {rows, 3}, std::string(static_cast<size_t>(rows) * 6, 'x')};
  }
  return SafetensorsFile(tensors);
}

std::string Mutate(std::string file, std::mt19937_64& random) {
  const uint64_t num_mutations = 1 + random() % 4;
  for (uint64_t i = 0; i < num_mutations; ++i) {
    const size_t at = file.empty() ? 0 : random() % file.size();
    switch (random() % 6) {
      case 0:
        if (!file.empty()) file[at] ^= static_cast<char>(1 << (random() % 8));
        break;
      case 1:
        file.resize(at);
        break;
      case 2:
        file.insert(at,
                    std::string(random() % 16, static_cast<char>(random())));
        break;
      case 3:
        file.insert(at, kFragments[random() % std::size(kFragments)]);
        break;
      case 4: {
        const std::string_view fragment =
            kFragments[random() % std::size(kFragments)];
        file.replace(at, fragment.size(), fragment);
        break;
      }
      default:
        file.erase(at, random() % 16);
    }
    // Half of the time the header length is made true again, so that changes
    // get past it.
    if (random() % 2 == 0 && file.size() >= 8) {
      const size_t end = file.rfind('}');
      const uint64_t length =
          end == std::string::npos || end < 8 ? 0 : end + 1 - 8;
      for (size_t byte = 0; byte < 8; ++byte) {
        file[byte] = static_cast<char>((length >> (8 * byte)) & 0xff);
      }
    }
  }
  return file;
}

// Parses a copy of exactly the right size, so that a sanitizer sees every read
// beyond it. Returns whether the file was accepted.
bool ParseAndCheck(const std::string& file, uint64_t seed) {
  const auto copy = std::make_unique<std::byte[]>(file.size());
  std::memcpy(copy.get(), file.data(), file.size());
  const auto entries = ParseSafetensors({copy.get(), file.size()});
  if (!entries.ok()) {
    EXPECT_EQ(entries.status().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_LT(entries.status().message().size(), 1000u) << "seed " << seed;
    return false;
  }
  uint64_t header_length = 0;
  std::memcpy(&header_length, copy.get(), 8);
  const std::byte* next = copy.get() + 8 + header_length;
  std::set<std::string> names;
  for (const TensorEntry& entry : *entries) {
    EXPECT_EQ(entry.data.data(), next) << "seed " << seed;
    size_t size = SizeOf(entry.dtype);
    for (const int64_t dimension : entry.shape) {
      size *= static_cast<size_t>(dimension);
    }
    EXPECT_EQ(entry.data.size(), size) << "seed " << seed;
    EXPECT_TRUE(names.insert(entry.name).second) << "seed " << seed;
    next = entry.data.data() + entry.data.size();
  }
  EXPECT_EQ(next, copy.get() + file.size()) << "seed " << seed;
  return true;
}

TEST(SafetensorsFuzzTest, NoBytesCrashTheParserOrSlipThroughIt) {
  int num_accepted = 0;
  for (uint64_t seed = 0; seed < kNumSeeds; ++seed) {
    std::mt19937_64 random(seed);
    const std::string good = GoodFile(random);
    ASSERT_TRUE(ParseAndCheck(good, seed));
    num_accepted += ParseAndCheck(Mutate(good, random), seed) ? 1 : 0;
    if (HasFailure()) return;
  }
  // Mutations that change only names or data are still valid files, most are
  // not: the loop has seen both.
  EXPECT_GT(num_accepted, 100);
  EXPECT_LT(num_accepted, static_cast<int>(kNumSeeds) / 2);
}

}  // namespace
}  // namespace witan
