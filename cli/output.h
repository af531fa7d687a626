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

// Writes to stdout at once, or drops text under --json.
TextSink TextOutput(const GenerationOptions& options);

// What to show of a whole text.
using TextMarker = std::function<std::string(const std::string& text)>;

// Prints what is left (other choices, as `marked` shows them if it is not
// empty; JSON, timings, an error) and returns the exit code.
int PrintEnd(const grpc::Status& status, const GenerationOptions& options,
             const GenerationResult& result, const TextMarker& marked = {});

// "" for UTF-8, else what is wrong with it: for an option's check.
std::string CheckUtf8(const std::string& text);

// How a thought is told from the answer: what is written around it.
struct ThoughtMarks {
  std::string_view begin;
  std::string_view end;
};
inline constexpr ThoughtMarks kTerminalMarks = {"\x1b[2m", "\x1b[0m"};  // dim
inline constexpr ThoughtMarks kPlainMarks = {"<think>\n", "</think>\n"};

// Replaces the tags <think> and </think> in a text that comes in pieces.
class ThoughtMarker {
 public:
  // `thinking`: the text starts inside a thought (the prompt opened it).
  ThoughtMarker(bool thinking, ThoughtMarks marks)
      : thinking_(thinking), marks_(marks) {}
  // What to write for the next piece of text.
  std::string Push(std::string_view text);
  // What to write at the end; ends a thought that is open.
  std::string Finish();

 private:
  std::string_view tag() const { return thinking_ ? "</think>" : "<think>"; }

  bool thinking_;
  const ThoughtMarks marks_;
  bool marked_ = false;
  std::string held_;
};

}  // namespace witan

#endif  // WITAN_CLI_OUTPUT_H_
