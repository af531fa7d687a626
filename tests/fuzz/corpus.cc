#include "tests/fuzz/corpus.h"

#include <fmt/format.h>

#include <filesystem>
#include <sstream>

#include "base/check.h"
#include "tests/fuzz/sections.h"

namespace witan::fuzz {
namespace {

// Of a line `"word"`.
std::string WordOf(const std::string& line) {
  WITAN_CHECK(line.size() >= 2 && line.front() == '"' && line.back() == '"',
              "{}", line);
  std::string word;
  for (size_t i = 1; i + 1 < line.size(); ++i) {
    if (line[i] != '\\') {
      word += line[i];
    } else if (line[i + 1] == 'x') {
      word += static_cast<char>(std::stoi(line.substr(i + 2, 2), nullptr, 16));
      i += 3;
    } else {
      word += line[++i];
    }
  }
  return word;
}

}  // namespace

std::map<std::string, std::string> CorpusOf(std::string_view target) {
  const std::string folder = fmt::format("tests/fuzz/corpus/{}/", target);
  std::map<std::string, std::string> files;
  for (const auto& entry :
       std::filesystem::directory_iterator(WITAN_SOURCE_DIR "/" + folder)) {
    const std::string name = entry.path().filename();
    files[name] = ReadSource(folder + name);
  }
  return files;
}

std::vector<std::string> DictionaryOf(std::string_view target) {
  const std::string path =
      fmt::format("tests/fuzz/dictionaries/{}.dict", target);
  std::vector<std::string> words;
  if (!std::filesystem::exists(WITAN_SOURCE_DIR "/" + path)) return words;
  std::istringstream lines(ReadSource(path));
  for (std::string line; std::getline(lines, line);) {
    if (!line.empty() && line[0] != '#') words.push_back(WordOf(line));
  }
  return words;
}

}  // namespace witan::fuzz
