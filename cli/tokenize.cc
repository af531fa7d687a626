#include "cli/tokenize.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "base/config.h"
#include "base/status.h"
#include "cli/command.h"
#include "cli/output.h"
#include "model/gguf_tokenizer.h"

namespace witan {
namespace {

absl::StatusOr<std::vector<TokenId>> TokenizeLine(const Tokenizer& tokenizer,
                                                  const std::string& line) {
  const auto json =
      nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return InvalidArgument("is not valid JSON");
  if (!json.is_object() || !json.contains("text") ||
      !json["text"].is_string()) {
    return InvalidArgument("must be an object {{\"text\": \"...\"}}");
  }
  return tokenizer.Encode(json["text"].get_ref<const std::string&>(),
                          {.add_special_tokens = false});
}

absl::StatusOr<std::unique_ptr<Tokenizer>> LoadTokenizer(
    const std::string& model) {
  ASSIGN_OR_RETURN(const auto gguf, ReadTokenizerOfGguf(model));
  if (!gguf) return Tokenizer::Load(model);
  return Tokenizer::FromFiles({.tokenizer = gguf->tokenizer,
                               .tokenizer_config = gguf->tokenizer_config});
}

int Run(const std::string& directory) {
  const auto tokenizer = LoadTokenizer(directory);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "error: {}\n", MessageOf(tokenizer.status()));
    return kExitModel;
  }
  const absl::Status status = TokenizeLines(**tokenizer, std::cin, std::cout);
  return status.ok() ? kExitOk : ReportUsage(status);
}

}  // namespace

absl::Status TokenizeLines(const Tokenizer& tokenizer, std::istream& in,
                           std::ostream& out) {
  std::string line;
  for (int64_t number = 1; std::getline(in, line); ++number) {
    const auto token_ids = TokenizeLine(tokenizer, line);
    if (!token_ids.ok()) {
      return Annotate(token_ids.status(), fmt::format("line {}", number));
    }
    out << "{\"token_ids\":[" << fmt::format("{}", fmt::join(*token_ids, ","))
        << "]}\n";
  }
  out.flush();
  return absl::OkStatus();
}

Command AddTokenize(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand(
      "tokenize", "Turn the texts on stdin into token ids, line by line");
  const auto directory = std::make_shared<std::string>();
  const auto jsonl = std::make_shared<bool>(false);
  app->add_option("--tokenizer", *directory,
                  "Model directory with a tokenizer.json, tokenizer.model or "
                  "tekken.json, or a .gguf file")
      ->required();
  app->add_flag("--jsonl", *jsonl,
                "Lines are {\"text\": ...} in and {\"token_ids\": [...]} out")
      ->required()
      ->configurable(false);
  return {app, [directory, jsonl] { return Run(*directory); }};
}

}  // namespace witan
