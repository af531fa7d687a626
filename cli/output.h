#ifndef WITAN_CLI_OUTPUT_H_
#define WITAN_CLI_OUTPUT_H_

// What `generate` and `chat` write: text to stdout while it arrives, the rest
// once the stream has ended.

#include <absl/status/status.h>
#include <grpcpp/support/status.h>

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

// Prints what is left (other choices, JSON, timings, an error) and returns the
// exit code.
int PrintEnd(const grpc::Status& status, const GenerationOptions& options,
             const GenerationResult& result);

// Text for a terminal in which what stands between <think> and </think> is
// dimmed. Holds back the start of a possible tag.
class ThinkingDimmer {
 public:
  // `thinking`: the text starts inside a thought (the prompt opened it).
  explicit ThinkingDimmer(bool thinking) : thinking_(thinking) {}
  // What to write for the next piece of text.
  std::string Push(std::string_view text);
  // What to write at the end; leaves the terminal undimmed.
  std::string Finish();

 private:
  std::string_view tag() const { return thinking_ ? "</think>" : "<think>"; }

  bool thinking_;
  bool dimmed_ = false;
  std::string held_;
};

}  // namespace witan

#endif  // WITAN_CLI_OUTPUT_H_
