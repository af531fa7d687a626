#ifndef WITAN_COORDINATOR_API_CHAT_INPUT_H_
#define WITAN_COORDINATOR_API_CHAT_INPUT_H_

#include <absl/status/statusor.h>

#include "coordinator/text/chat_template.h"
#include "coordinator/text/tokenizer.h"
#include "proto/generation_request.h"

namespace witan {

// What a chat template is rendered with. INVALID_ARGUMENT names a template
// argument, tool or tool call that is nested too deep, and one of the latter
// that is no JSON object.
absl::StatusOr<ChatTemplateInput> TemplateInput(
    const GenerationRequest& request, const Tokenizer& tokenizer);

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_CHAT_INPUT_H_
