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
    "for, if, set, with, macro, call, filter, raw, break, continue, "
    "generation";

class StatementParser {
 public:
  explicit StatementParser(std::vector<Token> tokens)
      : tokens_(std::move(tokens)) {}

  absl::StatusOr<Body> Run() {
    ASSIGN_OR_RETURN(Body body, ParseBody({}));
    RETURN_IF_ERROR(tokens_.FirstUnknown());
    return body;
  }

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
    if (tokens_.TakeName("with")) return ParseWith(statement);
    if (tokens_.TakeName("call")) return ParseCall(statement);
    if (tokens_.TakeName("filter")) return ParseFilterBlock(statement);
    if (tokens_.TakeName("generation")) return ParseGeneration(statement);
    if (tokens_.IsName("break") || tokens_.IsName("continue"))
      return ParseJump(statement);
    return tokens_.Unexpected(
        fmt::format("one of the tags {}", kSupportedTags));
  }

  absl::Status ParseIf(Statement* statement) {
    statement->kind = Statement::Kind::kIf;
    const TokenStream::Deferral deferral(&tokens_);
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

  // A body with names of its own, up to `ends`.
  absl::StatusOr<Body> ParseInnerBody(
      std::initializer_list<std::string_view> ends) {
    const TokenStream::Deferral end_of_deferral(&tokens_, /*defers=*/false);
    return ParseBody(ends);
  }

  // The same where a break cannot leave the body.
  absl::StatusOr<Body> ParseCallableBody(
      std::initializer_list<std::string_view> ends) {
    const int outer_loops = std::exchange(loop_depth_, 0);
    absl::StatusOr<Body> body = ParseInnerBody(ends);
    loop_depth_ = outer_loops;
    return body;
  }

  absl::Status ParseFor(Statement* statement) {
    statement->kind = Statement::Kind::kFor;
    ++num_open_loops_;
    absl::Status status = ParseForTarget(statement);
    if (status.ok()) status = ParseForBodies(statement);
    --num_open_loops_;
    return status;
  }

  absl::Status ParseForTarget(Statement* statement) {
    RETURN_IF_ERROR(AddTarget(/*allow_attribute=*/false, statement));
    if (!tokens_.TakeName("in")) return tokens_.Unexpected("'in'");
    ASSIGN_OR_RETURN(statement->expression,
                     ParseTuple(&tokens_, /*with_if=*/false));
    if (tokens_.TakeName("if")) {
      const TokenStream::Deferral end_of_deferral(&tokens_, /*defers=*/false);
      ASSIGN_OR_RETURN(ExpressionPtr condition, ParseExpression(&tokens_));
      statement->conditions.push_back(std::move(condition));
    }
    statement->is_recursive = tokens_.TakeName("recursive");
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseForBodies(Statement* statement) {
    const size_t begin = tokens_.position();
    ++loop_depth_;
    absl::StatusOr<Body> body = ParseInnerBody({"else", "endfor"});
    --loop_depth_;
    RETURN_IF_ERROR(body.status());
    statement->reads_loop = tokens_.Reads(begin, "loop");
    statement->bodies.push_back(*std::move(body));
    const TokenStream::Deferral end_of_deferral(&tokens_, /*defers=*/false);
    return ParseElseAndEnd("endfor", statement);
  }

  absl::Status AddTarget(bool allow_attribute, Statement* statement) {
    ASSIGN_OR_RETURN(Target target, ParseTarget(allow_attribute));
    statement->targets.push_back(std::move(target));
    return absl::OkStatus();
  }

  // One target, or several with commas between.
  absl::StatusOr<Target> ParseTarget(bool allow_attribute) {
    const TokenStream::Nesting nesting(&tokens_);
    RETURN_IF_ERROR(tokens_.CheckDepth());
    ASSIGN_OR_RETURN(Target first, ParseOneTarget(allow_attribute));
    if (!tokens_.IsOperator(",")) return first;
    Target several;
    several.items.push_back(std::move(first));
    while (tokens_.TakeOperator(",")) {
      if (!tokens_.Is(Token::Kind::kName) && !tokens_.IsOperator("(")) break;
      if (tokens_.IsName("in")) break;
      ASSIGN_OR_RETURN(Target item, ParseOneTarget(allow_attribute));
      several.items.push_back(std::move(item));
    }
    return several;
  }

  absl::StatusOr<Target> ParseOneTarget(bool allow_attribute) {
    if (tokens_.TakeOperator("(")) {
      ASSIGN_OR_RETURN(Target inner, ParseTarget(/*allow_attribute=*/false));
      RETURN_IF_ERROR(tokens_.ExpectOperator(")"));
      return inner;
    }
    Target target;
    ASSIGN_OR_RETURN(target.name, tokens_.ExpectName());
    static const std::set<std::string_view> kConstants = {
        "true", "false", "none", "True", "False", "None"};
    if (kConstants.contains(target.name) ||
        (num_open_loops_ > 0 && target.name == "loop")) {
      return tokens_.Error("cannot assign to '{}'", target.name);
    }
    if (allow_attribute && tokens_.TakeOperator(".")) {
      ASSIGN_OR_RETURN(target.attribute, tokens_.ExpectName());
    }
    return target;
  }

  absl::Status ParseSet(Statement* statement) {
    RETURN_IF_ERROR(AddTarget(/*allow_attribute=*/true, statement));
    if (tokens_.TakeOperator("=")) {
      statement->kind = Statement::Kind::kSet;
      ASSIGN_OR_RETURN(statement->expression, ParseTuple(&tokens_));
      return tokens_.ExpectBlockEnd();
    }
    statement->kind = Statement::Kind::kSetBlock;
    while (tokens_.IsOperator("|")) {
      RETURN_IF_ERROR(ParseFilter(&tokens_, &statement->filters));
    }
    return ParseBlock("endset", statement);
  }

  // The rest of a block with one body that is no function.
  absl::Status ParseBlock(std::string_view end, Statement* statement) {
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseInnerBody({end}));
    statement->bodies.push_back(std::move(body));
    tokens_.Skip();  // end
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseWith(Statement* statement) {
    statement->kind = Statement::Kind::kWith;
    while (!tokens_.Is(Token::Kind::kBlockEnd)) {
      if (!statement->targets.empty()) {
        RETURN_IF_ERROR(tokens_.ExpectOperator(","));
      }
      RETURN_IF_ERROR(AddTarget(/*allow_attribute=*/false, statement));
      RETURN_IF_ERROR(tokens_.ExpectOperator("="));
      ASSIGN_OR_RETURN(ExpressionPtr value, ParseExpression(&tokens_));
      statement->conditions.push_back(std::move(value));
    }
    return ParseBlock("endwith", statement);
  }

  absl::Status ParseFilterBlock(Statement* statement) {
    statement->kind = Statement::Kind::kFilter;
    RETURN_IF_ERROR(ParseFilterName(&tokens_, &statement->filters));
    while (tokens_.IsOperator("|")) {
      RETURN_IF_ERROR(ParseFilter(&tokens_, &statement->filters));
    }
    return ParseBlock("endfilter", statement);
  }

  absl::Status ParseMacro(Statement* statement) {
    statement->kind = Statement::Kind::kMacro;
    statement->macro = std::make_unique<Macro>();
    ASSIGN_OR_RETURN(statement->macro->name, tokens_.ExpectName());
    RETURN_IF_ERROR(ParseParameters(statement->macro.get()));
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    return ParseMacroBody("endmacro", statement->macro.get());
  }

  absl::Status ParseParameters(Macro* macro) {
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
    return absl::OkStatus();
  }

  absl::Status ParseMacroBody(std::string_view end, Macro* macro) {
    const size_t begin = tokens_.position();
    ASSIGN_OR_RETURN(macro->body, ParseCallableBody({end}));
    const auto takes = [&](std::string_view name) {
      return tokens_.Reads(begin, name) &&
             std::find(macro->parameters.begin(), macro->parameters.end(),
                       name) == macro->parameters.end();
    };
    macro->takes_caller = takes("caller");
    macro->takes_varargs = takes("varargs");
    macro->takes_kwargs = takes("kwargs");
    tokens_.Skip();  // end
    return tokens_.ExpectBlockEnd();
  }

  absl::Status ParseCall(Statement* statement) {
    statement->kind = Statement::Kind::kCall;
    statement->macro = std::make_unique<Macro>();
    statement->macro->name = "caller";
    if (tokens_.IsOperator("(")) {
      RETURN_IF_ERROR(ParseParameters(statement->macro.get()));
    }
    ASSIGN_OR_RETURN(statement->expression, ParseExpression(&tokens_));
    const Expression& call = *statement->expression;
    if (call.kind != Expression::Kind::kSuffixed ||
        call.suffixes.back().kind != Suffix::Kind::kCall) {
      return tokens_.Unexpected("a call");
    }
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    return ParseMacroBody("endcall", statement->macro.get());
  }

  // Marks what the assistant wrote, for training; here it is only its content.
  absl::Status ParseGeneration(Statement* statement) {
    statement->kind = Statement::Kind::kGeneration;
    RETURN_IF_ERROR(tokens_.ExpectBlockEnd());
    ASSIGN_OR_RETURN(Body body, ParseCallableBody({"endgeneration"}));
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
  int loop_depth_ = 0;      // that break and continue see
  int num_open_loops_ = 0;  // macros between or not
};

}  // namespace

absl::StatusOr<Body> ParseTemplate(std::string_view source) {
  ASSIGN_OR_RETURN(std::vector<Token> tokens, Tokenize(source));
  return StatementParser(std::move(tokens)).Run();
}

}  // namespace witan::jinja
