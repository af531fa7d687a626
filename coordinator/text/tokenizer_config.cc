#include "coordinator/text/tokenizer_config.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

namespace {

using nlohmann::json;

constexpr const char* kConfigFile = "tokenizer_config.json";
constexpr const char* kMapFile = "special_tokens_map.json";

// Not simdjson: these files hold integers beyond 64 bits (model_max_length).
absl::StatusOr<json> ParseObject(std::string_view text, const char* file) {
  if (text.empty()) return json::object();
  json parsed = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object()) {
    return InvalidArgument("{}: not a valid JSON object", file);
  }
  return parsed;
}

// The member `key`, or null when there is none.
const json* Find(const json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

absl::Status Mismatch(const char* file, const std::string& field,
                      std::string_view type, std::string_view expected) {
  return InvalidArgument("{}: {}: got a value of type {}; expected {}", file,
                         field, type, expected);
}

// A token is a string, or an object with "content". Appends it if present.
absl::StatusOr<bool> ReadToken(const json& file, const char* file_name,
                               const char* role, TokenizerConfig* config) {
  const json* value = Find(file, role);
  if (value == nullptr) return false;
  const json* content = value->is_object() ? Find(*value, "content") : value;
  if (content == nullptr || !content->is_string()) {
    return Mismatch(file_name, role, value->type_name(),
                    "a string, or an object with the string \"content\"");
  }
  config->special_tokens.emplace_back(role,
                                      content->get_ref<const std::string&>());
  return true;
}

absl::Status ReadBool(const json& file, const char* key,
                      std::optional<bool>* value) {
  const json* member = Find(file, key);
  if (member == nullptr) return absl::OkStatus();
  if (!member->is_boolean()) {
    return Mismatch(kConfigFile, key, member->type_name(), "true or false");
  }
  *value = member->get<bool>();
  return absl::OkStatus();
}

// One member of "added_tokens_decoder": its key is the id.
absl::StatusOr<AddedToken> ReadAddedToken(const std::string& key,
                                          const json& value) {
  const std::string field = fmt::format("added_tokens_decoder.{}", key);
  AddedToken token;
  const bool is_number = !key.empty() && key.size() <= 9 &&
                         std::all_of(key.begin(), key.end(), [](char c) {
                           return c >= '0' && c <= '9';
                         });
  if (!is_number || std::stoll(key) >= kMaxVocabSize) {
    return InvalidArgument("{}: {}: expected a token id below {} as the key",
                           kConfigFile, field.substr(0, kMaxQuotedBytes),
                           kMaxVocabSize);
  }
  token.id = static_cast<TokenId>(std::stoll(key));
  const json* content = value.is_object() ? Find(value, "content") : nullptr;
  if (content == nullptr || !content->is_string()) {
    return Mismatch(kConfigFile, field, value.type_name(),
                    "an object with the string \"content\"");
  }
  token.content = content->get<std::string>();
  if (token.content.empty() || token.content.size() > kMaxAddedTokenBytes) {
    return InvalidArgument("{}: {}.content: {} bytes; allowed: 1 to {}",
                           kConfigFile, field, token.content.size(),
                           kMaxAddedTokenBytes);
  }
  const auto flag = [&](const char* name, bool* out) {
    const json* member = Find(value, name);
    if (member == nullptr) return absl::OkStatus();
    if (!member->is_boolean()) {
      return Mismatch(kConfigFile, fmt::format("{}.{}", field, name),
                      member->type_name(), "true or false");
    }
    *out = member->get<bool>();
    return absl::OkStatus();
  };
  RETURN_IF_ERROR(flag("special", &token.special));
  RETURN_IF_ERROR(flag("lstrip", &token.lstrip));
  RETURN_IF_ERROR(flag("rstrip", &token.rstrip));
  RETURN_IF_ERROR(flag("single_word", &token.single_word));
  RETURN_IF_ERROR(flag("normalized", &token.normalized));
  return token;
}

absl::Status ReadAddedTokens(const json& file, TokenizerConfig* config) {
  const json* members = Find(file, "added_tokens_decoder");
  if (members == nullptr) return absl::OkStatus();
  if (!members->is_object()) {
    return Mismatch(kConfigFile, "added_tokens_decoder", members->type_name(),
                    "an object of ids and tokens");
  }
  for (const auto& [key, value] : members->items()) {
    ASSIGN_OR_RETURN(AddedToken token, ReadAddedToken(key, value));
    config->added_tokens.push_back(std::move(token));
  }
  std::sort(
      config->added_tokens.begin(), config->added_tokens.end(),
      [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  return absl::OkStatus();
}

// A string, or a list of {"name", "template"} of which "default" is taken.
absl::Status ReadChatTemplate(const json& file, TokenizerConfig* config) {
  const json* value = Find(file, "chat_template");
  if (value == nullptr) return absl::OkStatus();
  if (value->is_string()) {
    config->chat_template = value->get<std::string>();
    return absl::OkStatus();
  }
  const absl::Status mismatch =
      Mismatch(kConfigFile, "chat_template", value->type_name(),
               "a string, or a list of objects with the strings \"name\" and "
               "\"template\", one of them named \"default\"");
  if (!value->is_array()) return mismatch;
  for (const json& entry : *value) {
    if (!entry.is_object()) return mismatch;
    const json* name = Find(entry, "name");
    const json* source = Find(entry, "template");
    if (name == nullptr || !name->is_string() || source == nullptr ||
        !source->is_string()) {
      return mismatch;
    }
    if (name->get_ref<const std::string&>() == "default") {
      config->chat_template = source->get<std::string>();
    }
  }
  return config->chat_template.has_value() ? absl::OkStatus() : mismatch;
}

}  // namespace

absl::StatusOr<TokenizerConfig> TokenizerConfig::Parse(
    std::string_view tokenizer_config, std::string_view special_tokens_map) {
  ASSIGN_OR_RETURN(const json file, ParseObject(tokenizer_config, kConfigFile));
  ASSIGN_OR_RETURN(const json map, ParseObject(special_tokens_map, kMapFile));
  constexpr std::array<const char*, 7> kRoles = {
      "bos_token", "cls_token", "eos_token", "mask_token",
      "pad_token", "sep_token", "unk_token"};
  TokenizerConfig config;
  for (const char* role : kRoles) {
    ASSIGN_OR_RETURN(const bool found,
                     ReadToken(file, kConfigFile, role, &config));
    if (found) continue;
    RETURN_IF_ERROR(ReadToken(map, kMapFile, role, &config).status());
  }
  RETURN_IF_ERROR(ReadBool(file, "add_bos_token", &config.add_bos_token));
  RETURN_IF_ERROR(ReadBool(file, "add_eos_token", &config.add_eos_token));
  RETURN_IF_ERROR(ReadBool(file, "legacy", &config.legacy));
  RETURN_IF_ERROR(ReadBool(file, "add_prefix_space", &config.add_prefix_space));
  RETURN_IF_ERROR(ReadAddedTokens(file, &config));
  RETURN_IF_ERROR(ReadChatTemplate(file, &config));
  return config;
}

const std::string* TokenizerConfig::Find(std::string_view role) const {
  for (const auto& [name, spelling] : special_tokens) {
    if (name == role) return &spelling;
  }
  return nullptr;
}

}  // namespace witan
