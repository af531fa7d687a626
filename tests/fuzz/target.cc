#include "tests/fuzz/target.h"

#include <google/protobuf/stubs/logging.h>

#include <algorithm>

#include "base/limits.h"
#include "base/status.h"
#include "base/utf8.h"

namespace witan::fuzz {

void Promises::Expect(bool is_kept, std::string_view promise) {
  if (!is_kept && broken_.empty()) broken_ = promise;
}

Outcome Promises::Refused(const absl::Status& status,
                          std::initializer_list<absl::StatusCode> codes) {
  Expect(std::find(codes.begin(), codes.end(), status.code()) != codes.end(),
         "a refusal has the code of a refusal: " + status.ToString());
  const std::string_view message = MessageOf(status);
  Expect(!message.empty(), "a refusal says why");
  Expect(IsValidUtf8(message), "a refusal is UTF-8");
  return {.is_accepted = false, .broken = broken_};
}

std::span<const Target> Targets() {
  // Of each message that is not UTF-8, protobuf writes a line.
  google::protobuf::SetLogHandler(nullptr);
  static constexpr Target kTargets[] = {
      {"safetensors", RunSafetensors, SafetensorsSeeds, RepairSafetensors},
      {"gguf", RunGguf, GgufSeeds, nullptr},
      {"config", RunConfig, ConfigSeeds, ReshapeConfig},
      {"adapter", RunAdapter, AdapterSeeds, nullptr},
      {"tokenizer", RunTokenizer, TokenizerSeeds, nullptr},
      {"tekken", RunTekken, TekkenSeeds, nullptr},
      {"sentencepiece", RunSentencePiece, SentencePieceSeeds, nullptr},
      {"chat_template", RunChatTemplate, ChatTemplateSeeds, nullptr},
      {"from_worker", RunFromWorker, FromWorkerSeeds, ReshapeFromWorker},
      {"from_coordinator", RunFromCoordinator, FromCoordinatorSeeds,
       ReshapeFromCoordinator},
      {"request", RunRequest, RequestSeeds, ReshapeRequest},
  };
  return kTargets;
}

const Target* FindTarget(std::string_view name) {
  for (const Target& target : Targets()) {
    if (target.name == name) return &target;
  }
  return nullptr;
}

}  // namespace witan::fuzz
