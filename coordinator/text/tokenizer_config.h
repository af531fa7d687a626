#ifndef WITAN_COORDINATOR_TEXT_TOKENIZER_CONFIG_H_
#define WITAN_COORDINATOR_TEXT_TOKENIZER_CONFIG_H_

#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace witan {

// What Witan reads of tokenizer_config.json and special_tokens_map.json.
struct TokenizerConfig {
  // Roles and spellings ("bos_token", "<s>"), by ascending role.
  std::vector<std::pair<std::string, std::string>> special_tokens;
  bool add_bos_token = false;
  bool add_eos_token = false;
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
