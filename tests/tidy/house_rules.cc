#include "tests/tidy/house_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <regex>
#include <set>
#include <sstream>
#include <string_view>

#include "tests/tidy/source_text.h"

namespace witan::tidy {
namespace {

// Folder -> folders whose headers it may include besides its own. The longest
// key that is a prefix of a path is its folder. Tests and benchmarks may
// include everything.
const std::map<std::string, std::set<std::string>>& Arrows() {
  static const auto& arrows = *new std::map<std::string, std::set<std::string>>{
      {"base", {}},
      {"net", {"base"}},
      {"model", {"base"}},
      {"proto", {"model", "base"}},
      {"kernels", {"base"}},
      {"worker", {"net", "proto", "model", "kernels", "base"}},
      {"coordinator", {"net", "proto", "model", "base", "coordinator/text"}},
      {"coordinator/text", {"base"}},
      {"cli", {"net", "proto", "model", "base", "coordinator/text"}},
  };
  return arrows;
}

std::string FolderOf(const std::string& path) {
  std::string folder;
  for (const auto& [name, allowed] : Arrows()) {
    if (path.starts_with(name + "/") && name.size() > folder.size()) {
      folder = name;
    }
  }
  return folder;
}

// Files at the edge, which alone may speak gRPC, protobuf and Prometheus; all
// others run under the thread sanitizer.
bool IsRpcEdge(const std::string& path) {
  static const std::regex edge(
      "(proto|net|cli|bench|tests|coordinator/api)/.*"
      "|coordinator/cluster/grpc_[a-z_]*\\.(h|cc)"
      "|worker/[a-z_]*_(service|metrics)\\.(h|cc)"
      "|(coordinator|worker)/[a-z_]*_main\\.cc");
  return std::regex_match(path, edge);
}

struct Pattern {
  std::regex regex;
  std::string message;
  bool in_comments;            // look at comments and literals too
  std::regex allowed_in_path;  // files that may do it
};

const std::vector<Pattern>& ForbiddenPatterns() {
  // Spelled in two pieces, so that this file does not break its own rules.
  static const auto& patterns = *new std::vector<Pattern>{
      {std::regex("\\b(TO"
                  "DO|FIX"
                  "ME|XX"
                  "X|HA"
                  "CK)\\b"),
       "an unfinished remark; finish it or file it", true, std::regex("-")},
      {std::regex("/wo"
                  "rk/"),
       "a path of somebody's machine", true, std::regex("-")},
      {std::regex("DIS"
                  "ABLED_"),
       "a disabled test", true, std::regex("-")},
      {std::regex("\\b\\w*(Man"
                  "ager|Hel"
                  "per|Ut"
                  "il)s?\\b"),
       "a name that says nothing (manager, helper, util)", false,
       std::regex("-")},
      {std::regex("std::for"
                  "mat\\b"),
       "g++ 12 has no std::format; use fmt", false, std::regex("-")},
      {std::regex("absl::(Mut"
                  "ex|Notific"
                  "ation|CondV"
                  "ar)"),
       "invisible to the thread sanitizer; use base/mutex.h", false,
       std::regex("-")},
      {std::regex("\\batomic_thread_fe"
                  "nce\\b"),
       "the thread sanitizer does not see fences", false, std::regex("-")},
      {std::regex("sleep_f"
                  "or|sleep_un"
                  "til|\\bu?sl"
                  "eep\\(|nanosl"
                  "eep"),
       "waiting by the clock; wait for the event", false, std::regex("-")},
      {std::regex("std::c(out|err)\\b|\\b(printf|puts)\\("),
       "output outside base/log, the command line and mains", false,
       std::regex(
           "(cli|bench|tests)/.*|.*_main\\.cc|base/(config|check)\\.cc")},
      {std::regex("\\bthrow\\b"), "exceptions of ours; return a status", false,
       std::regex("-")},
  };
  return patterns;
}

// Constants whose names sound like a limit and are none.
const std::map<std::string, std::string>& NoLimits() {
  static const auto& names = *new std::map<std::string, std::string>{
      {"base/cpu_memory.h", "kMaxPaddedRows"},  // follows from the packing
      // What the library writes for the worst character.
      {"coordinator/text/normalizer.cc", "kMaxDecomposed"},
  };
  return names;
}

class Checker {
 public:
  Checker(const SourceFile& file, const Exceptions& exceptions)
      : file_(file), exceptions_(exceptions) {}

  std::vector<std::string> Run() {
    lines_ = LinesOf(file_.text);
    const std::string code = CodeOf(file_.text, true);
    code_lines_ = LinesOf(code);
    CheckName();
    CheckLengths(code);
    CheckIncludes();
    CheckPatterns();
    CheckMetricNames();
    CheckLimits(code);
    CheckGuard();
    if (file_.path.ends_with("_test.cc") &&
        !std::regex_search(code, std::regex("\\b(TEST|TEST_F|TEST_P)\\("))) {
      Report(1, "a test program without a test");
    }
    return std::move(violations_);
  }

 private:
  void Report(int line, const std::string& message) {
    violations_.push_back(fmt::format("{}:{}: {}", file_.path, line, message));
  }

  // Files called *-inl.h hold bodies that several sources include, each in a
  // namespace of its own.
  bool IsHeader() const {
    return file_.path.ends_with(".h") && !file_.path.ends_with("-inl.h");
  }

  int Limit(const std::string& key, int usual) const {
    const auto found = exceptions_.find(key);
    return found == exceptions_.end() ? usual : found->second;
  }

  void CheckName() {
    static const std::regex vague(".*(manager|helper|util)s?(_|\\.).*");
    if (std::regex_match(file_.path, vague)) {
      Report(1, "a file name that says nothing (manager, helper, util)");
    }
    // CMake links tests/FOLDER/*.cc to the tests of that folder and looks for
    // other sources nowhere.
    static const std::regex deep("tests/[^/]+/.+/.*\\.cc");
    if (std::regex_match(file_.path, deep) &&
        !file_.path.ends_with("_test.cc")) {
      Report(1, "a test source in a folder that the build does not look into");
    }
  }

  void CheckLengths(const std::string& code) {
    const int limit =
        Limit(file_.path, IsHeader() ? kMaxHeaderLines : kMaxFileLines);
    const int num_lines = static_cast<int>(lines_.size());
    if (num_lines > limit) {
      Report(num_lines, fmt::format("{} lines, at most {}", num_lines, limit));
    }
    const int function_limit =
        Limit(file_.path + ":function", file_.path.starts_with("tests/")
                                            ? kMaxTestFunctionLines
                                            : kMaxFunctionLines);
    for (const Function& function : FunctionsOf(code)) {
      if (function.num_lines > function_limit) {
        Report(function.first_line,
               fmt::format("a function of {} lines, at most {}",
                           function.num_lines, function_limit));
      }
    }
  }

  void CheckIncludes() {
    static const std::regex quoted("^\\s*#\\s*include\\s+\"([^\"]+)\"");
    static const std::regex rpc(
        "^\\s*#\\s*include\\s+[<\"]"
        "(grpc|google/protobuf|prometheus/|.*\\.pb\\.h)");
    const std::string from = FolderOf(file_.path);
    for (size_t i = 0; i < lines_.size(); ++i) {
      const int line = static_cast<int>(i) + 1;
      if (std::regex_search(lines_[i], rpc) && !IsRpcEdge(file_.path)) {
        Report(line, "RPC outside the edges");
      }
      std::smatch match;
      if (from.empty() || !std::regex_search(lines_[i], match, quoted)) {
        continue;
      }
      const std::string to = FolderOf(match[1]);
      if (to.empty()) {
        Report(line, fmt::format("\"{}\" is not included from the root of the "
                                 "repository",
                                 match[1].str()));
      } else if (to != from && !Arrows().at(from).contains(to)) {
        Report(line, fmt::format("{} may not include {}", from, to));
      }
    }
  }

  void CheckPatterns() {
    for (const Pattern& pattern : ForbiddenPatterns()) {
      if (std::regex_match(file_.path, pattern.allowed_in_path)) continue;
      const auto& lines = pattern.in_comments ? lines_ : code_lines_;
      for (size_t i = 0; i < lines.size(); ++i) {
        if (std::regex_search(lines[i], pattern.regex)) {
          Report(static_cast<int>(i) + 1, pattern.message);
        }
      }
    }
  }

  void CheckMetricNames() {
    if (file_.path.starts_with("tests/") ||
        file_.path.starts_with("base/metric_names.")) {
      return;
    }
    static const std::regex name(
        "\"witan_[a-z_]+_(total|seconds|bytes|tokens|blocks|ratio|info)\"");
    const std::vector<std::string> lines =
        LinesOf(CodeOf(file_.text, /*blank_literals=*/false));
    for (size_t i = 0; i < lines.size(); ++i) {
      if (std::regex_search(lines[i], name)) {
        Report(static_cast<int>(i) + 1,
               "a metric's name outside base/metric_names.h");
      }
    }
  }

  // A maximum, a minimum or a wait has its name in base/limits.h. Kernels have
  // none: what is called so there is the shape of a tile.
  void CheckLimits(const std::string& code) {
    if (file_.path == "base/limits.h" || FolderOf(file_.path).empty() ||
        FolderOf(file_.path) == "kernels") {
      return;
    }
    static const std::regex limit(
        "\\bconst(expr)?\\b[^=;(){}]*\\b"
        "(k(Max|Min)[A-Z]\\w*|"
        "k\\w*(Limit|Timeout|Interval|Pause|Grace|Delay)\\w*)\\s*[={]");
    const auto exempt = NoLimits().find(file_.path);
    for (std::sregex_iterator match(code.begin(), code.end(), limit), end;
         match != end; ++match) {
      const std::string name = (*match)[2];
      if (exempt != NoLimits().end() && exempt->second == name) continue;
      const auto at = code.begin() + match->position() + match->length();
      Report(1 + static_cast<int>(std::count(code.begin(), at, '\n')),
             name + ": a limit outside base/limits.h");
    }
  }

  void CheckGuard() {
    if (!IsHeader()) return;
    std::string guard = "WITAN_" + file_.path + "_";
    for (char& c : guard) {
      c = c == '/' || c == '.' ? '_' : static_cast<char>(std::toupper(c));
    }
    if (file_.text.find("#ifndef " + guard + "\n#define " + guard + "\n") ==
        std::string::npos) {
      Report(1, "the include guard is not " + guard);
    }
  }

  const SourceFile& file_;
  const Exceptions& exceptions_;
  std::vector<std::string> lines_;
  std::vector<std::string> code_lines_;  // comments and literals blanked
  std::vector<std::string> violations_;
};

}  // namespace

Exceptions ParseExceptions(const std::string& text) {
  Exceptions exceptions;
  for (const std::string& line : LinesOf(text)) {
    std::istringstream words(line.substr(0, line.find('#')));
    std::string key;
    int lines = 0;
    if (words >> key >> lines) exceptions[key] = lines;
  }
  return exceptions;
}

std::vector<std::string> Violations(const std::vector<SourceFile>& files,
                                    const Exceptions& exceptions) {
  std::vector<std::string> all;
  for (const SourceFile& file : files) {
    const auto found = Checker(file, exceptions).Run();
    all.insert(all.end(), found.begin(), found.end());
  }
  for (const auto& [key, lines] : exceptions) {
    const std::string path = key.substr(0, key.find(':'));
    if (std::none_of(files.begin(), files.end(), [&](const SourceFile& file) {
          return file.path == path;
        })) {
      all.push_back("tests/tidy/exceptions.txt: there is no " + path);
    }
  }
  return all;
}

std::vector<std::string> ExpectedTests(const std::vector<SourceFile>& files) {
  std::vector<std::string> names;
  for (const SourceFile& file : files) {
    if (!file.path.starts_with("tests/") || !file.path.ends_with("_test.cc")) {
      continue;
    }
    std::string name = file.path.substr(6, file.path.size() - 6 - 3);
    std::replace(name.begin(), name.end(), '/', '_');
    names.push_back(name);
  }
  return names;
}

}  // namespace witan::tidy
