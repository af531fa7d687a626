#ifndef WITAN_BASE_SHA256_H_
#define WITAN_BASE_SHA256_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace witan {

// SHA-256 (FIPS 180-4), incremental. One thread at a time.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Update(const void* data, size_t size_bytes);
  void Update(std::string_view text) { Update(text.data(), text.size()); }
  // Lower-case hex, 64 characters. REQUIRES: called once, as the last call.
  std::string Finish();
  // The same as bytes. REQUIRES: called once, instead of Finish.
  std::array<uint8_t, 32> FinishBytes();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

}  // namespace witan

#endif  // WITAN_BASE_SHA256_H_
