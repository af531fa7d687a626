#ifndef WITAN_CLI_OUTPUT_H_
#define WITAN_CLI_OUTPUT_H_

// What `generate` and `chat` write: text to stdout while it arrives, the rest
// once the stream has ended.

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

#include <functional>
#include <string>
#include <string_view>

#include "cli/generation.h"
#include "cli/generation_options.h"

namespace witan {

// Prints "error: ..." to stderr; returns kExitUsage.
int ReportUsage(const absl::Status& status);

// 1 unless --choices says otherwise.
int NumChoices(const GenerationOptions& options);

// Prints what is left (the end of a thought, other choices, JSON, timings, an
// error) and returns the exit code.
int PrintEnd(const grpc::Status& status, const GenerationOptions& options,
             const GenerationResult& result);

// "" for UTF-8, else what is wrong with it: for an option's check.
std::string CheckUtf8(const std::string& text);

// How a thought is told from the answer: what is written around it.
struct ThoughtMarks {
  std::string_view begin;
  std::string_view end;
};
inline constexpr ThoughtMarks kTerminalMarks = {"\x1b[2m", "\x1b[0m\n"};  // dim
inline constexpr ThoughtMarks kPlainMarks = {"<think>\n", "\n</think>\n"};

// Writes around the thought in a text that comes in pieces.
class ThoughtMarker {
 public:
  explicit ThoughtMarker(ThoughtMarks marks) : marks_(marks) {}
  // What to write for the next piece of text.
  std::string Push(TextKind kind, std::string_view text);
  // What to write at the end; ends a thought that is open.
  std::string Finish();

 private:
  const ThoughtMarks marks_;
  bool in_thought_ = false;
};

// Writes the first choice to stdout as it arrives, or nothing under --json.
TextSink TextOutput(const GenerationOptions& options);

}  // namespace witan

#endif  // WITAN_CLI_OUTPUT_H_
