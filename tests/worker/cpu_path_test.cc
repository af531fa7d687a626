// The names of CPU paths that workers register: that --cpu-path takes them, and
// that what is said about their bits is what the kernels do.

#include "base/cpu_path.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "kernels/backend.h"
#include "worker/worker.h"

namespace witan {
namespace {

// What each path of this machine resolves to.
std::map<std::string, CpuPath> PathsOfThisMachine() {
  std::map<std::string, CpuPath> paths;
  for (const std::string_view name : kCpuPaths) {
    const auto path = ParseCpuPath(std::string(name));
    EXPECT_TRUE(path.ok()) << path.status();
    if (const auto resolved = ResolvedCpuPath(*path); resolved.ok()) {
      paths.emplace(*resolved, *path);
    }
  }
  return paths;
}

std::string KernelSet(CpuPath path, DType weights) {
  return MakeCpuBackend({.path = path, .weights = weights})
      .value()
      ->kernel_set();
}

TEST(CpuPathTest, AWorkerRegistersANameThatItsCommandLineTakes) {
  const auto paths = PathsOfThisMachine();
  EXPECT_TRUE(paths.contains(std::string(kCpuPathPortable)));
  for (const auto& [name, path] : paths) {
    const auto parsed = ParseCpuPath(name);
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(*parsed, path) << name;
  }
}

TEST(CpuPathTest, AutoIsTheBestPathOfThisMachine) {
  const auto paths = PathsOfThisMachine();
  const auto best = ResolvedCpuPath(CpuPath::kAuto);
  ASSERT_TRUE(best.ok()) << best.status();
  for (const std::string_view name : kCpuPaths) {
    if (!paths.contains(std::string(name))) continue;
    EXPECT_EQ(*best, name);
    break;
  }
  EXPECT_EQ(KernelSet(CpuPath::kAuto, DType::kBF16),
            KernelSet(paths.at(*best), DType::kBF16));
}

TEST(CpuPathTest, PathsHaveOneOrderExactlyIfTheirKernelsDo) {
  const auto paths = PathsOfThisMachine();
  for (const DType weights : {DType::kBF16, DType::kF16, DType::kF32}) {
    for (const auto& [a, a_path] : paths) {
      for (const auto& [b, b_path] : paths) {
        EXPECT_EQ(OrderOfCpuPath(a, weights) == OrderOfCpuPath(b, weights),
                  KernelSet(a_path, weights) == KernelSet(b_path, weights))
            << a << " and " << b << " with " << NameOf(weights);
      }
    }
  }
}

TEST(CpuPathTest, AnUnknownPathSharesItsBitsWithItselfOnly) {
  EXPECT_EQ(OrderOfCpuPath("neon", DType::kBF16), "neon");
  EXPECT_NE(OrderOfCpuPath("neon", DType::kF32),
            OrderOfCpuPath(kCpuPathPortable, DType::kF32));
}

}  // namespace
}  // namespace witan
