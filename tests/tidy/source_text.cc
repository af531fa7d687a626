#include "tests/tidy/source_text.h"

#include <algorithm>
#include <cctype>

namespace witan::tidy {
namespace {

bool IsWord(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_';
}

// Walks over `text` and copies or blanks one piece at a time.
class Blanker {
 public:
  Blanker(std::string_view text, bool blank_literals)
      : text_(text), blank_literals_(blank_literals) {}

  std::string Run() {
    while (at_ < text_.size()) {
      if (StartsWith("//")) {
        Blank(EndOfLine());
      } else if (StartsWith("/*")) {
        Blank(After("*/", at_ + 2));
      } else if (StartsWith("R\"") && !AfterWord()) {
        const size_t open = text_.find('(', at_);
        const std::string close =
            ")" + std::string(text_.substr(at_ + 2, open - at_ - 2)) + "\"";
        Literal(After(close, open));
      } else if (text_[at_] == '"' || (text_[at_] == '\'' && !AfterWord())) {
        Literal(EndOfQuoted());
      } else {
        code_ += text_[at_++];
      }
    }
    return std::move(code_);
  }

 private:
  bool StartsWith(std::string_view piece) const {
    return text_.substr(at_, piece.size()) == piece;
  }
  // True inside a number such as 1'000 and after an identifier.
  bool AfterWord() const { return at_ > 0 && IsWord(text_[at_ - 1]); }
  size_t EndOfLine() const {
    const size_t end = text_.find('\n', at_);
    return end == std::string_view::npos ? text_.size() : end;
  }
  size_t After(std::string_view piece, size_t from) const {
    const size_t found = text_.find(piece, from);
    return found == std::string_view::npos ? text_.size()
                                           : found + piece.size();
  }
  size_t EndOfQuoted() const {
    size_t end = at_ + 1;
    while (end < text_.size() && text_[end] != text_[at_]) {
      end += text_[end] == '\\' ? 2 : 1;
    }
    return std::min(end + 1, text_.size());
  }
  void Literal(size_t end) {
    if (blank_literals_) {
      Blank(end);
    } else {
      code_ += text_.substr(at_, end - at_);
      at_ = end;
    }
  }
  void Blank(size_t end) {
    for (; at_ < end; ++at_) code_ += text_[at_] == '\n' ? '\n' : ' ';
  }

  std::string_view text_;
  bool blank_literals_;
  size_t at_ = 0;
  std::string code_;
};

bool HasWord(std::string_view text, std::string_view word) {
  for (size_t at = text.find(word); at != std::string_view::npos;
       at = text.find(word, at + 1)) {
    const size_t end = at + word.size();
    if ((at == 0 || !IsWord(text[at - 1])) &&
        (end == text.size() || !IsWord(text[end]))) {
      return true;
    }
  }
  return false;
}

enum class Scope { kDeclarations, kFunction, kOther };

// What a brace opens, from the text between the last ';', '{' or '}' and it.
Scope ScopeOf(std::string_view head) {
  if (HasWord(head, "namespace")) return Scope::kDeclarations;
  if (head.find('(') != std::string_view::npos) return Scope::kFunction;
  for (const char* word : {"class", "struct", "union", "extern"}) {
    if (HasWord(head, word)) return Scope::kDeclarations;
  }
  return Scope::kOther;
}

}  // namespace

std::string CodeOf(std::string_view text, bool blank_literals) {
  return Blanker(text, blank_literals).Run();
}

std::vector<Function> FunctionsOf(std::string_view code) {
  struct Brace {
    Scope scope;
    int line;
  };
  std::vector<Function> functions;
  std::vector<Brace> open;
  int line = 1;
  int num_parentheses = 0;
  bool in_directive = false;
  std::string head;
  for (size_t i = 0; i < code.size(); ++i) {
    const char c = code[i];
    if (c == '#' && head.find_first_not_of(" \n") == std::string::npos) {
      in_directive = true;
    }
    if (c == '\n') {
      ++line;
      if (i == 0 || code[i - 1] != '\\') in_directive = false;
    }
    if (in_directive) continue;
    if (c == '(') ++num_parentheses;
    if (c == ')') --num_parentheses;
    const bool at_declarations =
        num_parentheses == 0 &&
        (open.empty() || open.back().scope == Scope::kDeclarations);
    if (c == '{') {
      open.push_back({at_declarations ? ScopeOf(head) : Scope::kOther, line});
    } else if (c == '}' && !open.empty()) {
      if (open.back().scope == Scope::kFunction) {
        functions.push_back({open.back().line, line - open.back().line + 1});
      }
      open.pop_back();
    }
    if (c == '{' || c == '}' || (c == ';' && num_parentheses == 0)) {
      head.clear();
    } else {
      head += c;
    }
  }
  return functions;
}

std::vector<std::string> LinesOf(std::string_view text) {
  std::vector<std::string> lines;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    lines.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return lines;
}

}  // namespace witan::tidy
