#include "model/gguf_quants.h"

#include <fmt/format.h>

#include <bit>
#include <cstring>
#include <vector>

#include "base/check.h"

namespace witan {
namespace {

constexpr GgmlTypeTraits kTypes[] = {
    {GgmlType::kF32, "F32", 1, 4, DType::kF32},
    {GgmlType::kF16, "F16", 1, 2, DType::kF16},
    {GgmlType::kBF16, "BF16", 1, 2, DType::kBF16},
    {GgmlType::kQ4_0, "Q4_0", 32, 18, std::nullopt},
    {GgmlType::kQ4_1, "Q4_1", 32, 20, std::nullopt},
    {GgmlType::kQ5_0, "Q5_0", 32, 22, std::nullopt},
    {GgmlType::kQ5_1, "Q5_1", 32, 24, std::nullopt},
    {GgmlType::kQ8_0, "Q8_0", 32, 34, std::nullopt},
    {GgmlType::kQ2_K, "Q2_K", 256, 84, std::nullopt},
    {GgmlType::kQ3_K, "Q3_K", 256, 110, std::nullopt},
    {GgmlType::kQ4_K, "Q4_K", 256, 144, std::nullopt},
    {GgmlType::kQ5_K, "Q5_K", 256, 176, std::nullopt},
    {GgmlType::kQ6_K, "Q6_K", 256, 210, std::nullopt},
};

template <typename T>
T Load(const uint8_t* at) {
  T value;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

float FloatOfHalf(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t fraction = bits & 0x3ff;
  if (exponent == 0) {  // zero, or fraction * 2^-24
    const float value = static_cast<float>(fraction) * 0x1p-24f;
    return sign != 0 ? -value : value;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | (wide << 23) | (fraction << 13));
}

float HalfAt(const uint8_t* at) { return FloatOfHalf(Load<uint16_t>(at)); }

// NaN stays NaN: the quiet bit is set before what follows it is cut off.
uint16_t BFloat16Of(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7fffffff) > 0x7f800000) {
    return static_cast<uint16_t>((bits >> 16) | 0x40);
  }
  return static_cast<uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

uint16_t HalfOf(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const uint32_t magnitude = bits & 0x7fffffff;
  if (magnitude > 0x7f800000) return sign | 0x7e00;
  if (magnitude >= 0x477ff000) return sign | 0x7c00;  // rounds to 2^16
  if (magnitude < 0x38800000) {
    // Below 2^-14 halves are multiples of 2^-24. The sum, whose unit in the
    // last place is that, rounds as is wanted.
    const float sum = std::bit_cast<float>(magnitude) + 0.5f;
    return sign | static_cast<uint16_t>(std::bit_cast<uint32_t>(sum) -
                                        std::bit_cast<uint32_t>(0.5f));
  }
  const uint32_t rounded = magnitude + 0xfff + ((magnitude >> 13) & 1);
  return sign | static_cast<uint16_t>((rounded - (uint32_t{112} << 23)) >> 13);
}

// Blocks of 32: the low nibbles are the first half, the high ones the second.
void Q4_0(const uint8_t* block, float* out) {
  const float scale = HalfAt(block);
  const uint8_t* nibbles = block + 2;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>((nibbles[i] & 15) - 8) * scale;
    out[i + 16] = static_cast<float>((nibbles[i] >> 4) - 8) * scale;
  }
}

void Q4_1(const uint8_t* block, float* out) {
  const float scale = HalfAt(block);
  const float min = HalfAt(block + 2);
  const uint8_t* nibbles = block + 4;
  for (int i = 0; i < 16; ++i) {
    out[i] = static_cast<float>(nibbles[i] & 15) * scale + min;
    out[i + 16] = static_cast<float>(nibbles[i] >> 4) * scale + min;
  }
}

// The fifth bits of the 32 elements are one word.
void Q5_0(const uint8_t* block, float* out) {
  const float scale = HalfAt(block);
  const auto fifth = Load<uint32_t>(block + 2);
  const uint8_t* nibbles = block + 6;
  for (int i = 0; i < 16; ++i) {
    const int low = (nibbles[i] & 15) | (((fifth >> i) & 1) << 4);
    const int high = (nibbles[i] >> 4) | (((fifth >> (i + 16)) & 1) << 4);
    out[i] = static_cast<float>(low - 16) * scale;
    out[i + 16] = static_cast<float>(high - 16) * scale;
  }
}

void Q5_1(const uint8_t* block, float* out) {
  const float scale = HalfAt(block);
  const float min = HalfAt(block + 2);
  const auto fifth = Load<uint32_t>(block + 4);
  const uint8_t* nibbles = block + 8;
  for (int i = 0; i < 16; ++i) {
    const int low = (nibbles[i] & 15) | (((fifth >> i) & 1) << 4);
    const int high = (nibbles[i] >> 4) | (((fifth >> (i + 16)) & 1) << 4);
    out[i] = static_cast<float>(low) * scale + min;
    out[i + 16] = static_cast<float>(high) * scale + min;
  }
}

void Q8_0(const uint8_t* block, float* out) {
  const float scale = HalfAt(block);
  for (int i = 0; i < 32; ++i) {
    out[i] = static_cast<float>(static_cast<int8_t>(block[2 + i])) * scale;
  }
}

// Blocks of 256 elements in groups of 16 or 32 with scales of few bits, which
// one or two halves scale.

// Of Q4_K and Q5_K: eight scales and eight minima of six bits in twelve bytes.
struct ScaleAndMin {
  int scale;
  int min;
};
ScaleAndMin SixBits(const uint8_t* packed, int group) {
  if (group < 4) return {packed[group] & 63, packed[group + 4] & 63};
  return {(packed[group + 4] & 15) | ((packed[group - 4] >> 6) << 4),
          (packed[group + 4] >> 4) | ((packed[group] >> 6) << 4)};
}

// scales [16], pairs of bits [64], halves d and dmin.
void Q2_K(const uint8_t* block, float* out) {
  const uint8_t* scales = block;
  const float scale_all = HalfAt(block + 80);
  const float min_all = HalfAt(block + 82);
  for (int group = 0; group < 16; ++group) {
    // Each 32 bytes hold 128 elements, two bits of four groups of 32.
    const uint8_t* bits = block + 16 + group / 8 * 32 + group % 2 * 16;
    const int shift = group / 2 % 4 * 2;
    const float scale = scale_all * static_cast<float>(scales[group] & 15);
    const float min = min_all * static_cast<float>(scales[group] >> 4);
    for (int i = 0; i < 16; ++i) {
      out[group * 16 + i] =
          scale * static_cast<float>((bits[i] >> shift) & 3) - min;
    }
  }
}

// third bits [32], pairs of bits [64], scales of six bits [12], half d.
void Q3_K(const uint8_t* block, float* out) {
  const uint8_t* packed = block + 96;
  const float scale_all = HalfAt(block + 108);
  for (int group = 0; group < 16; ++group) {
    const int low = group < 8 ? packed[group] & 15 : packed[group - 8] >> 4;
    const int high = (packed[8 + group % 4] >> (group / 4 * 2)) & 3;
    const float scale =
        scale_all * static_cast<float>((low | (high << 4)) - 32);
    const uint8_t* bits = block + 32 + group / 8 * 32 + group % 2 * 16;
    const int shift = group / 2 % 4 * 2;
    const uint8_t* third = block + group % 2 * 16;
    for (int i = 0; i < 16; ++i) {
      // A clear bit takes 4 away.
      const int minus = ((third[i] >> (group / 2)) & 1) != 0 ? 0 : 4;
      out[group * 16 + i] =
          scale * static_cast<float>(((bits[i] >> shift) & 3) - minus);
    }
  }
}

// halves d and dmin, packed scales [12], nibbles [128].
void Q4_K(const uint8_t* block, float* out) {
  const float scale_all = HalfAt(block);
  const float min_all = HalfAt(block + 2);
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin six = SixBits(block + 4, group);
    const float scale = scale_all * static_cast<float>(six.scale);
    const float min = min_all * static_cast<float>(six.min);
    const uint8_t* nibbles = block + 16 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      out[group * 32 + i] =
          scale * static_cast<float>((nibbles[i] >> shift) & 15) - min;
    }
  }
}

// As Q4_K, with fifth bits [32] before the nibbles.
void Q5_K(const uint8_t* block, float* out) {
  const float scale_all = HalfAt(block);
  const float min_all = HalfAt(block + 2);
  const uint8_t* fifth = block + 16;
  for (int group = 0; group < 8; ++group) {
    const ScaleAndMin six = SixBits(block + 4, group);
    const float scale = scale_all * static_cast<float>(six.scale);
    const float min = min_all * static_cast<float>(six.min);
    const uint8_t* nibbles = block + 48 + group / 2 * 32;
    const int shift = group % 2 * 4;
    for (int i = 0; i < 32; ++i) {
      const int value =
          ((nibbles[i] >> shift) & 15) | (((fifth[i] >> group) & 1) << 4);
      out[group * 32 + i] = scale * static_cast<float>(value) - min;
    }
  }
}

// nibbles [128], upper pairs of bits [64], signed scales [16], half d.
void Q6_K(const uint8_t* block, float* out) {
  const float scale_all = HalfAt(block + 208);
  for (int part = 0; part < 8; ++part) {  // of 32 elements, two scales
    const uint8_t* nibbles = block + part / 4 * 64 + part % 2 * 32;
    const int nibble_shift = part % 4 / 2 * 4;
    const uint8_t* upper = block + 128 + part / 4 * 32;
    const int upper_shift = part % 4 * 2;
    for (int i = 0; i < 32; ++i) {
      const int value = ((nibbles[i] >> nibble_shift) & 15) |
                        (((upper[i] >> upper_shift) & 3) << 4);
      const auto group = static_cast<int8_t>(block[192 + part * 2 + i / 16]);
      const float scale = scale_all * static_cast<float>(group);
      out[part * 32 + i] = scale * static_cast<float>(value - 32);
    }
  }
}

template <typename DequantizeBlock>
void ForEachBlock(GgmlType type, const uint8_t* blocks, int64_t num_blocks,
                  float* out, DequantizeBlock dequantize) {
  const GgmlTypeTraits& traits = TraitsOf(type);
  for (int64_t i = 0; i < num_blocks; ++i) {
    dequantize(blocks + i * traits.block_bytes,
               out + i * traits.block_elements);
  }
}

}  // namespace

const GgmlTypeTraits* FindGgmlType(uint32_t type) {
  for (const GgmlTypeTraits& traits : kTypes) {
    if (static_cast<uint32_t>(traits.type) == type) return &traits;
  }
  return nullptr;
}

const GgmlTypeTraits& TraitsOf(GgmlType type) {
  const GgmlTypeTraits* const traits =
      FindGgmlType(static_cast<uint32_t>(type));
  WITAN_CHECK(traits != nullptr, "type {} is not in the table",
              static_cast<uint32_t>(type));
  return *traits;
}

std::string KnownGgmlTypes() {
  std::vector<std::string_view> names;
  for (const GgmlTypeTraits& traits : kTypes) names.push_back(traits.name);
  return fmt::format("{}", fmt::join(names, ", "));
}

void DequantizeBlocks(GgmlType type, const std::byte* blocks,
                      int64_t num_blocks, float* out) {
  const auto* bytes = reinterpret_cast<const uint8_t*>(blocks);
  const auto each = [&](auto dequantize) {
    ForEachBlock(type, bytes, num_blocks, out, dequantize);
  };
  switch (type) {
    case GgmlType::kF32:
      std::memcpy(out, bytes, static_cast<size_t>(num_blocks) * sizeof(float));
      return;
    case GgmlType::kF16:
      return each([](const uint8_t* at, float* to) { *to = HalfAt(at); });
    case GgmlType::kBF16:
      return each([](const uint8_t* at, float* to) {
        *to = std::bit_cast<float>(uint32_t{Load<uint16_t>(at)} << 16);
      });
    case GgmlType::kQ4_0:
      return each(Q4_0);
    case GgmlType::kQ4_1:
      return each(Q4_1);
    case GgmlType::kQ5_0:
      return each(Q5_0);
    case GgmlType::kQ5_1:
      return each(Q5_1);
    case GgmlType::kQ8_0:
      return each(Q8_0);
    case GgmlType::kQ2_K:
      return each(Q2_K);
    case GgmlType::kQ3_K:
      return each(Q3_K);
    case GgmlType::kQ4_K:
      return each(Q4_K);
    case GgmlType::kQ5_K:
      return each(Q5_K);
    case GgmlType::kQ6_K:
      return each(Q6_K);
  }
}

void RoundTo(DType dtype, const float* numbers, int64_t count, std::byte* out) {
  WITAN_CHECK(dtype != DType::kI32, "numbers become {}", NameOf(dtype));
  if (dtype == DType::kF32) {
    std::memcpy(out, numbers, static_cast<size_t>(count) * sizeof(float));
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t bits =
        dtype == DType::kBF16 ? BFloat16Of(numbers[i]) : HalfOf(numbers[i]);
    std::memcpy(out + i * 2, &bits, sizeof(bits));
  }
}

}  // namespace witan
