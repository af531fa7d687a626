#include "coordinator/api/served_model.h"

#include <filesystem>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"
#include "model/gguf_model.h"
#include "model/gguf_tokenizer.h"

namespace witan {
namespace {

absl::StatusOr<std::string> AbsolutePath(const std::string& model) {
  std::error_code error;
  const std::filesystem::path path = std::filesystem::canonical(model, error);
  if (error) return NotFound("model {}: {}", model, error.message());
  if (!std::filesystem::is_directory(path, error) &&
      path.extension() != ".gguf") {
    return InvalidArgument(
        "model {} is not a directory; give the folder that holds config.json, "
        "or a .gguf file",
        model);
  }
  return path.string();
}

absl::StatusOr<ModelFacts> ReadFacts(const std::string& directory,
                                     int64_t max_context_tokens) {
  ModelFacts facts;
  ASSIGN_OR_RETURN(facts.config, ReadModelConfig(directory));
  ASSIGN_OR_RETURN(facts.generation, ReadGenerationConfig(directory));
  if (max_context_tokens > facts.config.max_context_tokens) {
    return InvalidArgument(
        "--max-context is {}; the model's own context is {} "
        "(max_position_embeddings in {}/config.json)",
        max_context_tokens, facts.config.max_context_tokens, directory);
  }
  facts.max_context_tokens = max_context_tokens > 0
                                 ? max_context_tokens
                                 : facts.config.max_context_tokens;
  return facts;
}

// Tokenizer and chat template.
absl::Status LoadText(ServedModel& model) {
  ASSIGN_OR_RETURN(const auto gguf, ReadTokenizerOfGguf(model.directory));
  absl::StatusOr<std::unique_ptr<ChatTemplate>> chat_template =
      NotFound("there is none");
  if (gguf) {
    absl::StatusOr<std::unique_ptr<Tokenizer>> tokenizer =
        Tokenizer::FromFiles({.tokenizer = gguf->tokenizer,
                              .tokenizer_config = gguf->tokenizer_config});
    if (!tokenizer.ok()) return Annotate(tokenizer.status(), model.directory);
    model.tokenizer = *std::move(tokenizer);
    if (!gguf->chat_template.empty()) {
      chat_template = ChatTemplate::Parse(gguf->chat_template);
    }
  } else {
    ASSIGN_OR_RETURN(model.tokenizer, Tokenizer::Load(model.directory));
    chat_template = ChatTemplate::Load(model.directory);
  }
  if (chat_template.ok()) {
    model.chat_template = *std::move(chat_template);
  } else if (chat_template.status().code() != absl::StatusCode::kNotFound) {
    return Annotate(chat_template.status(), model.directory);
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<ServedModel> LoadServedModel(
    const std::string& directory, const std::string& name,
    int64_t max_context_tokens, const std::string& reasoning_markers) {
  ServedModel model;
  ASSIGN_OR_RETURN(model.directory, AbsolutePath(directory));
  ASSIGN_OR_RETURN(model.facts, ReadFacts(model.directory, max_context_tokens));
  model.facts.name = name.empty() ? NameOfModel(model.directory) : name;
  if (model.facts.name.size() > kMaxModelNameBytes ||
      !IsValidUtf8(model.facts.name)) {
    return InvalidArgument(
        "--served-model-name must be UTF-8 of at most {} bytes",
        kMaxModelNameBytes);
  }
  RETURN_IF_ERROR(LoadText(model));
  if (model.tokenizer->vocab_size() > model.facts.config.vocab_size) {
    return InvalidArgument(
        "{}: the tokenizer has {} tokens, the model (vocab_size in "
        "config.json) {}; they do not belong together",
        model.directory, model.tokenizer->vocab_size(),
        model.facts.config.vocab_size);
  }
  if (model.facts.generation.eos_token_ids.empty() &&
      model.tokenizer->eos_id().has_value()) {
    model.facts.generation.eos_token_ids = {*model.tokenizer->eos_id()};
  }
  for (const TokenId id : model.facts.generation.eos_token_ids) {
    if (id < 0 || id >= model.facts.config.vocab_size) {
      return InvalidArgument("{}: eos_token_id {} is not below vocab_size {}",
                             model.directory, id,
                             model.facts.config.vocab_size);
    }
  }
  ASSIGN_OR_RETURN(model.reasoning,
                   FindReasoning(reasoning_markers, *model.tokenizer,
                                 model.chat_template.get()));
  return model;
}

v1::Model ToProto(const ServedModel& model) {
  v1::Model out;
  out.set_name(model.facts.name);
  out.set_architecture(model.facts.config.architecture);
  out.set_weights_dtype(std::string(NameOf(model.facts.config.weights)));
  out.set_max_context_tokens(model.facts.max_context_tokens);
  out.set_vocab_size(model.facts.config.vocab_size);
  for (const TokenId id : model.facts.generation.eos_token_ids) {
    out.add_eos_token_ids(id);
  }
  out.set_has_chat_template(model.chat_template != nullptr);
  *out.mutable_default_parameters() = DefaultParameters(model.facts);
  if (model.reasoning) {
    v1::Reasoning& reasoning = *out.mutable_reasoning();
    reasoning.set_begin_marker(model.reasoning->begin);
    reasoning.set_end_marker(model.reasoning->end);
    reasoning.set_closing(model.reasoning->closing);
  }
  return out;
}

v1::Model AdapterProto(const ServedModel& model, const std::string& adapter) {
  v1::Model out = ToProto(model);
  out.set_name(adapter);
  out.set_base_model(model.facts.name);
  return out;
}

}  // namespace witan
