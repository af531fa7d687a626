// Writes the seeds of every target where libFuzzer looks for them:
//   write_fuzz_seeds FOLDER    makes FOLDER/TARGET/seed-NUMBER

#include <fmt/format.h>

#include <filesystem>
#include <fstream>

#include "base/check.h"
#include "tests/fuzz/target.h"

int main(int argc, char** argv) {
  WITAN_CHECK(argc == 2, "usage: write_fuzz_seeds FOLDER");
  for (const witan::fuzz::Target& target : witan::fuzz::Targets()) {
    const std::filesystem::path folder =
        std::filesystem::path(argv[1]) / target.name;
    std::filesystem::create_directories(folder);
    int number = 0;
    for (const std::string& seed : target.seeds()) {
      std::ofstream file(folder / fmt::format("seed-{:03}", number++),
                         std::ios::binary);
      file << seed;
      WITAN_CHECK(file.flush().good(), "{}", folder.string());
    }
  }
  return 0;
}
