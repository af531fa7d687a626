#include "coordinator/text/jinja_parser.h"

#include <algorithm>
#include <initializer_list>
#include <set>
#include <utility>

#include "base/status.h"
#include "coordinator/text/jinja_expression_parser.h"
#include "coordinator/text/jinja_token_stream.h"

namespace witan::jinja {

namespace {

constexpr std::string_view kSupportedTags =
    "for, if, set, macro, break, continue, generation";

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() { return ParseBody({}); }

 private:
  // Statements up to a tag named in `ends`, whose name is the current token
  // then; an empty list stands for the end of the template.
  absl::StatusOr<Body> ParseBody(std::initializer_list<std::string_view> ends) {
    const TokenStream::Nesting nesting(&tokens_);
    RETURN_IF_ERROR(tokens_.CheckDepth());
    Body body;
    while (true) {
      if (tokens_.Is(Token::Kind::kEnd)) {
        if (ends.size() == 0) return body;
        return tokens_.Unexpected(fmt::format("{{% {} %}}", *(ends.end() - 1)));
      }
      if (tokens_.Is(Token::Kind::kBlockBegin)) {
        if (std::find(ends.begin(), ends.end(), tokens_.next().text) !=
            ends.end()) {
          tokens_.Skip();
          return body;
        }
      }
      auto statement = std::make_unique<Statement>();
      statement->line = tokens_.line();
      RETURN_IF_ERROR(ParseStatement(statement.get()));
      body.push_back(std::move(statement));
    }
  }

  absl::Status ParseStatement(Statement* statement) {
    if (tokens_.Is(Token::Kind::kText)) {
      statement->text = tokens_.Take().text;
      return absl::OkStatus();
    }
    if (tokens_.Is(Token::Kind::kPrintBegin)) {
      tokens_.Skip();
      statement->kind = Statement::Kind::kPrint;
      ASSIGN_OR_RETURN(statement->expression, ParseTuple(&tokens_));
      if (!tokens_.Is(Token::Kind::kPrintEnd))
        return tokens_.Unexpected("'}}'");
      tokens_.Skip();
      return absl::OkStatus();
    }
    tokens_.Skip();  // {%
    if (tokens_.TakeName("if")) return ParseIf(statement);
    if (tokens_.TakeName("for")) return ParseFor(statement);
    if (tokens_.TakeName("set")) return ParseSet(statement);
    if (tokens_.TakeName("macro")) return ParseMacro(statement);
    if (tokens_.TakeName("generation")) return ParseGeneration(statement);
    if (tokens_.IsName("break") || tokens_.IsName("continue"))
      return ParseJump(statement);
    return tokens_.Unexpected(
        fmt::format("one of the tags {}", kSupportedTags));
  }

  absl::Status ParseIf(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    while (true) {
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseTuple(&tokens_));
      statement->conditions.push_back(std::move(condition));
      RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
      ASSIGN_OR_RETURN(Body body, ParseBody({"elif", "else", "endif"}));
      statement->bodies.push_back(std::move(body));
      if (!tokens_.TakeName("elif")) break;
    }
    return ParseElseAndEnd("endif", statement);
  }

  absl::Status ParseElseAndEnd(std::string_view end, Statement* statement) {
    if (tokens_.TakeName("else")) {
      RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
      ASSIGN_OR_RETURN(Body body, ParseBody({end}));
      statement->bodies.push_back(std::move(body));
    }
    if (!tokens_.TakeName(end)) return tokens_.Unexpected(end);
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseFor(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    ASSIGN_OR_RETURN(statement->target, ParseTarget(/*allow_attribute=*/false));
    if (!tokens_.TakeName("in")) return tokens_.Unexpected("'in'");
    ASSIGN_OR_RETURN(statement->expression,
                     ParseTuple(&tokens_, /*with_if=*/false));
    if (tokens_.TakeName("if")) {
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseExpression(&tokens_));
      statement->conditions.push_back(std::move(condition));
    }
    if (tokens_.IsName("recursive"))
      return tokens_.Error("recursive loops are not supported");
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    ++loop_depth_;
    absl::StatusOr<Body> body = ParseBody({"else", "endfor"});
    --loop_depth_;
    RETURN_IF_ERROR(body.status());
    statement->bodies.push_back(*std::move(body));
    return ParseElseAndEnd("endfor", statement);
  }

  absl::StatusOr<Target> ParseTarget(bool allow_attribute) {
    Target target;
    const bool has_parentheses = tokens_.TakeOperator("(");
    do {
      if (!target.names.empty() && !tokens_.Is(Token::Kind::kName)) break;
      ASSIGN_OR_RETURN(std::string name, tokens_.ExpectName());
      static const std::set<std::string_view> kReserved = {
          "true", "false", "none", "True", "False", "None", "loop"};
      if (kReserved.contains(name))
        return tokens_.Error("cannot assign to '{}'", name);
      target.names.push_back(std::move(name));
      if (allow_attribute && target.names.size() == 1 &&
          tokens_.TakeOperator(".")) {
        ASSIGN_OR_RETURN(target.attribute, tokens_.ExpectName());
        return target;
      }
      if (tokens_.IsOperator(",")) target.is_tuple = true;
    } while (tokens_.TakeOperator(","));
    if (has_parentheses) RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
    return target;
  }

  absl::Status ParseSet(Statement* statement) {
    ASSIGN_OR_RETURN(statement->target, ParseTarget(/*allow_attribute=*/true));
    if (tokens_.TakeOperator("=")) {
      statement->kind = Statement::Kind::kSet;
      ASSIGN_OR_RETURN(statement->expression, ParseTuple(&tokens_));
      return tokens_.ExpectBlockEnd();
    }
    statement->kind = Statement::Kind::kSetBlock;
    while (tokens_.IsOperator("|")) {
      RETURN_IF_ERROR(ParseFilter(&tokens_, &statement->filters));
    }
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseBody({"endset"}));
    statement->bodies.push_back(std::move(body));
    tokens_.Skip();  // endset
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseMacro(Statement* statement) {
    statement->kind = Statement::Kind::kMacro;
    auto macro = std::make_unique<Macro>();
    ASSIGN_OR_RETURN(macro->name, tokens_.ExpectName());
    RETURN_IF_ERROR(tokens_.ExpectOperator("("));
    while (!tokens_.IsOperator(")")) {
      if (!macro->parameters.empty())
        RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      if (tokens_.IsOperator(")")) break;
      ASSIGN_OR_RETURN(std::string parameter, tokens_.ExpectName());
      macro->parameters.push_back(std::move(parameter));
      if (tokens_.TakeOperator("=")) {
        ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression(&tokens_));
        macro->defaults.push_back(std::move(value));
      } else if (!macro->defaults.empty()) {
        return tokens_.Error(
            "parameter '{}' without a default follows one with",
            macro->parameters.back());
      }
    }
    tokens_.Skip();  // )
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    const int outer_loops = std::exchange(loop_depth_, 0);
    absl::StatusOr<Body> body = ParseBody({"endmacro"});
    loop_depth_ = outer_loops;
    RETURN_IF_ERROR(body.status());
    macro->body = *std::move(body);
    statement->macro = std::move(macro);
    tokens_.Skip();  // endmacro
    return tokens_.ExpectBlockEnd();
  }

  // Marks what the assistant wrote, for training; here it is only its content.
  absl::Status ParseGeneration(Statement* statement) {
    statement->kind = Statement::Kind::kGroup;
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseBody({"endgeneration"}));
    statement->bodies.push_back(std::move(body));
    tokens_.Skip();  // endgeneration
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseJump(Statement* statement) {
    if (loop_depth_ == 0)
      return tokens_.Error("'{}' outside a loop", tokens_.current().text);
    statement->kind = tokens_.Take().text == "break"
                          ? Statement::Kind::kBreak
                          : Statement::Kind::kContinue;
    return tokens_.ExpectBlockEnd();
  }

  TokenStream tokens_;
  int loop_depth_ = 0;
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return StatementParser(std::move(tokens)).Run();
}

}  // namespace witan::jinja
