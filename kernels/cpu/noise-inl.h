// Noise of the sampler: included inside a namespace that has the lanes of a
// simd_*.h (see kernels.h).

// Philox4x32-10 (Salmon et al., 2011) on sixteen counters at once: counter
// words c[0..3], each sixteen lanes, are replaced by random words.
struct PhiloxLanes {
  uint32_t word[4][16];
};
inline void Philox(uint64_t key, PhiloxLanes& c) {
  uint32_t key0 = static_cast<uint32_t>(key);
  uint32_t key1 = static_cast<uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    for (int i = 0; i < 16; ++i) {
      const uint64_t a = uint64_t{0xd2511f53} * c.word[0][i];
      const uint64_t b = uint64_t{0xcd9e8d57} * c.word[2][i];
      c.word[0][i] = static_cast<uint32_t>(b >> 32) ^ c.word[1][i] ^ key0;
      c.word[1][i] = static_cast<uint32_t>(b);
      c.word[2][i] = static_cast<uint32_t>(a >> 32) ^ c.word[3][i] ^ key1;
      c.word[3][i] = static_cast<uint32_t>(a);
    }
    key0 += 0x9e3779b9;
    key1 += 0xbb67ae85;
  }
}

inline void GumbelBody(uint64_t seed, uint32_t position, uint32_t choice,
                       TokenId first_id, int64_t n, float* noise) {
  for (int64_t begin = 0; begin < n; begin += 64) {
    PhiloxLanes lanes;
    for (int i = 0; i < 16; ++i) {
      lanes.word[0][i] = static_cast<uint32_t>((first_id + begin) / 4 + i);
      lanes.word[1][i] = position;
      lanes.word[2][i] = choice;
      lanes.word[3][i] = 0;
    }
    Philox(seed, lanes);
    float uniform[64];  // (top 23 bits + 0.5) * 2^-23, exactly
    for (int i = 0; i < 64; ++i) {
      const uint32_t bits = lanes.word[i % 4][i / 4] >> 9;
      uniform[i] =
          (static_cast<float>(static_cast<int32_t>(bits)) + 0.5f) * 0x1p-23f;
    }
    const int64_t used = std::min<int64_t>(64, n - begin);
    EachVector(used, [&](int64_t i, int64_t count) {
      const F32x16 minus_log = Sub(Zero(), Log(Load(uniform + i)));
      StoreN(noise + begin + i, Sub(Zero(), Log(minus_log)), count);
    });
  }
}
