#ifndef WITAN_TESTS_FUZZ_TARGET_H_
#define WITAN_TESTS_FUZZ_TARGET_H_

// What is fuzzed: parsers of what comes from the network, the disk or a user.
// Each target is one function of the input's bytes, used by libFuzzer
// (fuzzer_main.cc), by the replay of the corpus and by the seeded mutations of
// the tests.

#include <absl/status/status.h>

#include <cstdint>
#include <initializer_list>
#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace witan::fuzz {

struct Outcome {
  bool is_accepted = false;
  // The first promise that was broken; empty when all were kept.
  std::string broken;
};

// Collects the outcome of one input.
class Promises {
 public:
  // Notes the first promise that is not kept.
  void Expect(bool is_kept, std::string_view promise);
  // Of everything that was refused: one of `codes`, with a message that is
  // short and UTF-8.
  Outcome Refused(const absl::Status& status,
                  std::initializer_list<absl::StatusCode> codes = {
                      absl::StatusCode::kInvalidArgument});
  Outcome Accepted() { return {.is_accepted = true, .broken = broken_}; }

 private:
  std::string broken_;
};

struct Target {
  std::string_view name;
  Outcome (*run)(std::string_view input);
  // Inputs to begin with, most of them accepted.
  std::vector<std::string> (*seeds)();
  // Changes `input` as only one who knows its structure can; null where
  // changed bytes are good enough.
  void (*reshape)(std::string* input, uint64_t seed);
};
// What gtest prints.
inline void PrintTo(const Target& target, std::ostream* out) {
  *out << target.name;
}

Outcome RunSafetensors(std::string_view input);
std::vector<std::string> SafetensorsSeeds();
void RepairSafetensors(std::string* input, uint64_t seed);

// A .gguf file: its table, and the config, tensors and tokenizer made of it.
Outcome RunGguf(std::string_view input);
std::vector<std::string> GgufSeeds();

// config.json and generation_config.json, each of which may be the input.
Outcome RunConfig(std::string_view input);
std::vector<std::string> ConfigSeeds();
void ReshapeConfig(std::string* input, uint64_t seed);

// An adapter's adapter_config.json and, after a zero byte, its tensors.
Outcome RunAdapter(std::string_view input);
std::vector<std::string> AdapterSeeds();

// tokenizer.json, tokenizer_config.json, special_tokens_map.json and a text to
// encode, with a zero byte between them.
Outcome RunTokenizer(std::string_view input);
std::vector<std::string> TokenizerSeeds();
// tekken.json, tokenizer_config.json and a text, in the same way.
Outcome RunTekken(std::string_view input);
std::vector<std::string> TekkenSeeds();
// tokenizer_config.json, a text and, up to the end, a tokenizer.model.
Outcome RunSentencePiece(std::string_view input);
std::vector<std::string> SentencePieceSeeds();

// A template and, after a zero byte, its input as a JSON object with
// "messages", "arguments" and "add_generation_prompt".
Outcome RunChatTemplate(std::string_view input);
std::vector<std::string> ChatTemplateSeeds();

// One FromWorker.
Outcome RunFromWorker(std::string_view input);
std::vector<std::string> FromWorkerSeeds();
void ReshapeFromWorker(std::string* input, uint64_t seed);

// FromCoordinator messages, each with its length before it; the plans among
// them go on to a worker's slots.
Outcome RunFromCoordinator(std::string_view input);
std::vector<std::string> FromCoordinatorSeeds();
void ReshapeFromCoordinator(std::string* input, uint64_t seed);

// A byte that says which request of inference.proto or cluster.proto, and it.
Outcome RunRequest(std::string_view input);
std::vector<std::string> RequestSeeds();
void ReshapeRequest(std::string* input, uint64_t seed);

std::span<const Target> Targets();
// Null when there is none.
const Target* FindTarget(std::string_view name);

}  // namespace witan::fuzz

#endif  // WITAN_TESTS_FUZZ_TARGET_H_
