#include "coordinator/text/jinja_expression_parser.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "coordinator/text/jinja_builtins.h"

namespace witan::jinja {

namespace {

using Kind = Expression::Kind;

ExpressionPtr MakeExpression(Kind kind, int line) {
  auto expression = std::make_unique<Expression>();
  expression->kind = kind;
  expression->line = line;
  return expression;
}

// One function for each level of precedence, from the loosest operator to the
// tightest.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream* tokens) : tokens_(tokens) {}

  absl::StatusOr<ExpressionPtr> ParseTuple(bool with_if = true) {
    ASSIGN_OR_RETURN(ExpressionPtr first,
                     with_if ? ParseExpression() : ParseOr());
    if (!tokens_->IsOperator(",")) return first;
    auto tuple = MakeExpression(Kind::kTuple, first->line);
    tuple->children.push_back(std::move(first));
    while (tokens_->TakeOperator(",")) {
      if (EndsTuple(with_if)) break;
      ASSIGN_OR_RETURN(ExpressionPtr item,
                       with_if ? ParseExpression() : ParseOr());
      tuple->children.push_back(std::move(item));
    }
    return tuple;
  }

  absl::StatusOr<ExpressionPtr> ParseExpression() {
    const TokenStream::Nesting nesting(tokens_);
    RETURN_IF_ERROR(tokens_->CheckDepth());
    const size_t num_unknown = tokens_->num_unknown();
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseOr());
    for (int num_ifs = 1; tokens_->IsName("if"); ++num_ifs) {
      if (num_ifs > kMaxTemplateDepth) {
        return tokens_->Error("more than {} inline ifs in a row",
                              kMaxTemplateDepth);
      }
      auto conditional = MakeExpression(Kind::kConditional, tokens_->line());
      tokens_->Skip();
      tokens_->ForgetUnknown(num_unknown);
      const TokenStream::Deferral deferral(tokens_);
      conditional->children.push_back(std::move(value));
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseOr());
      conditional->children.push_back(std::move(condition));
      if (tokens_->TakeName("else")) {
        ASSIGN_OR_RETURN(ExpressionPtr otherwise, ParseExpression());
        conditional->children.push_back(std::move(otherwise));
      }
      value = std::move(conditional);
    }
    return value;
  }

  // REQUIRES: at "|".
  absl::Status ParseFilter(std::vector<Suffix>* suffixes) {
    tokens_->Skip();
    return ParseFilterName(suffixes);
  }

  absl::Status ParseFilterName(std::vector<Suffix>* suffixes) {
    Suffix filter;
    filter.kind = Suffix::Kind::kFilter;
    filter.line = tokens_->line();
    ASSIGN_OR_RETURN(filter.name, ParseDottedName());
    if (!HasFilter(filter.name)) {
      tokens_->NoteUnknown(InvalidArgument("line {}: there is no filter '{}'",
                                           filter.line, filter.name));
    }
    if (tokens_->IsOperator("(")) {
      ASSIGN_OR_RETURN(filter.arguments, ParseArguments());
    }
    suffixes->push_back(std::move(filter));
    return absl::OkStatus();
  }

 private:
  bool EndsTuple(bool with_if) const {
    return tokens_->Is(Token::Kind::kPrintEnd) ||
           tokens_->Is(Token::Kind::kBlockEnd) || tokens_->IsOperator(")") ||
           (!with_if && tokens_->IsName("recursive"));
  }

  // The name of a filter or test.
  absl::StatusOr<std::string> ParseDottedName() {
    ASSIGN_OR_RETURN(std::string name, tokens_->ExpectName());
    while (tokens_->TakeOperator(".")) {
      ASSIGN_OR_RETURN(const std::string part, tokens_->ExpectName());
      name += "." + part;
    }
    return name;
  }

  using ParseOperand = absl::StatusOr<ExpressionPtr> (ExpressionParser::*)();

  // operand (word operand)*
  absl::StatusOr<ExpressionPtr> ParseWordChain(Kind kind, std::string_view word,
                                               ParseOperand parse_operand) {
    ASSIGN_OR_RETURN(ExpressionPtr first, (this->*parse_operand)());
    if (!tokens_->IsName(word)) return first;
    auto chain = MakeExpression(kind, first->line);
    chain->children.push_back(std::move(first));
    while (tokens_->TakeName(word)) {
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
      return tokens_->Is(Token::Kind::kOperator) &&
             std::find(operators.begin(), operators.end(),
                       tokens_->current().text) != operators.end();
    };
    if (!at_operator()) return first;
    auto chain = MakeExpression(kind, first->line);
    chain->children.push_back(std::move(first));
    while (at_operator()) {
      chain->operators.push_back(tokens_->Take().text);
      ASSIGN_OR_RETURN(ExpressionPtr operand, (this->*parse_operand)());
      chain->children.push_back(std::move(operand));
    }
    return chain;
  }

  absl::StatusOr<ExpressionPtr> ParseOr() {
    return ParseWordChain(Kind::kOr, "or", &ExpressionParser::ParseAnd);
  }
  absl::StatusOr<ExpressionPtr> ParseAnd() {
    return ParseWordChain(Kind::kAnd, "and", &ExpressionParser::ParseNot);
  }

  absl::StatusOr<ExpressionPtr> ParseNot() {
    if (!tokens_->IsName("not")) return ParseCompare();
    const TokenStream::Nesting nesting(tokens_);
    RETURN_IF_ERROR(tokens_->CheckDepth());
    auto negation = MakeExpression(Kind::kNot, tokens_->line());
    tokens_->Skip();
    ASSIGN_OR_RETURN(ExpressionPtr operand, ParseNot());
    negation->children.push_back(std::move(operand));
    return negation;
  }

  // The comparison operator that stands here, or "".
  std::string TakeComparison() {
    for (std::string_view op : {"==", "!=", "<=", ">=", "<", ">"}) {
      if (tokens_->TakeOperator(op)) return std::string(op);
    }
    if (tokens_->TakeName("in")) return "in";
    if (tokens_->IsName("not") && tokens_->next().kind == Token::Kind::kName &&
        tokens_->next().text == "in") {
      tokens_->Skip();
      tokens_->Skip();
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
                              &ExpressionParser::ParseConcatenation);
  }
  absl::StatusOr<ExpressionPtr> ParseConcatenation() {
    return ParseOperatorChain(Kind::kConcatenate, {"~"},
                              &ExpressionParser::ParseProduct);
  }
  absl::StatusOr<ExpressionPtr> ParseProduct() {
    return ParseOperatorChain(Kind::kArithmetic, {"*", "/", "//", "%"},
                              &ExpressionParser::ParsePower);
  }
  absl::StatusOr<ExpressionPtr> ParsePower() {
    return ParseOperatorChain(Kind::kArithmetic, {"**"},
                              &ExpressionParser::ParseUnary);
  }

  absl::StatusOr<ExpressionPtr> ParseUnary() {
    return ParseSigned(/*with_filters=*/true);
  }

  absl::StatusOr<ExpressionPtr> ParseSigned(bool with_filters) {
    ExpressionPtr value;
    if (tokens_->IsOperator("-") || tokens_->IsOperator("+")) {
      const TokenStream::Nesting nesting(tokens_);
      RETURN_IF_ERROR(tokens_->CheckDepth());
      value =
          MakeExpression(tokens_->IsOperator("-") ? Kind::kNegate : Kind::kPlus,
                         tokens_->line());
      tokens_->Skip();
      ASSIGN_OR_RETURN(ExpressionPtr operand,
                       ParseSigned(/*with_filters=*/false));
      value->children.push_back(std::move(operand));
    } else {
      ASSIGN_OR_RETURN(value, ParsePrimary());
    }
    return ParseSuffixes(std::move(value), with_filters);
  }

  absl::StatusOr<ExpressionPtr> ParsePrimary() {
    auto value = MakeExpression(Kind::kLiteral, tokens_->line());
    switch (tokens_->current().kind) {
      case Token::Kind::kName:
        return ParseNameOrConstant();
      case Token::Kind::kString: {
        std::string text;
        while (tokens_->Is(Token::Kind::kString)) text += tokens_->Take().text;
        value->literal = Value(std::move(text));
        return value;
      }
      case Token::Kind::kInteger: {
        const std::string& digits = tokens_->current().text;
        int64_t integer = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), integer);
        value->literal = Value(integer);
        tokens_->Skip();
        return value;
      }
      case Token::Kind::kFloat: {
        const std::string& digits = tokens_->current().text;
        double number = 0;
        std::from_chars(digits.data(), digits.data() + digits.size(), number);
        value->literal = Value(number);
        tokens_->Skip();
        return value;
      }
      default:
        break;
    }
    if (tokens_->TakeOperator("(")) return ParseParenthesized();
    if (tokens_->IsOperator("[")) return ParseList();
    if (tokens_->IsOperator("{")) return ParseDict();
    return tokens_->Unexpected("a value");
  }

  absl::StatusOr<ExpressionPtr> ParseNameOrConstant() {
    auto value = MakeExpression(Kind::kLiteral, tokens_->line());
    const std::string name = tokens_->Take().text;
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
    if (tokens_->IsOperator(")")) {
      auto empty = MakeExpression(Kind::kTuple, tokens_->line());
      tokens_->Skip();
      return empty;
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseTuple());
    RETURN_IF_ERROR(tokens_->ExpectOperator(")"));
    return value;
  }

  absl::StatusOr<ExpressionPtr> ParseList() {
    auto list = MakeExpression(Kind::kList, tokens_->line());
    tokens_->Skip();
    while (!tokens_->TakeOperator("]")) {
      if (!list->children.empty())
        RETURN_IF_ERROR(tokens_->ExpectOperator(","));
      if (tokens_->TakeOperator("]")) break;
      ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
      list->children.push_back(std::move(item));
    }
    return list;
  }

  absl::StatusOr<ExpressionPtr> ParseDict() {
    auto dict = MakeExpression(Kind::kDict, tokens_->line());
    tokens_->Skip();
    while (!tokens_->TakeOperator("}")) {
      if (!dict->children.empty())
        RETURN_IF_ERROR(tokens_->ExpectOperator(","));
      if (tokens_->TakeOperator("}")) break;
      ASSIGN_OR_RETURN(ExpressionPtr key, ParseExpression());
      RETURN_IF_ERROR(tokens_->ExpectOperator(":"));
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      dict->children.push_back(std::move(key));
      dict->children.push_back(std::move(value));
    }
    return dict;
  }

  absl::StatusOr<ExpressionPtr> ParseSuffixes(ExpressionPtr base,
                                              bool with_filters) {
    std::vector<Suffix> suffixes;
    bool is_filtered = false;  // behind a filter or test, only calls and more
    while (true) {
      if (tokens_->IsOperator("(")) {
        Suffix call;
        call.kind = Suffix::Kind::kCall;
        call.line = tokens_->line();
        ASSIGN_OR_RETURN(call.arguments, ParseArguments());
        suffixes.push_back(std::move(call));
      } else if (!is_filtered &&
                 (tokens_->IsOperator(".") || tokens_->IsOperator("["))) {
        RETURN_IF_ERROR(ParseSubscript(&suffixes));
      } else if (with_filters && tokens_->IsOperator("|")) {
        is_filtered = true;
        RETURN_IF_ERROR(ParseFilter(&suffixes));
      } else if (with_filters && tokens_->IsName("is")) {
        is_filtered = true;
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
    suffix.line = tokens_->line();
    if (tokens_->TakeOperator(".")) {
      if (tokens_->Is(Token::Kind::kInteger)) {
        suffix.kind = Suffix::Kind::kItem;
        ASSIGN_OR_RETURN(suffix.item, ParsePrimary());
      } else {
        ASSIGN_OR_RETURN(suffix.name, tokens_->ExpectName());
      }
      suffixes->push_back(std::move(suffix));
      return absl::OkStatus();
    }
    tokens_->Skip();  // [
    suffix.kind = Suffix::Kind::kItem;
    auto key = MakeExpression(Kind::kTuple, suffix.line);
    bool has_comma = false;
    while (!tokens_->TakeOperator("]")) {
      if (!key->children.empty()) {
        RETURN_IF_ERROR(tokens_->ExpectOperator(","));
        has_comma = true;
      }
      if (!tokens_->IsOperator(":")) {
        ASSIGN_OR_RETURN(ExpressionPtr item, ParseExpression());
        key->children.push_back(std::move(item));
      }
      if (!tokens_->IsOperator(":")) continue;
      if (has_comma) return tokens_->Error("a slice among several indices");
      return ParseSlice(std::move(key), &suffix, suffixes);
    }
    // x[1, 2] and x[] have tuples as keys.
    suffix.item = key->children.size() == 1 ? std::move(key->children[0])
                                            : std::move(key);
    suffixes->push_back(std::move(suffix));
    return absl::OkStatus();
  }

  // The rest of x[start:stop:step], with `start` as the only child of a tuple,
  // if it has one. REQUIRES: at ":".
  absl::Status ParseSlice(ExpressionPtr start, Suffix* suffix,
                          std::vector<Suffix>* suffixes) {
    suffix->kind = Suffix::Kind::kSlice;
    if (!start->children.empty()) {
      suffix->slice[0] = std::move(start->children[0]);
    }
    for (int i = 1; i < 3 && tokens_->TakeOperator(":"); ++i) {
      if (tokens_->IsOperator(":") || tokens_->IsOperator("]")) continue;
      ASSIGN_OR_RETURN(suffix->slice[i], ParseExpression());
    }
    RETURN_IF_ERROR(tokens_->ExpectOperator("]"));
    suffixes->push_back(std::move(*suffix));
    return absl::OkStatus();
  }

  // REQUIRES: at "(".
  absl::StatusOr<Arguments> ParseArguments() {
    Arguments arguments;
    tokens_->Skip();
    bool is_first = true;
    while (!tokens_->TakeOperator(")")) {
      if (!is_first) RETURN_IF_ERROR(tokens_->ExpectOperator(","));
      is_first = false;
      if (tokens_->TakeOperator(")")) break;
      RETURN_IF_ERROR(ParseArgument(&arguments));
    }
    return arguments;
  }

  // In the order `a, b=c, *d, **e`, as Jinja takes them.
  absl::Status ParseArgument(Arguments* arguments) {
    const bool is_last = arguments->more_named != nullptr;
    if (tokens_->TakeOperator("**")) {
      if (is_last) return tokens_->Error("** twice in one call");
      ASSIGN_OR_RETURN(arguments->more_named, ParseExpression());
      return absl::OkStatus();
    }
    if (tokens_->TakeOperator("*")) {
      if (is_last || arguments->more_positional != nullptr) {
        return tokens_->Error("* twice, or behind **, in one call");
      }
      ASSIGN_OR_RETURN(arguments->more_positional, ParseExpression());
      return absl::OkStatus();
    }
    if (is_last) return tokens_->Error("an argument behind **");
    const bool is_named = tokens_->Is(Token::Kind::kName) &&
                          tokens_->next().kind == Token::Kind::kOperator &&
                          tokens_->next().text == "=";
    if (is_named) {
      std::string name = tokens_->Take().text;
      tokens_->Skip();  // =
      const auto is_same = [&name](const auto& known) {
        return known.first == name;
      };
      if (std::any_of(arguments->named.begin(), arguments->named.end(),
                      is_same)) {
        return tokens_->Error("argument '{}' twice in one call", name);
      }
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
      arguments->named.emplace_back(std::move(name), std::move(value));
      return absl::OkStatus();
    }
    if (!arguments->named.empty() || arguments->more_positional != nullptr) {
      return tokens_->Error(
          "an argument without a name follows one with a name, or *");
    }
    ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression());
    arguments->positional.push_back(std::move(value));
    return absl::OkStatus();
  }

  // REQUIRES: at "is".
  absl::Status ParseTest(std::vector<Suffix>* suffixes) {
    Suffix test;
    test.kind = Suffix::Kind::kTest;
    test.line = tokens_->line();
    tokens_->Skip();
    test.negated = tokens_->TakeName("not");
    ASSIGN_OR_RETURN(test.name, ParseDottedName());
    if (!HasTest(test.name)) {
      tokens_->NoteUnknown(InvalidArgument("line {}: there is no test '{}'",
                                           test.line, test.name));
    }
    if (tokens_->IsName("is")) {
      return tokens_->Error("a test of a test needs parentheses");
    }
    if (tokens_->IsOperator("(")) {
      ASSIGN_OR_RETURN(test.arguments, ParseArguments());
    } else if (AtTestArgument()) {
      const TokenStream::Nesting nesting(tokens_);
      RETURN_IF_ERROR(tokens_->CheckDepth());
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
    if (tokens_->Is(Token::Kind::kName)) {
      return !tokens_->IsName("and") && !tokens_->IsName("or") &&
             !tokens_->IsName("else");
    }
    return tokens_->Is(Token::Kind::kString) ||
           tokens_->Is(Token::Kind::kInteger) ||
           tokens_->Is(Token::Kind::kFloat) || tokens_->IsOperator("[") ||
           tokens_->IsOperator("{");
  }

  TokenStream* tokens_;
};

}  // namespace

absl::StatusOr<ExpressionPtr> ParseExpression(TokenStream* tokens) {
  return ExpressionParser(tokens).ParseExpression();
}

absl::StatusOr<ExpressionPtr> ParseTuple(TokenStream* tokens, bool with_if) {
  return ExpressionParser(tokens).ParseTuple(with_if);
}

absl::Status ParseFilter(TokenStream* tokens, std::vector<Suffix>* suffixes) {
  return ExpressionParser(tokens).ParseFilter(suffixes);
}

absl::Status ParseFilterName(TokenStream* tokens,
                             std::vector<Suffix>* suffixes) {
  return ExpressionParser(tokens).ParseFilterName(suffixes);
}

}  // namespace witan::jinja
