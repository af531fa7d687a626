// The known answers that ranks compare before they serve together.

#include <gtest/gtest.h>
#include <pmmintrin.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "base/status.h"
#include "kernels/backend.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/kernels/every_path.h"

namespace witan {
namespace {

// By kernel set. Another value means that this build computes other bits than
// all before it: sequences cannot move between them, and what is measured or
// recorded of models changes. Change it knowingly.
const std::map<std::string, std::string>& KnownAnswers() {
  static const auto* answers = new std::map<std::string, std::string>{
      {"cpu-avx512bf16",
       "9b63e24943ff7accbe42da5de48ac895ea0eae579bab597a6312944aa740257d"},
      {"cpu-fma16",
       "fd32ed319b77c6d05ba83d8bc926794d1e75c2259d0e2a9cd00e1305b4d6017a"},
  };
  return *answers;
}

TEST(KnownAnswerTest, IsTheSameOnEveryPathAndInEveryBuildOfAKernelSet) {
  for (const PathAndWeights& p : EveryPathAndWeights()) {
    for (const int num_threads : {1, 3}) {
      const auto backend = MakeBackend(p.path, p.weights, num_threads);
      const auto answer = KnownAnswerHash(*backend);
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(*answer, KnownAnswers().at(backend->kernel_set()))
          << backend->kernel_set() << " on " << NameOfPath(p.path) << " for "
          << NameOf(p.weights) << ", " << num_threads << " threads";
    }
  }
}

// Rounding up, and subnormals taken for zero: other bits in almost every op
// that would run under it.
TEST(KnownAnswerTest, DependsOnNoFloatingPointModeOfTheCaller) {
  constexpr uint32_t kFlags = 0x3f;  // what has happened, not what will
  const uint32_t before = _mm_getcsr();
  const uint32_t odd_mode =
      0x1f80 | _MM_FLUSH_ZERO_ON | _MM_DENORMALS_ZERO_ON | _MM_ROUND_UP;
  for (const CpuPath path : PathsOfThisCpu()) {
    for (const int num_threads : {1, 3}) {
      _mm_setcsr(odd_mode);
      // Made under that mode too: threads begin with that of their maker.
      const auto backend = MakeBackend(path, DType::kBF16, num_threads);
      const auto answer = KnownAnswerHash(*backend);
      const uint32_t after = _mm_getcsr();
      _mm_setcsr(before);
      ASSERT_TRUE(answer.ok()) << answer.status();
      EXPECT_EQ(*answer, KnownAnswers().at(backend->kernel_set()))
          << NameOfPath(path) << ", " << num_threads << " threads";
      EXPECT_EQ(after & ~kFlags, odd_mode);
    }
  }
}

// Not by a name that is hashed too: the bits of the ops differ.
TEST(KnownAnswerTest, TellsTheOrdersApart) {
  EXPECT_NE(KnownAnswers().at("cpu-avx512bf16"),
            KnownAnswers().at("cpu-fma16"));
}

class BackendWithoutMemory : public CpuBackend {
 public:
  using CpuBackend::CpuBackend;
  absl::StatusOr<Buffer> Allocate(size_t bytes) override {
    return ResourceExhausted("no {} bytes", bytes);
  }
};

TEST(KnownAnswerTest, ReportsThatThereIsNoMemory) {
  auto pool = ThreadPool::Create(1);
  ASSERT_TRUE(pool.ok());
  BackendWithoutMemory backend(PortableKernels(), false, *std::move(pool));
  EXPECT_EQ(KnownAnswerHash(backend).status().code(),
            absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace witan
