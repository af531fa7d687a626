#include "coordinator/text/jinja_parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <set>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_lexer.h"

namespace witan::jinja {

namespace {

using Kind = Expression::Kind;

constexpr std::string_view kSupportedTags =
    "for, if, set, macro, break, continue, generation";

ExpressionPtr MakeExpression(Kind kind, int line) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

class Parser {
 public:
  explicit Parser(std::vector<Token> tokens) : tokens_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() { return ParseBody({}); }

 private:
  // Counts the nesting for as long as it lives.
  class Nesting {
   public:
    explicit Nesting(int* depth) : depth_(depth) { ++*depth_; }
    ~Nesting() { --*depth_; }
    Nesting(const Nesting&) = delete;
    Nesting& operator=(const Nesting&) = delete;

   private:
    int* depth_;
  };

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

  // --- Statements ----------------------------------------------------------

  // Statements up to a tag named in `ends`, whose name is the current token
  // then; an empty list stands for the end of the template.
  absl::StatusOr<Body> ParseBody(std::initializer_list<std::string_view> ends) {
    const Nesting nesting(&depth_);
    RETURN_IF_ERROR(CheckDepth());
    Body body;
    while (true) {
      if (Is(Token::Kind::kEnd)) {
        if (ends.size() == 0) return body;
        return Unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
      }
      if (Is(Token::Kind::kBlockBegin)) {
        if (std::find(ends.begin(), ends.end(), next().text) != ends.end()) {
          ++position_;
          return body;
        }
      }
      auto statement = std::make_unique<Statement>();
      statement->line = line();
      RETURN_IF_ERROR(ParseStatement(statement.get()));
      body.push_back(std::move(statement));
    }
  }

  absl::Status ParseStatement(Statement* statement) {
    if (Is(Token::Kind::kText)) {
      statement->text = Take().text;
      return absl::OkStatus();
    }
    if (Is(Token::Kind::kPrintBegin)) {
      ++position_;
      statement->kind = Statement::Kind::kPrint;
      ASSIGN_OR_RETURN(statement->expression, ParseTuple());
      if (!Is(Token::Kind::kPrintEnd)) return Unexpected("'}}'");
      ++position_;
      return absl::OkStatus();
    }
    ++position_;  // {%
    if (TakeName("if")) return ParseIf(statement);
    if (TakeName("for")) return ParseFor(statement);
    if (TakeName("set")) return ParseSet(statement);
    if (TakeName("macro")) return ParseMacro(statement);
    if (TakeName("generation")) return ParseGeneration(statement);
    if (IsName("break") || IsName("continue")) return ParseJump(statement);
    return Unexpected(fmt::format("one of the tags {}", kSupportedTags));
  }

  absl::Status ParseIf(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    while (true) {
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseTuple());
      statement->conditions.push_back(std::move(condition));
      RETURN_IF_ERROR(ExpectBlockEnd());
      ASSIGN_OR_RETURN(Body body, ParseBody({"elif", "else", "endif"}));
      statement->bodies.push_back(std::move(body));
      if (!TakeName("elif")) break;
    }
    return ParseElseAndEnd("endif", statement);
  }

  absl::Status ParseElseAndEnd(std::string_view end, Statement* statement) {
    if (TakeName("else")) {
      RETURN_IF_ERROR(ExpectBlockEnd());
      ASSIGN_OR_RETURN(Body body, ParseBody({end}));
      statement->bodies.push_back(std::move(body));
    }
    if (!TakeName(end)) return Unexpected(end);
    return ExpectBlockEnd();
  }

  absl::Status ParseFor(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    ASSIGN_OR_RETURN(statement->target, ParseTarget(/*allow_attribute=*/false));
    if (!TakeName("in")) return Unexpected("'in'");
    ASSIGN_OR_RETURN(statement->expression, ParseTuple(/*with_if=*/false));
    if (TakeName("if")) {
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseExpression());
      statement->conditions.push_back(std::move(condition));
    }
    if (IsName("recursive")) return Error("recursive loops are not supported");
    RETURN_IF_ERROR(ExpectBlockEnd());
    ++loop_depth_;
    absl::StatusOr<Body> body = ParseBody({"else", "endfor"});
    --loop_depth_;
    RETURN_IF_ERROR(body.status());
    statement->bodies.push_back(*std::move(body));
    return ParseElseAndEnd("endfor", statement);
  }

  absl::StatusOr<Target> ParseTarget(bool allow_attribute) {
    Target target;
    const bool has_parentheses = TakeOperator("(");
    do {
      if (!target.names.empty() && !Is(Token::Kind::kName)) break;
      ASSIGN_OR_RETURN(std::string name, ExpectName());
      static const std::set<std::string_view> kReserved = {
          "true", "false", "none", "True", "False", "None", "loop"};
      if (kReserved.contains(name)) return Error("cannot assign to '{}'", name);
      target.names.push_back(std::move(name));
      if (allow_attribute && target.names.size() == 1 && TakeOperator(".")) {
        ASSIGN_OR_RETURN(target.attribute, ExpectName());
        return target;
      }
      if (IsOperator(",")) target.is_tuple = true;
    } while (TakeOperator(","));
    if (has_parentheses) RETURN_IF_ERROR(ExpectOperator(")"));
    return target;
  }

  absl::Status ParseSet(Statement* statement) {
    ASSIGN_OR_RETURN(statement->target, ParseTarget(/*allow_attribute=*/true));
    if (TakeOperator("=")) {
      statement->kind = Statement::Kind::kSet;
      ASSIGN_OR_RETURN(statement->expression, ParseTuple());
      return ExpectBlockEnd();
    }
    statement->kind = Statement::Kind::kSetBlock;
    auto filtered = MakeExpression(Kind::kSuffixed, line());
    filtered->children.push_back(MakeExpression(Kind::kLiteral, line()));
    while (IsOperator("|")) {
      RETURN_IF_ERROR(ParseFilter(&filtered->suffixes));
    }
    statement->expression = std::move(filtered);
    RETURN_IF_ERROR(ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseBody({"endset"}));
    statement->bodies.push_back(std::move(body));
    ++position_;  // endset
    return ExpectBlockEnd();
  }

  absl::Status ParseMacro(Statement* statement) {
    statement->kind = Statement::Kind::kMacro;
    auto macro = std::make_unique<Macro>();
    ASSIGN_OR_RETURN(macro->name, ExpectName());
    RETURN_IF_ERROR(ExpectOperator("("));
    while (!IsOperator(")")) {
      if (!macro->parameters.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      if (IsOperator(")")) break;
      ASSIGN_OR_RETURN(std::string parameter, ExpectName());
      macro->parameters.push_back(std::move(parameter));
      if (TakeOperator("=")) {
        ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
        macro->defaults.push_back(std::move(value));
      } else if (!macro->defaults.empty()) {
        return Error("parameter '{}' without a default follows one with",
                     macro->parameters.back());
      }
    }
    ++position_;  // )
    RETURN_IF_ERROR(ExpectBlockEnd());
    const int outer_loops = std::exchange(loop_depth_, 0);
    absl::StatusOr<Body> body = ParseBody({"endmacro"});
    loop_depth_ = outer_loops;
    RETURN_IF_ERROR(body.status());
    macro->body = *std::move(body);
    statement->macro = std::move(macro);
    ++position_;  // endmacro
    return ExpectBlockEnd();
  }

  // Marks what the assistant wrote, for training; here it is only its content.
  absl::Status ParseGeneration(Statement* statement) {
    statement->kind = Statement::Kind::kGroup;
    RETURN_IF_ERROR(ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseBody({"endgeneration"}));
    statement->bodies.push_back(std::move(body));
    ++position_;  // endgeneration
    return ExpectBlockEnd();
  }

  absl::Status ParseJump(Statement* statement) {
    if (loop_depth_ == 0) return Error("'{}' outside a loop", current().text);
    statement->kind = Take().text == "break" ? Statement::Kind::kBreak
                                             : Statement::Kind::kContinue;
    return ExpectBlockEnd();
  }

  // --- Expressions, from the loosest operator to the tightest ---------------

  absl::StatusOr<ExpressionPtr> ParseTuple(bool with_if = true) {
    ASSIGN_OR_RETURN(ExpressionPtr first,
                     with_if ? ParseExpression() : ParseOr());
    if (!IsOperator(",")) return first;
    auto tuple = MakeExpression(Kind::kTuple, first->line);
    tuple->children.push_back(std::move(first));
    while (TakeOperator(",")) {
      if (EndsTuple()) break;
      ASSIGN_OR_RETURN(ExpressionPtr item,
                       with_if ? ParseExpression() : ParseOr());
      tuple->children.push_back(std::move(item));
    }
    return tuple;
  }

  bool EndsTuple() const {
    return Is(Token::Kind::kPrintEnd) || Is(Token::Kind::kBlockEnd) ||
           IsOperator(")") || IsName("in");
  }

  absl::StatusOr<ExpressionPtr> ParseExpression() {
    const Nesting nesting(&depth_);
    RETURN_IF_ERROR(CheckDepth());
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
    for (int num_ifs = 1; IsName("if"); ++num_ifs) {
      if (num_ifs > kMaxTemplateDepth) {
        return Error("more than {} inline ifs in a row", kMaxTemplateDepth);
      }
      auto conditional = MakeExpression(Kind::kConditional, line());
      ++position_;
      conditional->children.push_back(std::move(value));
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
      conditional->children.push_back(std::move(condition));
      if (TakeName("else")) {
        ASSIGN_OR_RETURN(ExpressionPtr otherwise, ParseExpression());
        conditional->children.push_back(std::move(otherwise));
      }
      value = std::move(conditional);
    }
    return value;
  }

  using ParseOperand = absl::StatusOr<ExpressionPtr> (Parser::*)();

  // operand (word operand)*
  absl::StatusOr<ExpressionPtr> ParseWordChain(Kind kind, std::string_view word,
                                               ParseOperand parse_operand) {
    ASSIGN_OR_RETURN(ExpressionPtr first, (this->*parse_operand)());
    if (!IsName(word)) return first;
    auto chain = MakeExpression(kind, first->line);
    chain->children.push_back(std::move(first));
    while (TakeName(word)) {
      ASSIGN_OR_RETURN(ExpressionPtr operand, (this->*parse_operand)());
      chain->children.push_back(std::move(operand));
    }
    return chain;
  }

  // operand (operator operand)*
  absl::StatusOr<ExpressionPtr> ParseOperatorChain(
      Kind kind, std::initializer_list<std::string_view> operators,
      ParseOperand parse_operand) {
    ASSIGN_OR_RETURN(ExpressionPtr first, (this->*parse_operand)());
    const auto at_operator = [&] {
      return Is(Token::Kind::kOperator) &&
             std::find(operators.begin(), operators.end(), current().text) !=
                 operators.end();
    };
    if (!at_operator()) return first;
    auto chain = MakeExpression(kind, first->line);
    chain->children.push_back(std::move(first));
    while (at_operator()) {
      chain->operators.push_back(Take().text);
      ASSIGN_OR_RETURN(ExpressionPtr operand, (this->*parse_operand)());
      chain->children.push_back(std::move(operand));
    }
    return chain;
  }

  absl::StatusOr<ExpressionPtr> ParseOr() {
    return ParseWordChain(Kind::kOr, "or", &Parser::ParseAnd);
  }
  absl::StatusOr<ExpressionPtr> ParseAnd() {
    return ParseWordChain(Kind::kAnd, "and", &Parser::ParseNot);
  }

  absl::StatusOr<ExpressionPtr> ParseNot() {
    if (!IsName("not")) return ParseCompare();
    const Nesting nesting(&depth_);
    RETURN_IF_ERROR(CheckDepth());
    auto negation = MakeExpression(Kind::kNot, line());
    ++position_;
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
    negation->children.push_back(std::move(operand));
    return negation;
  }

  // The comparison operator that stands here, or "".
  std::string TakeComparison() {
    for (std::string_view op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (TakeOperator(op)) return std::string(op);
    }
    if (TakeName("in")) return "in";
    if (IsName("not") && next().kind == Token::Kind::kName &&
        next().text == "in") {
      position_ += 2;
      return "not in";
    }
    return "";
  }

  absl::StatusOr<ExpressionPtr> ParseCompare() {
    ASSIGN_OR_RETURN(ExpressionPtr first, ParseSum());
    std::string op = TakeComparison();
    if (op.empty()) return first;
    auto chain = MakeExpression(Kind::kCompare, first->line);
    chain->children.push_back(std::move(first));
    while (!op.empty()) {
      chain->operators.push_back(std::move(op));
      ASSIGN_OR_RETURN(ExpressionPtr operand, ParseSum());
      chain->children.push_back(std::move(operand));
      op = TakeComparison();
    }
    return chain;
  }

  absl::StatusOr<ExpressionPtr> ParseSum() {
    return ParseOperatorChain(Kind::kArithmetic, {"+", "-"},
                              &Parser::ParseConcatenation);
  }
  absl::StatusOr<ExpressionPtr> ParseConcatenation() {
    return ParseOperatorChain(Kind::kConcatenate, {"~"}, &Parser::ParseProduct);
  }
  absl::StatusOr<ExpressionPtr> ParseProduct() {
    return ParseOperatorChain(Kind::kArithmetic, {"*", "/", "//", "%"},
                              &Parser::ParsePower);
  }
  absl::StatusOr<ExpressionPtr> ParsePower() {
    return ParseOperatorChain(Kind::kArithmetic, {"**"}, &Parser::ParseUnary);
  }

  absl::StatusOr<ExpressionPtr> ParseUnary() {
    return ParseSigned(/*with_filters=*/true);
  }

  absl::StatusOr<ExpressionPtr> ParseSigned(bool with_filters) {
    ExpressionPtr value;
    if (IsOperator("-") || IsOperator("+")) {
      const Nesting nesting(&depth_);
      RETURN_IF_ERROR(CheckDepth());
      value =
          MakeExpression(IsOperator("-") ? Kind::kNegate : Kind::kPlus, line());
      ++position_;
      ASSIGN_OR_RETURN(ExpressionPtr operand,
                       ParseSigned(/*with_filters=*/false));
      value->children.push_back(std::move(operand));
    } else {
      ASSIGN_OR_RETURN(value, ParsePrimary());
    }
    return ParseSuffixes(std::move(value), with_filters);
  }

  absl::StatusOr<ExpressionPtr> ParsePrimary() {
    auto value = MakeExpression(Kind::kLiteral, line());
    switch (current().kind) {
      case Token::Kind::kName:
        return ParseNameOrConstant();
      case Token::Kind::kString: {
        std::string text;
        while (Is(Token::Kind::kString)) text += Take().text;
        value->literal = Value(std::move(text));
        return value;
      }
      case Token::Kind::kInteger: {
        const std::string& digits = current().text;
        int64_t integer = 0;
        const auto [end, error] = std::from_chars(
            digits.data(), digits.data() + digits.size(), integer);
        if (error != std::errc()) {
          return Error("integer {} is beyond 64 bits", digits);
        }
        value->literal = Value(integer);
        ++position_;
        return value;
      }
      case Token::Kind::kFloat: {
        const std::string& digits = current().text;
        double number = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), number);
        value->literal = Value(number);
        ++position_;
        return value;
      }
      default:
        break;
    }
    if (TakeOperator("(")) return ParseParenthesized();
    if (IsOperator("[")) return ParseList();
    if (IsOperator("{")) return ParseDict();
    return Unexpected("a value");
  }

  absl::StatusOr<ExpressionPtr> ParseNameOrConstant() {
    auto value = MakeExpression(Kind::kLiteral, line());
    const std::string name = Take().text;
    if (name == "true" || name == "True") {
      value->literal = Value(true);
    } else if (name == "false" || name == "False") {
      value->literal = Value(false);
    } else if (name != "none" && name != "None") {
      value->kind = Kind::kName;
      value->name = name;
    }
    return value;
  }

  absl::StatusOr<ExpressionPtr> ParseParenthesized() {
    if (IsOperator(")")) {
      auto empty = MakeExpression(Kind::kTuple, line());
      ++position_;
      return empty;
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple());
    RETURN_IF_ERROR(ExpectOperator(")"));
    return value;
  }

  absl::StatusOr<ExpressionPtr> ParseList() {
    auto list = MakeExpression(Kind::kList, line());
    ++position_;
    while (!TakeOperator("]")) {
      if (!list->children.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      if (TakeOperator("]")) break;
      ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
      list->children.push_back(std::move(item));
    }
    return list;
  }

  absl::StatusOr<ExpressionPtr> ParseDict() {
    auto dict = MakeExpression(Kind::kDict, line());
    ++position_;
    while (!TakeOperator("}")) {
      if (!dict->children.empty()) RETURN_IF_ERROR(ExpectOperator(","));
      if (TakeOperator("}")) break;
      ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
      RETURN_IF_ERROR(ExpectOperator(":"));
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      dict->children.push_back(std::move(key));
      dict->children.push_back(std::move(value));
    }
    return dict;
  }

  absl::StatusOr<ExpressionPtr> ParseSuffixes(ExpressionPtr base,
                                              bool with_filters) {
    std::vector<Suffix> suffixes;
    while (true) {
      if (IsOperator(".") || IsOperator("[")) {
        RETURN_IF_ERROR(ParseSubscript(&suffixes));
      } else if (IsOperator("(")) {
        Suffix call;
        call.kind = Suffix::Kind::kCall;
        call.line = line();
        ASSIGN_OR_RETURN(call.arguments, ParseArguments());
        suffixes.push_back(std::move(call));
      } else if (with_filters && IsOperator("|")) {
        RETURN_IF_ERROR(ParseFilter(&suffixes));
      } else if (with_filters && IsName("is")) {
        RETURN_IF_ERROR(ParseTest(&suffixes));
      } else {
        break;
      }
    }
    if (suffixes.empty()) return base;
    auto suffixed = MakeExpression(Kind::kSuffixed, base->line);
    suffixed->children.push_back(std::move(base));
    suffixed->suffixes = std::move(suffixes);
    return suffixed;
  }

  absl::Status ParseSubscript(std::vector<Suffix>* suffixes) {
    Suffix suffix;
    suffix.line = line();
    if (TakeOperator(".")) {
      if (Is(Token::Kind::kInteger)) {
        suffix.kind = Suffix::Kind::kItem;
        ASSIGN_OR_RETURN(suffix.item, ParsePrimary());
      } else {
        ASSIGN_OR_RETURN(suffix.name, ExpectName());
      }
      suffixes->push_back(std::move(suffix));
      return absl::OkStatus();
    }
    ++position_;  // [
    suffix.kind = Suffix::Kind::kItem;
    if (!IsOperator(":")) {
      ASSIGN_OR_RETURN(suffix.item, ParseExpression());
    }
    if (IsOperator(":")) {
      suffix.kind = Suffix::Kind::kSlice;
      suffix.slice[0] = std::move(suffix.item);
      for (int i = 1; i < 3 && TakeOperator(":"); ++i) {
        if (IsOperator(":") || IsOperator("]")) continue;
        ASSIGN_OR_RETURN(suffix.slice[i], ParseExpression());
      }
    }
    RETURN_IF_ERROR(ExpectOperator("]"));
    suffixes->push_back(std::move(suffix));
    return absl::OkStatus();
  }

  // REQUIRES: at "(".
  absl::StatusOr<Arguments> ParseArguments() {
    Arguments arguments;
    ++position_;
    bool is_first = true;
    while (!TakeOperator(")")) {
      if (!is_first) RETURN_IF_ERROR(ExpectOperator(","));
      is_first = false;
      if (TakeOperator(")")) break;
      if (IsOperator("*") || IsOperator("**")) {
        return Error("arguments with * are not supported");
      }
      const bool is_named = Is(Token::Kind::kName) &&
                            next().kind == Token::Kind::kOperator &&
                            next().text == "=";
      std::string name;
      if (is_named) {
        name = Take().text;
        ++position_;  // =
      } else if (!arguments.named.empty()) {
        return Error("an argument without a name follows one with a name");
      }
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      if (is_named) {
        arguments.named.emplace_back(std::move(name), std::move(value));
      } else {
        arguments.positional.push_back(std::move(value));
      }
    }
    return arguments;
  }

  // REQUIRES: at "|".
  absl::Status ParseFilter(std::vector<Suffix>* suffixes) {
    Suffix filter;
    filter.kind = Suffix::Kind::kFilter;
    filter.line = line();
    ++position_;
    ASSIGN_OR_RETURN(filter.name, ExpectName());
    if (IsOperator("(")) {
      ASSIGN_OR_RETURN(filter.arguments, ParseArguments());
    }
    suffixes->push_back(std::move(filter));
    return absl::OkStatus();
  }

  // REQUIRES: at "is".
  absl::Status ParseTest(std::vector<Suffix>* suffixes) {
    Suffix test;
    test.kind = Suffix::Kind::kTest;
    test.line = line();
    ++position_;
    test.negated = TakeName("not");
    ASSIGN_OR_RETURN(test.name, ExpectName());
    if (IsOperator("(")) {
      ASSIGN_OR_RETURN(test.arguments, ParseArguments());
    } else if (AtTestArgument()) {
      const Nesting nesting(&depth_);
      RETURN_IF_ERROR(CheckDepth());
      ASSIGN_OR_RETURN(ExpressionPtr argument, ParsePrimary());
      ASSIGN_OR_RETURN(
          argument, ParseSuffixes(std::move(argument), /*with_filters=*/false));
      test.arguments.positional.push_back(std::move(argument));
    }
    suffixes->push_back(std::move(test));
    return absl::OkStatus();
  }

  // `is divisibleby 3` needs no parentheses.
  bool AtTestArgument() const {
    if (Is(Token::Kind::kName)) {
      static const std::set<std::string_view> kWords = {
          "and", "or", "else", "if", "in", "is", "not", "recursive"};
      return !kWords.contains(current().text);
    }
    return Is(Token::Kind::kString) || Is(Token::Kind::kInteger) ||
           Is(Token::Kind::kFloat) || IsOperator("[") || IsOperator("{");
  }

  std::vector<Token> tokens_;
  size_t position_ = 0;
  int depth_ = 0;
  int loop_depth_ = 0;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return Parser(std::move(tokens)).Run();
}

}  // namespace witan::jinja
