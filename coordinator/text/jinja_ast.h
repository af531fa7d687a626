#ifndef WITAN_COORDINATOR_TEXT_JINJA_AST_H_
#define WITAN_COORDINATOR_TEXT_JINJA_AST_H_

// The tree of a parsed template. Chains of operators are one node with many
// children, so that the depth of the tree is bounded by the nesting that the
// parser allows, however long the source.

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "coordinator/text/jinja_value.h"

namespace witan::jinja {

struct Expression;
using ExpressionPtr = std::unique_ptr<Expression>;

struct Arguments {
  std::vector<ExpressionPtr> positional;
  std::vector<std::pair<std::string, ExpressionPtr>> named;
  ExpressionPtr more_positional;  // *list; may be null
  ExpressionPtr more_named;       // **dict; may be null
};

// What follows a value: `.name`, `[...]`, `(...)`, `| name(...)`,
// `is name(...)`.
struct Suffix {
  enum class Kind { kAttribute, kItem, kSlice, kCall, kFilter, kTest };
  Kind kind = Kind::kAttribute;
  int line = 0;
  std::string name;        // of attribute, filter, test
  bool negated = false;    // is not
  ExpressionPtr item;      // of kItem
  ExpressionPtr slice[3];  // start, stop, step; each may be null
  Arguments arguments;     // of kCall, kFilter, kTest
};

struct Expression {
  enum class Kind {
    kLiteral,
    kName,
    kList,
    kTuple,
    kDict,         // children: key, value, key, value, ...
    kAnd,          // children
    kOr,           // children
    kNot,          // one child
    kNegate,       // one child
    kPlus,         // one child
    kArithmetic,   // children[0] operators[0] children[1] operators[1] ...
    kConcatenate,  // children
    kCompare,      // like kArithmetic; "in", "not in" are operators as well
    kConditional,  // children: then, condition, else (may be missing)
    kSuffixed      // children[0] and the suffixes
  };
  Kind kind = Kind::kLiteral;
  int line = 0;
  Value literal;
  std::string name;
  std::vector<ExpressionPtr> children;
  std::vector<std::string> operators;
  std::vector<Suffix> suffixes;
};

struct Statement;
using Body = std::vector<std::unique_ptr<Statement>>;

// Where a value is stored: `name`, `name.attribute` of a namespace, or several
// targets, each of which takes one of the value's items.
struct Target {
  std::string name;       // empty: several
  std::string attribute;  // may be empty
  std::vector<Target> items;
};

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of the last parameters
  Body body;
  // Whether the body reads these names; only then may arguments come in them.
  bool takes_caller = false;
  bool takes_varargs = false;
  bool takes_kwargs = false;
};

struct Statement {
  enum class Kind {
    kText,
    kPrint,
    kIf,        // conditions[i] -> bodies[i]; one body more is the else
    kFor,       // targets[0] in expression [if condition]; bodies: loop, else
    kSet,       // targets[0] = expression
    kSetBlock,  // targets[0] = bodies[0], through the filters
    kWith,      // targets[i] = conditions[i], for bodies[0] only
    kFilter,    // bodies[0] through the filters
    kMacro,
    kCall,  // expression, a call, with the macro as its `caller`
    kBreak,
    kContinue,
    kGeneration  // bodies[0], in a scope of its own
  };
  Kind kind = Kind::kText;
  int line = 0;
  std::string text;
  ExpressionPtr expression;
  std::vector<ExpressionPtr> conditions;
  std::vector<Target> targets;
  std::vector<Suffix> filters;
  std::vector<Body> bodies;
  std::unique_ptr<Macro> macro;
  bool is_recursive = false;  // of kFor: `loop` can be called
  bool reads_loop = false;    // of kFor: its body reads `loop`
};

}  // namespace witan::jinja

#endif  // WITAN_COORDINATOR_TEXT_JINJA_AST_H_
