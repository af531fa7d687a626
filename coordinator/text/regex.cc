#include "coordinator/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

namespace {

constexpr std::string_view kWordClass = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";

std::string MessageOfPcre2(int error) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(error, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

pcre2_code* CompileRaw(std::string_view pattern, int* error, size_t* offset) {
  return pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern.data()),
                       pattern.size(), PCRE2_UTF | PCRE2_UCP, error, offset,
                       nullptr);
}

// PCRE2 reads \p{Han} as a script with its extensions, Oniguruma as the script
// alone; a name that is a script therefore gets an explicit "sc:".
std::string TranslateProperty(std::string_view escape) {
  const size_t name_begin = escape.find_first_not_of('^', 3);
  std::string script(escape.substr(0, name_begin));
  script += "sc:";
  script += escape.substr(name_begin);
  int error = 0;
  size_t offset = 0;
  pcre2_code* code = CompileRaw(script, &error, &offset);
  if (code == nullptr) return std::string(escape);
  pcre2_code_free(code);
  return script;
}

// Rewrites the escapes whose meaning differs between Oniguruma and PCRE2 and
// refuses the syntax that only the former has.
class Translator {
 public:
  explicit Translator(std::string_view pattern) : pattern_(pattern) {}

  absl::StatusOr<std::string> Run() {
    while (position_ < pattern_.size()) {
      const char c = pattern_[position_];
      if (c == '\\' && position_ + 1 < pattern_.size()) {
        RETURN_IF_ERROR(Escape());
        continue;
      }
      if (c == '[') {
        const bool is_posix = pattern_.substr(position_).starts_with("[:");
        if (in_class_ && !is_posix) {
          return InvalidArgument("nested character classes are not supported");
        }
        if (in_class_) {
          CopyPosixClass();
          continue;
        }
        OpenClass();
        continue;
      }
      if (in_class_ && pattern_.substr(position_).starts_with("&&")) {
        return InvalidArgument(
            "intersections of character classes (&&) are not supported");
      }
      if (c == ']') in_class_ = false;
      output_ += c;
      ++position_;
    }
    return std::move(output_);
  }

 private:
  // A ']' right after '[' or '[^' is a member of the class.
  void OpenClass() {
    in_class_ = true;
    output_ += pattern_[position_++];
    if (position_ < pattern_.size() && pattern_[position_] == '^') {
      output_ += pattern_[position_++];
    }
    if (position_ < pattern_.size() && pattern_[position_] == ']') {
      output_ += R"(\])";
      ++position_;
    }
  }

  void CopyPosixClass() {
    size_t end = pattern_.find(":]", position_);
    end = end == std::string_view::npos ? pattern_.size() : end + 2;
    output_ += pattern_.substr(position_, end - position_);
    position_ = end;
  }

  absl::Status Escape() {
    const char letter = pattern_[position_ + 1];
    size_t length = 2;
    switch (letter) {
      case 's':
        output_ += R"(\p{White_Space})";
        break;
      case 'S':
        output_ += R"(\P{White_Space})";
        break;
      case 'w':
        if (!in_class_) output_ += '[';
        output_ += kWordClass;
        if (!in_class_) output_ += ']';
        break;
      case 'W':
        if (in_class_) {
          return InvalidArgument("\\W in a character class is not supported");
        }
        output_ += "[^";
        output_ += kWordClass;
        output_ += ']';
        break;
      case 'b':
      case 'B':
        if (!in_class_) {
          return InvalidArgument("\\{} is not supported", letter);
        }
        output_ += pattern_.substr(position_, 2);
        break;
      case 'h':
        output_ += in_class_ ? "0-9a-fA-F" : "[0-9a-fA-F]";
        break;
      case 'H':
      case 'R':
      case 'X':
      case 'Q':
      case 'E':
      case 'C':
        return InvalidArgument("\\{} is not supported", letter);
      case 'p':
      case 'P': {
        const size_t end = pattern_.find('}', position_);
        if (pattern_.substr(position_ + 2, 1) == "{" &&
            end != std::string_view::npos) {
          length = end + 1 - position_;
          output_ += TranslateProperty(pattern_.substr(position_, length));
        } else {
          output_ += pattern_.substr(position_, length);
        }
        break;
      }
      default:
        output_ += pattern_.substr(position_, 2);
    }
    position_ += length;
    return absl::OkStatus();
  }

  std::string_view pattern_;
  size_t position_ = 0;
  bool in_class_ = false;
  std::string output_;
};

// What one run of matches needs; made per call so that threads share nothing.
class Matcher {
 public:
  explicit Matcher(const pcre2_code* code)
      : code_(code),
        context_(pcre2_match_context_create(nullptr)),
        data_(pcre2_match_data_create(1, nullptr)) {
    pcre2_set_match_limit(context_, kMaxRegexSteps);
    pcre2_set_heap_limit(context_, kMaxRegexHeapKib);
  }
  ~Matcher() {
    pcre2_match_data_free(data_);
    pcre2_match_context_free(context_);
    if (jit_stack_ != nullptr) pcre2_jit_stack_free(jit_stack_);
  }
  Matcher(const Matcher&) = delete;
  Matcher& operator=(const Matcher&) = delete;

  // True and the bounds of the first match at or behind `offset`, or false.
  absl::StatusOr<bool> Find(std::string_view text, size_t offset, size_t* begin,
                            size_t* end) {
    int rc = Match(text, offset);
    if (rc == PCRE2_ERROR_JIT_STACKLIMIT && jit_stack_ == nullptr) {
      // Compiled code starts on 32 KiB of the thread's own stack.
      jit_stack_ = pcre2_jit_stack_create(size_t{64} << 10,
                                          kMaxRegexJitStackBytes, nullptr);
      pcre2_jit_stack_assign(context_, nullptr, jit_stack_);
      rc = Match(text, offset);
    }
    if (rc == PCRE2_ERROR_NOMATCH) return false;
    if (rc < 0) {
      return ResourceExhausted("matching at byte {} failed: {}", offset,
                               MessageOfPcre2(rc));
    }
    const size_t* bounds = pcre2_get_ovector_pointer(data_);
    *begin = bounds[0];
    *end = bounds[1];
    return true;
  }

 private:
  int Match(std::string_view text, size_t offset) {
    return pcre2_match(code_, reinterpret_cast<PCRE2_SPTR>(text.data()),
                       text.size(), offset, PCRE2_NO_UTF_CHECK, data_,
                       context_);
  }

  const pcre2_code* code_;
  pcre2_match_context* context_;
  pcre2_match_data* data_;
  pcre2_jit_stack* jit_stack_ = nullptr;
};

}  // namespace

struct Regex::Code {
  std::string pattern;  // as it was given, for errors
  pcre2_code* code = nullptr;

  Code() = default;
  Code(const Code&) = delete;
  Code& operator=(const Code&) = delete;
  ~Code() { pcre2_code_free(code); }
};

Regex::Regex(std::shared_ptr<const Code> code) : code_(std::move(code)) {}

absl::StatusOr<Regex> Regex::Compile(std::string_view pattern) {
  absl::StatusOr<std::string> translated = Translator(pattern).Run();
  if (!translated.ok()) {
    return Annotate(translated.status(), fmt::format("pattern '{}'", pattern));
  }
  int error = 0;
  size_t offset = 0;
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->code = CompileRaw(*translated, &error, &offset);
  if (code->code == nullptr) {
    return InvalidArgument("pattern '{}' does not compile: {}", pattern,
                           MessageOfPcre2(error));
  }
  // Without a JIT for this machine the interpreter gives the same matches.
  (void)pcre2_jit_compile(code->code, PCRE2_JIT_COMPLETE);
  return Regex(std::move(code));
}

absl::StatusOr<Regex> Regex::CompileLiteral(std::string_view text) {
  std::string pattern;
  for (char c : text) {
    const bool is_punctuation =
        (c > 0x20 && c < 0x7F) && !(c >= '0' && c <= '9') &&
        !(c >= 'A' && c <= 'Z') && !(c >= 'a' && c <= 'z');
    if (is_punctuation) pattern += '\\';
    pattern += c;
  }
  return Compile(pattern);
}

absl::Status Regex::Split(std::string_view text,
                          std::vector<Part>* parts) const {
  Matcher matcher(code_->code);
  size_t covered = 0;
  size_t offset = 0;
  while (offset <= text.size()) {
    size_t begin = 0;
    size_t end = 0;
    absl::StatusOr<bool> found = matcher.Find(text, offset, &begin, &end);
    if (!found.ok()) {
      return Annotate(found.status(),
                      fmt::format("pattern '{}'", code_->pattern));
    }
    if (!*found) break;
    if (end > begin) {
      if (begin > covered) parts->push_back({covered, begin, false});
      parts->push_back({begin, end, true});
      covered = end;
      offset = end;
    } else {
      // An empty match cuts nothing; step over one character.
      offset = end + 1;
      while (offset < text.size() && (text[offset] & 0xC0) == 0x80) ++offset;
    }
  }
  if (covered < text.size()) parts->push_back({covered, text.size(), false});
  return absl::OkStatus();
}

absl::StatusOr<std::string> Regex::ReplaceAll(
    std::string_view text, std::string_view replacement) const {
  std::vector<Part> parts;
  RETURN_IF_ERROR(Split(text, &parts));
  std::string result;
  result.reserve(text.size());
  for (const Part& part : parts) {
    result += part.is_match ? replacement
                            : text.substr(part.begin, part.end - part.begin);
  }
  return result;
}

}  // namespace witan
