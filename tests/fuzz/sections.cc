#include "tests/fuzz/sections.h"

#include <algorithm>

#include "base/check.h"
#include "base/file.h"

namespace witan::fuzz {

std::vector<std::string> SectionsOf(std::string_view input, size_t num) {
  std::vector<std::string> sections;
  while (sections.size() + 1 < num) {
    const size_t end = std::min(input.find('\0'), input.size());
    sections.emplace_back(input.substr(0, end));
    input.remove_prefix(std::min(end + 1, input.size()));
  }
  sections.emplace_back(input);
  return sections;
}

std::string JoinSections(const std::vector<std::string>& sections) {
  std::string joined;
  for (size_t i = 0; i < sections.size(); ++i) {
    if (i > 0) joined += '\0';
    joined += sections[i];
  }
  return joined;
}

std::string ReadSource(const std::string& path) {
  auto text = ReadFile(WITAN_SOURCE_DIR "/" + path, int64_t{1} << 24);
  WITAN_CHECK(text.ok(), "{}", path);
  return *std::move(text);
}

}  // namespace witan::fuzz
