#ifndef WITAN_COORDINATOR_API_SERVED_MODEL_H_
#define WITAN_COORDINATOR_API_SERVED_MODEL_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/reasoning.h"
#include "coordinator/text/tokenizer.h"
#include "proto/generation_request.h"
#include "proto/inference.pb.h"

namespace witan {

// Everything about the model that the API needs; no weights. Immutable.
struct ServedModel {
  ModelFacts facts;
  std::string directory;           // absolute; or of a .gguf file
  std::string adapters_directory;  // absolute; empty: there are none
  int64_t max_adapters = 0;        // that may be loaded at once
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<const ChatTemplate> chat_template;  // null: Chat is refused
  std::optional<Reasoning> reasoning;                 // of a model that thinks
};

// Reads and checks config, generation config, tokenizer and chat template of a
// Hugging Face directory, or of GGUF files (model/gguf_model.h). `name`: as
// clients call it, empty for the directory's or the file's name.
// `max_context_tokens`: 0 for the model's own. `reasoning_markers`: see
// FindReasoning. Errors name the file and the field.
absl::StatusOr<ServedModel> LoadServedModel(
    const std::string& directory, const std::string& name,
    int64_t max_context_tokens, const std::string& reasoning_markers = "auto");

v1::Model ToProto(const ServedModel& model);
// The model with an adapter of this name.
v1::Model AdapterProto(const ServedModel& model, const std::string& adapter);

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_SERVED_MODEL_H_
