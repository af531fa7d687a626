#ifndef WITAN_MODEL_GGUF_CONFIG_H_
#define WITAN_MODEL_GGUF_CONFIG_H_

// The config.json and generation_config.json that a GGUF file would be made of:
// its metadata under Hugging Face's names, so that model/config and
// model/generation_config read every model. Keys are those of docs/gguf.md of
// ggml and of gguf-py's constants.py.
//
// What the format does not keep is filled in: norm_topk_prob of a qwen3moe is
// true, router_jitter_noise of a phimoe 0.01 (both as in every published one).
// dtype is bfloat16 as soon as one matrix is quantised or bfloat16, else
// float16 as soon as one is float16.

#include <absl/status/statusor.h>

#include <string>

#include "model/gguf_model.h"

namespace witan {

// Errors name the key, its value and what is allowed; other architectures and
// features that are not served are refused. What it makes may still be refused
// by ParseModelConfig.
absl::StatusOr<std::string> ConfigOfGguf(const GgufModel& model);

// With eos_token_id: the tokens that end a text, a turn or a message, by their
// keys, or by name if they are control tokens that ends of turns are known by.
absl::StatusOr<std::string> GenerationConfigOfGguf(const GgufModel& model);

}  // namespace witan

#endif  // WITAN_MODEL_GGUF_CONFIG_H_
