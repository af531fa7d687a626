#ifndef WITAN_TESTS_TESTING_TEMP_DIRECTORY_H_
#define WITAN_TESTS_TESTING_TEMP_DIRECTORY_H_

#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>

#include "base/check.h"

namespace witan {

// A fresh directory, removed with everything in it.
class TempDirectory {
 public:
  TempDirectory() {
    path_ =
        (std::filesystem::temp_directory_path() / "witan-test-XXXXXX").string();
    WITAN_CHECK(mkdtemp(path_.data()) != nullptr, "{}", path_);
  }
  ~TempDirectory() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;

  const std::string& path() const { return path_; }

  // Creates or replaces a file and returns its path.
  std::string Write(const std::string& name, std::string_view bytes) const {
    const std::string path = path_ + "/" + name;
    std::ofstream file(path, std::ios::binary);
    file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    file.close();
    WITAN_CHECK(file.good(), "cannot write {}", path);
    return path;
  }

 private:
  std::string path_;
};

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_TEMP_DIRECTORY_H_
