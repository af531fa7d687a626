#include "cli/output.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <utility>

#include "base/config.h"
#include "base/status.h"
#include "base/utf8.h"
#include "cli/client.h"

namespace witan {
namespace {

bool WriteNow(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return std::fflush(stdout) == 0 && std::ferror(stdout) == 0;
}

ThoughtMarks MarksOfStdout() {
  return isatty(STDOUT_FILENO) != 0 ? kTerminalMarks : kPlainMarks;
}

}  // namespace

std::string CheckUtf8(const std::string& text) {
  if (IsValidUtf8(text)) return "";
  return fmt::format("the text is not UTF-8 at byte {}", ValidUtf8Prefix(text));
}

int ReportUsage(const absl::Status& status) {
  fmt::print(stderr, "error: {}\n", MessageOf(status));
  return kExitUsage;
}

int NumChoices(const GenerationOptions& options) {
  return std::max(options.num_choices.value_or(1), 1);
}

TextSink TextOutput(const GenerationOptions& options) {
  if (options.json) return [](TextKind, std::string_view) { return true; };
  const auto marker = std::make_shared<ThoughtMarker>(MarksOfStdout());
  return [marker](TextKind kind, std::string_view text) {
    return WriteNow(marker->Push(kind, text));
  };
}

int PrintEnd(const grpc::Status& status, const GenerationOptions& options,
             const GenerationResult& result) {
  // The end of a thought that has no answer behind it, as TextOutput shows it.
  if (!options.json && !result.choices.empty()) {
    const ChoiceResult& first = result.choices.front();
    if (!first.reasoning.empty() && first.text.empty()) {
      WriteNow(MarksOfStdout().end);
    }
  }
  if (std::ferror(stdout) != 0) {
    fmt::print(stderr, "error: the output cannot be written{}\n",
               status.ok() ? "" : "; the request was cancelled");
    return kExitResources;
  }
  if (!status.ok()) {
    if (!options.json && !result.choices.empty()) WriteNow("\n");
    return ReportError(status, options.server);
  }
  if (options.json) {
    // Text is whole characters, so this cannot meet invalid UTF-8; a server
    // that sends some gets it replaced.
    WriteNow(
        ToJson(result).dump(-1, ' ', false,
                            nlohmann::ordered_json::error_handler_t::replace) +
        "\n");
  } else {
    WriteNow("\n");
    for (size_t i = 1; i < result.choices.size(); ++i) {
      const ChoiceResult& choice = result.choices[i];
      WriteNow(fmt::format("--- choice {}\n", i));
      ThoughtMarker marker(MarksOfStdout());
      Show(
          [&marker](TextKind kind, std::string_view text) {
            return WriteNow(marker.Push(kind, text));
          },
          choice.prompt_text, choice.reasoning, choice.text);
      WriteNow(marker.Finish() + "\n");
    }
  }
  if (options.timings) {
    fmt::print(stderr, "{}\n", DescribeTimings(result));
  }
  return kExitOk;
}

std::string ThoughtMarker::Push(TextKind kind, std::string_view text) {
  const bool in_thought = kind == TextKind::kReasoning;
  std::string out;
  if (in_thought != in_thought_) out = in_thought ? marks_.begin : marks_.end;
  in_thought_ = in_thought;
  return out.append(text);
}

std::string ThoughtMarker::Finish() {
  return std::exchange(in_thought_, false) ? std::string(marks_.end) : "";
}

}  // namespace witan
