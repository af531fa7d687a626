#ifndef WITAN_COORDINATOR_TEXT_JINJA_TOKEN_STREAM_H_
#define WITAN_COORDINATOR_TEXT_JINJA_TOKEN_STREAM_H_

#include <absl/status/statusor.h>
#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_lexer.h"

namespace witan::jinja {

// Where a parser stands in the tokens of a template, how deep it is nested,
// and the errors that say so.
class TokenStream {
 public:
  // REQUIRES: `tokens` ends with kEnd, as Tokenize gives them.
  explicit TokenStream(std::vector<Token> tokens)
      : tokens_(std::move(tokens)) {}

  // Counts the nesting for as long as it lives.
  class Nesting {
   public:
    explicit Nesting(TokenStream* tokens) : tokens_(tokens) {
      ++tokens_->depth_;
    }
    ~Nesting() { --tokens_->depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    TokenStream* tokens_;
  };

  // Unknown filters and tests are errors of the template, but in `if` they are
  // only if they are reached; there this lives.
  class Deferral {
   public:
    explicit Deferral(TokenStream* tokens, bool defers = true)
        : tokens_(tokens), outer_(std::exchange(tokens->defers_, defers)) {}
    ~Deferral() { tokens_->defers_ = outer_; }
    Deferral(const Deferral&) = delete;
    Deferral& operator=(const Deferral&) = delete;

   private:
    TokenStream* tokens_;
    bool outer_;
  };

  void NoteUnknown(absl::Status error) {
    if (!defers_) unknown_.push_back(std::move(error));
  }
  size_t num_unknown() const { return unknown_.size(); }
  // Those after the first `num_unknown` turned out to stand in an `if`.
  void ForgetUnknown(size_t num_unknown) { unknown_.resize(num_unknown); }
  absl::Status FirstUnknown() const {
    return unknown_.empty() ? absl::OkStatus() : unknown_.front();
  }

  size_t position() const { return position_; }
  // Whether the tokens from `begin` up to here read the variable `name`.
  bool Reads(size_t begin, std::string_view name) const {
    for (size_t i = begin; i < position_; ++i) {
      const Token& token = tokens_[i];
      if (token.kind != Token::Kind::kName || token.text != name) continue;
      const auto is = [&](size_t at, std::string_view text) {
        return at < tokens_.size() &&
               tokens_[at].kind == Token::Kind::kOperator &&
               tokens_[at].text == text;
      };
      if (!is(i - 1, ".") && !is(i + 1, "=")) return true;
    }
    return false;
  }

  const Token& current() const { return tokens_[position_]; }
  const Token& next() const {
    return tokens_[std::min(position_ + 1, tokens_.size() - 1)];
  }
  int line() const { return current().line; }
  // The last token, kEnd, is never passed.
  Token Take() {
    return current().kind == Token::Kind::kEnd ? current()
                                               : tokens_[position_++];
  }
  void Skip() { Take(); }
  bool Is(Token::Kind kind) const { return current().kind == kind; }
  bool IsOperator(std::string_view text) const {
    return Is(Token::Kind::kOperator) && current().text == text;
  }
  bool IsName(std::string_view text) const {
    return Is(Token::Kind::kName) && current().text == text;
  }
  bool TakeOperator(std::string_view text) {
    if (!IsOperator(text)) return false;
    ++position_;
    return true;
  }
  bool TakeName(std::string_view text) {
    if (!IsName(text)) return false;
    ++position_;
    return true;
  }

  template <typename... Args>
  absl::Status Error(fmt::format_string<Args...> format, Args&&... args) {
    return InvalidArgument("line {}: {}", line(),
                           fmt::format(format, std::forward<Args>(args)...));
  }
  absl::Status Unexpected(std::string_view expected) {
    std::string_view found = current().text;
    if (Is(Token::Kind::kEnd)) found = "end of template";
    if (Is(Token::Kind::kBlockEnd)) found = "%}";
    if (Is(Token::Kind::kPrintEnd)) found = "}}";
    return Error("expected {}, got '{}'", expected, found);
  }
  absl::Status CheckDepth() {
    if (depth_ <= kMaxTemplateDepth) return absl::OkStatus();
    return Error("nested deeper than {} levels", kMaxTemplateDepth);
  }
  absl::Status ExpectOperator(std::string_view text) {
    if (TakeOperator(text)) return absl::OkStatus();
    return Unexpected(fmt::format("'{}'", text));
  }
  absl::Status ExpectBlockEnd() {
    if (!Is(Token::Kind::kBlockEnd)) return Unexpected("'%}'");
    ++position_;
    return absl::OkStatus();
  }
  absl::StatusOr<std::string> ExpectName() {
    if (!Is(Token::Kind::kName)) return Unexpected("a name");
    return Take().text;
  }

 private:
  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
  bool defers_ = false;
  std::vector<absl::Status> unknown_;
};

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_TOKEN_STREAM_H_
