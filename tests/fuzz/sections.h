#ifndef WITAN_TESTS_FUZZ_SECTIONS_H_
#define WITAN_TESTS_FUZZ_SECTIONS_H_

#include <string>
#include <string_view>
#include <vector>

namespace witan::fuzz {

// `input` cut at its first `num - 1` zero bytes; sections that are not there
// are empty.
std::vector<std::string> SectionsOf(std::string_view input, size_t num);

std::string JoinSections(const std::vector<std::string>& sections);

// A file of the sources; stops the program when there is none.
std::string ReadSource(const std::string& path);

}  // namespace witan::fuzz

#endif  // WITAN_TESTS_FUZZ_SECTIONS_H_
