#ifndef WITAN_TESTS_KERNELS_EVERY_PATH_H_
#define WITAN_TESTS_KERNELS_EVERY_PATH_H_

// Every CPU path of this machine with every weight dtype, as test parameters.

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

#include "kernels/backend.h"

namespace witan {

struct PathAndWeights {
  CpuPath path;
  DType weights;
};

inline std::string NameOfPath(CpuPath path) {
  switch (path) {
    case CpuPath::kAuto:
      return "auto";
    case CpuPath::kAvx512Bf16:
      return "avx512bf16";
    case CpuPath::kAvx2:
      return "avx2";
    case CpuPath::kPortable:
      return "portable";
  }
  return "unknown";
}

inline std::unique_ptr<Backend> MakeBackend(CpuPath path, DType weights,
                                            int num_threads = 1) {
  CpuOptions options;
  options.path = path;
  options.weights = weights;
  options.num_threads = num_threads;
  auto backend = MakeCpuBackend(options);
  return backend.ok() ? std::move(*backend) : nullptr;
}

// What this CPU can run.
inline std::vector<CpuPath> PathsOfThisCpu() {
  std::vector<CpuPath> paths;
  for (const CpuPath path :
       {CpuPath::kPortable, CpuPath::kAvx2, CpuPath::kAvx512Bf16}) {
    if (MakeBackend(path, DType::kBF16) != nullptr) paths.push_back(path);
  }
  return paths;
}

inline std::vector<PathAndWeights> EveryPathAndWeights() {
  std::vector<PathAndWeights> all;
  for (const CpuPath path : PathsOfThisCpu()) {
    for (const DType weights : {DType::kBF16, DType::kF32, DType::kF16}) {
      all.push_back({path, weights});
    }
  }
  return all;
}

class EveryPath : public testing::TestWithParam<PathAndWeights> {
 protected:
  std::unique_ptr<Backend> MakeBackendOfParam(int num_threads = 1) const {
    return MakeBackend(GetParam().path, GetParam().weights, num_threads);
  }
  DType weights() const { return GetParam().weights; }
  DType activations() const { return ActivationDType(GetParam().weights); }
};

inline std::string NameOfParam(
    const testing::TestParamInfo<PathAndWeights>& info) {
  return NameOfPath(info.param.path) + "_" +
         std::string(NameOf(info.param.weights));
}

#define WITAN_EVERY_PATH(Suite) \
  INSTANTIATE_TEST_SUITE_P(     \
      Cpu, Suite, testing::ValuesIn(EveryPathAndWeights()), NameOfParam)

}  // namespace witan

#endif  // WITAN_TESTS_KERNELS_EVERY_PATH_H_
