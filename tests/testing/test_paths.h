#ifndef WITAN_TESTS_TESTING_TEST_PATHS_H_
#define WITAN_TESTS_TESTING_TEST_PATHS_H_

#include <string>

namespace witan {

// Files of the source tree, by path from its root. WITAN_SOURCE_DIR comes from
// the build.
inline std::string SourcePath(const std::string& relative) {
  return std::string(WITAN_SOURCE_DIR) + "/" + relative;
}

}  // namespace witan

#endif  // WITAN_TESTS_TESTING_TEST_PATHS_H_
