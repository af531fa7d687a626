#include "base/sha256.h"

#include <fmt/format.h>
#include <openssl/evp.h>

#include "base/check.h"

namespace witan {

struct Sha256::Context {
  EVP_MD_CTX* evp = EVP_MD_CTX_new();
  ~Context() { EVP_MD_CTX_free(evp); }
};

Sha256::Sha256() : context_(std::make_unique<Context>()) {
  // To look the algorithm up takes longer than to hash a block's name.
  static const EVP_MD* const algorithm =
      EVP_MD_fetch(nullptr, "SHA256", nullptr);
  WITAN_CHECK(context_->evp != nullptr && algorithm != nullptr &&
              EVP_DigestInit_ex(context_->evp, algorithm, nullptr) == 1);
}

Sha256::~Sha256() = default;

void Sha256::Update(const void* data, size_t size_bytes) {
  WITAN_CHECK(EVP_DigestUpdate(context_->evp, data, size_bytes) == 1);
}

std::array<uint8_t, 32> Sha256::FinishBytes() {
  std::array<uint8_t, 32> digest;
  unsigned int size = 0;
  WITAN_CHECK(EVP_DigestFinal_ex(context_->evp, digest.data(), &size) == 1);
  WITAN_CHECK(size == digest.size());
  return digest;
}

std::string Sha256::Finish() {
  std::string hex;
  for (const uint8_t byte : FinishBytes()) hex += fmt::format("{:02x}", byte);
  return hex;
}

}  // namespace witan
