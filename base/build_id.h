#ifndef WITAN_BASE_BUILD_ID_H_
#define WITAN_BASE_BUILD_ID_H_

#include <string>

namespace witan {

// "0.1.0".
std::string Version();

// 16 hex digits of a SHA-256 over all sources, the compiler and its flags:
// equal in all binaries of one build, and in two builds of the same tree with
// the same compiler. Workers of another build are refused.
std::string BuildId();

// "witan-worker 0.1.0 (build 0123456789abcdef)", for --version.
std::string VersionLine(const std::string& program);

}  // namespace witan

#endif  // WITAN_BASE_BUILD_ID_H_
