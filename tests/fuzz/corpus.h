#ifndef WITAN_TESTS_FUZZ_CORPUS_H_
#define WITAN_TESTS_FUZZ_CORPUS_H_

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace witan::fuzz {

// The files of tests/fuzz/corpus/TARGET by name, with their contents.
std::map<std::string, std::string> CorpusOf(std::string_view target);

// The words of tests/fuzz/dictionaries/TARGET.dict, which is in libFuzzer's
// format ("word" with \\, \" and \xHH, a line each); none where there is no
// such file.
std::vector<std::string> DictionaryOf(std::string_view target);

}  // namespace witan::fuzz

#endif  // WITAN_TESTS_FUZZ_CORPUS_H_
