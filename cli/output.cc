#include "cli/output.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>

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

// Length of the longest end of `text` that a `tag` may start with.
size_t PartialTagSize(std::string_view text, std::string_view tag) {
  for (size_t size = std::min(text.size(), tag.size() - 1); size > 0; --size) {
    if (text.ends_with(tag.substr(0, size))) return size;
  }
  return 0;
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
  if (options.json) return [](std::string_view) { return true; };
  return WriteNow;
}

int PrintEnd(const grpc::Status& status, const GenerationOptions& options,
             const GenerationResult& result, const TextMarker& marked) {
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
      const std::string& text = result.choices[i].text;
      WriteNow(
          fmt::format("--- choice {}\n{}\n", i, marked ? marked(text) : text));
    }
  }
  if (options.timings) {
    fmt::print(stderr, "{}\n", DescribeTimings(result));
  }
  return kExitOk;
}

std::string ThoughtMarker::Push(std::string_view text) {
  held_ += text;
  std::string out;
  while (true) {
    const size_t found = held_.find(tag());
    const size_t end = found != std::string::npos
                           ? found
                           : held_.size() - PartialTagSize(held_, tag());
    if (end > 0) {
      if (thinking_ != marked_) out += thinking_ ? marks_.begin : marks_.end;
      marked_ = thinking_;
      out += held_.substr(0, end);
    }
    if (found == std::string::npos) {
      held_.erase(0, end);
      return out;
    }
    held_.erase(0, found + tag().size());
    thinking_ = !thinking_;
  }
}

std::string ThoughtMarker::Finish() {
  std::string out = std::exchange(held_, "");
  if (marked_) out += marks_.end;
  marked_ = false;
  return out;
}

}  // namespace witan
