#include "coordinator/text/regex.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <optional>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/regex_syntax.h"
#include "coordinator/text/unicode_versions.h"

namespace witan {

namespace {

std::string MessageOfPcre2(int error) {
  PCRE2_UCHAR buffer[256];
  pcre2_get_error_message(error, buffer, sizeof(buffer));
  return reinterpret_cast<const char*>(buffer);
}

// Without the optimizations of where a match may start: those of PCRE2 10.42
// lose matches of some patterns, (?>[^a]+?|b)c for one, and gain little where
// nearly every character begins a match.
pcre2_code* CompileTranslated(std::string_view pattern, int* error) {
  size_t offset = 0;
  pcre2_compile_context* context = pcre2_compile_context_create(nullptr);
  pcre2_set_newline(context, PCRE2_NEWLINE_LF);
  pcre2_code* code = pcre2_compile(
      reinterpret_cast<PCRE2_SPTR>(pattern.data()), pattern.size(),
      PCRE2_UTF | PCRE2_UCP | PCRE2_MULTILINE | PCRE2_NO_START_OPTIMIZE, error,
      &offset, context);
  pcre2_compile_context_free(context);
  return code;
}

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
  if (pattern.size() > kMaxRegexPatternBytes) {
    return InvalidArgument("a pattern of {} bytes; at most {} are allowed",
                           pattern.size(), kMaxRegexPatternBytes);
  }
  absl::StatusOr<std::string> translated = TranslatePattern(pattern);
  if (!translated.ok()) {
    return Annotate(translated.status(), fmt::format("pattern '{}'", pattern));
  }
  int error = 0;
  auto code = std::make_shared<Code>();
  code->pattern = pattern;
  code->code = CompileTranslated(*translated, &error);
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
  const std::optional<std::string> older = WithOlderCharacters(text);
  const std::string_view subject = older.has_value() ? *older : text;
  size_t covered = 0;
  size_t offset = 0;
  bool has_matched = false;
  while (!text.empty() && offset <= text.size()) {
    size_t begin = 0;
    size_t end = 0;
    absl::StatusOr<bool> found = matcher.Find(subject, offset, &begin, &end);
    if (!found.ok()) {
      return Annotate(found.status(),
                      fmt::format("pattern '{}'", code_->pattern));
    }
    if (!*found) break;
    if (begin == end && has_matched && begin == covered) {
      // Step over one character.
      ++offset;
      while (offset < text.size() && (text[offset] & 0xC0) == 0x80) ++offset;
      continue;
    }
    if (begin > covered) parts->push_back({covered, begin, false});
    parts->push_back({begin, end, true});
    has_matched = true;
    covered = end;
    offset = end;
  }
  if (covered < text.size()) parts->push_back({covered, text.size(), false});
  return absl::OkStatus();
}

absl::StatusOr<std::string> Regex::ReplaceAll(std::string_view text,
                                              std::string_view replacement,
                                              size_t max_bytes) const {
  std::vector<Part> parts;
  RETURN_IF_ERROR(Split(text, &parts));
  std::string result;
  result.reserve(std::min(text.size(), max_bytes));
  for (const Part& part : parts) {
    const std::string_view piece =
        part.is_match ? replacement
                      : text.substr(part.begin, part.end - part.begin);
    if (piece.size() > max_bytes - result.size()) {
      return ResourceExhausted(
          "replacing pattern '{}' makes more than {} bytes of {}",
          code_->pattern, max_bytes, text.size());
    }
    result += piece;
  }
  return result;
}

}  // namespace witan
