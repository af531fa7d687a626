#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_CONFIG_H_
#define WITAN_COORDINATOR_TEXT_TOKENIZER_CONFIG_H_

#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "coordinator/text/added_tokens.h"

namespace witan {

// What Witan reads of tokenizer_config.json and special_tokens_map.json.
struct TokenizerConfig {
  // Roles and spellings ("bos_token", "<s>"), by ascending role.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  // Absent when the file does not say.
  std::optional<bool> add_bos_token;
  std::optional<bool> add_eos_token;
  // "legacy": every text between two added tokens gets the space of a first
  // word, not only the text as a whole.
  std::optional<bool> legacy;
  std::optional<bool> add_prefix_space;
  // "added_tokens_decoder", by ascending id.
  std::vector<AddedToken> added_tokens;
  std::optional<std::string> chat_template;

  // "" stands for a file that does not exist. The first file wins where both
  // name a token. InvalidArgument names file, field and value.
  static absl::StatusOr<TokenizerConfig> Parse(
      std::string_view tokenizer_config, std::string_view special_tokens_map);

  // The spelling of a role, or null.
  const std::string* Find(std::string_view role) const;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_TEXT_TOKENIZER_CONFIG_H_
