#include "base/config.h"

#include <fmt/format.h>
#include <toml++/toml.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <numeric>
#include <set>
#include <sstream>
#include <type_traits>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr char kConfigOption[] = "--config";

// Levenshtein distance.
size_t EditDistance(std::string_view a, std::string_view b) {
  std::vector<size_t> row(b.size() + 1);
  std::iota(row.begin(), row.end(), size_t{0});
  for (size_t i = 0; i < a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i + 1;
    for (size_t j = 0; j < b.size(); ++j) {
      const size_t replace = diagonal + (a[i] == b[j] ? 0 : 1);
      diagonal = row[j + 1];
      row[j + 1] = std::min({replace, row[j] + 1, row[j + 1] + 1});
    }
  }
  return row[b.size()];
}

std::string WithDashes(std::string_view key) {
  std::string name(key);
  std::replace(name.begin(), name.end(), '_', '-');
  return name;
}

std::string EnvironmentName(const std::string& long_name) {
  std::string name = "WITAN_";
  for (const char c : long_name) {
    name += c == '-' ? '_' : static_cast<char>(std::toupper(c));
  }
  return name;
}

// "metrics-port" for an option, empty for one without a long name. Positional
// arguments go by their name: MODEL is the key "model".
std::string NameOf(const CLI::Option& option) {
  if (!option.get_lnames().empty()) return option.get_lnames().front();
  std::string name = option.get_name(/*positional=*/true);
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return std::tolower(c); });
  return WithDashes(name);
}

bool IsSetting(const CLI::Option& option) {
  const std::string name = NameOf(option);
  return name != "config" && name != "help" && name != "version";
}

std::vector<CLI::Option*> SettingsOf(CLI::App& app) {
  std::vector<CLI::Option*> settings;
  for (CLI::Option* option : app.get_options()) {
    if (IsSetting(*option)) settings.push_back(option);
  }
  return settings;
}

// Not to be read from the environment or a file.
bool IsFlagOnly(const CLI::Option& option) {
  return !option.get_configurable();
}

CLI::Option* FindSetting(CLI::App& app, const std::string& name) {
  for (CLI::Option* option : SettingsOf(app)) {
    if (NameOf(*option) == name) return option;
  }
  return nullptr;
}

// `app` and all its subcommands.
std::vector<CLI::App*> AllApps(CLI::App& app) {
  std::vector<CLI::App*> apps = {&app};
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    const std::vector<CLI::App*> below = AllApps(*sub);
    apps.insert(apps.end(), below.begin(), below.end());
  }
  return apps;
}

// `app` and the subcommands that the arguments selected.
std::vector<CLI::App*> SelectedApps(CLI::App& app) {
  std::vector<CLI::App*> apps = {&app};
  for (CLI::App* sub : app.get_subcommands()) {
    const std::vector<CLI::App*> below = SelectedApps(*sub);
    apps.insert(apps.end(), below.begin(), below.end());
  }
  return apps;
}

std::string Suggestion(std::string_view name,
                       const std::vector<std::string>& candidates,
                       std::string_view prefix) {
  const std::string closest = ClosestName(name, candidates);
  if (closest.empty()) return "";
  return fmt::format("; did you mean {}{}?", prefix, closest);
}

std::vector<std::string> SettingNames(const std::vector<CLI::App*>& apps) {
  std::set<std::string> names;
  for (CLI::App* app : apps) {
    for (CLI::Option* option : SettingsOf(*app)) names.insert(NameOf(*option));
  }
  return {names.begin(), names.end()};
}

absl::Status UnknownArgument(CLI::App& app) {
  for (CLI::App* selected : SelectedApps(app)) {
    for (const std::string& argument : selected->remaining()) {
      if (argument.rfind("--", 0) == 0) {
        const std::string name = argument.substr(2, argument.find('=') - 2);
        return InvalidArgument(
            "unknown option --{}{}", name,
            Suggestion(name, SettingNames(SelectedApps(app)), "--"));
      }
      std::vector<std::string> subcommands;
      for (const CLI::App* sub :
           app.get_subcommands([](CLI::App*) { return true; })) {
        subcommands.push_back(sub->get_name());
      }
      return InvalidArgument("unexpected argument \"{}\"{}", argument,
                             Suggestion(argument, subcommands, ""));
    }
  }
  return InvalidArgument("unexpected arguments");
}

// Gives `option` the values as if they stood on the command line.
absl::Status SetOption(CLI::Option& option,
                       const std::vector<std::string>& values,
                       const std::string& origin) {
  try {
    for (const std::string& value : values) option.add_result(value);
    option.run_callback();
  } catch (const CLI::Error& error) {
    return InvalidArgument("{}: {}", origin, error.what());
  }
  return absl::OkStatus();
}

absl::Status ApplyEnvironment(CLI::App& app, const EnvironmentFn& environment) {
  for (CLI::App* selected : SelectedApps(app)) {
    for (CLI::Option* option : SettingsOf(*selected)) {
      if (option->count() > 0 || option->get_lnames().empty() ||
          IsFlagOnly(*option)) {
        continue;
      }
      const std::string name = EnvironmentName(NameOf(*option));
      const std::optional<std::string> value = environment(name);
      if (!value.has_value()) continue;
      RETURN_IF_ERROR(
          SetOption(*option, {*value},
                    fmt::format("environment variable {}={}", name, *value)));
    }
  }
  return absl::OkStatus();
}

// One scalar of a TOML file as a command line would spell it.
std::optional<std::string> Scalar(const toml::node& node) {
  if (const auto* text = node.as_string()) return text->get();
  if (const auto* integer = node.as_integer()) {
    return fmt::format("{}", integer->get());
  }
  if (const auto* real = node.as_floating_point()) {
    return fmt::format("{}", real->get());
  }
  if (const auto* flag = node.as_boolean()) {
    return std::string(flag->get() ? "true" : "false");
  }
  return std::nullopt;
}

std::optional<std::vector<std::string>> ValuesOf(const toml::node& node) {
  std::vector<std::string> values;
  if (const toml::array* array = node.as_array()) {
    for (const toml::node& element : *array) {
      const std::optional<std::string> value = Scalar(element);
      if (!value.has_value()) return std::nullopt;
      values.push_back(*value);
    }
    return values;
  }
  const std::optional<std::string> value = Scalar(node);
  if (!value.has_value()) return std::nullopt;
  values.push_back(*value);
  return values;
}

// Applies the keys of `table` to those of `selected` that know them; a key
// that none of `known` has is an error.
absl::Status ApplyTable(const toml::table& table, const std::string& file,
                        const std::vector<CLI::App*>& selected,
                        const std::vector<CLI::App*>& known) {
  for (const auto& [key, node] : table) {
    if (node.is_table()) continue;
    const std::string name = WithDashes(key.str());
    const std::string where =
        fmt::format("{}:{}", file, key.source().begin.line);
    bool exists = false;
    bool is_key = false;
    for (CLI::App* app : known) {
      const CLI::Option* option = FindSetting(*app, name);
      exists |= option != nullptr;
      is_key |= option != nullptr && !IsFlagOnly(*option);
    }
    if (exists && !is_key) {
      return InvalidArgument(
          "{}: \"{}\" is only a flag; give --{} on the command line", where,
          key.str(), name);
    }
    if (!exists) {
      return InvalidArgument("{}: unknown key \"{}\"{}", where, key.str(),
                             Suggestion(name, SettingNames(known), ""));
    }
    const std::optional<std::vector<std::string>> values = ValuesOf(node);
    if (!values.has_value()) {
      return InvalidArgument(
          "{}: \"{}\" must be a string, a number, true, false, or a list of "
          "these",
          where, key.str());
    }
    for (CLI::App* app : selected) {
      CLI::Option* option = FindSetting(*app, name);
      if (option == nullptr || IsFlagOnly(*option) || option->count() > 0) {
        continue;
      }
      RETURN_IF_ERROR(SetOption(*option, *values,
                                fmt::format("{}: \"{}\"", where, key.str())));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<toml::table> ReadToml(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text(kMaxConfigFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  if (!file.eof() && file.fail()) {
    return InvalidArgument("cannot read configuration file {}", path);
  }
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxConfigFileBytes) {
    return InvalidArgument("configuration file {} is larger than {} bytes",
                           path, kMaxConfigFileBytes);
  }
  try {
    return toml::parse(text);
  } catch (const toml::parse_error& error) {
    return InvalidArgument("{}:{}: {}", path, error.source().begin.line,
                           error.description());
  }
}

absl::Status ApplyFile(CLI::App& app, const std::string& path) {
  ASSIGN_OR_RETURN(const toml::table table, ReadToml(path));
  std::vector<std::string> subcommands;
  for (CLI::App* sub : app.get_subcommands([](CLI::App*) { return true; })) {
    subcommands.push_back(sub->get_name());
  }
  // Tables of subcommands first: they are more specific.
  for (const auto& [key, node] : table) {
    if (!node.is_table()) continue;
    const std::string name(key.str());
    if (std::find(subcommands.begin(), subcommands.end(), name) ==
        subcommands.end()) {
      return InvalidArgument("{}:{}: unknown table [{}]{}", path,
                             key.source().begin.line, name,
                             Suggestion(name, subcommands, ""));
    }
    CLI::App* subcommand = app.get_subcommand(name);
    const std::vector<CLI::App*> selected = subcommand->parsed()
                                                ? SelectedApps(*subcommand)
                                                : std::vector<CLI::App*>{};
    RETURN_IF_ERROR(
        ApplyTable(*node.as_table(), path, selected, AllApps(*subcommand)));
  }
  return ApplyTable(table, path, SelectedApps(app), AllApps(app));
}

// "" when all of `text` is one number of type T in plain decimal, else what is
// wrong. CLI11 itself wraps what is negative, cuts what is too large and reads
// 010 as 8.
template <typename T>
std::string CheckWholeNumber(const std::string& text) {
  T value{};
  const char* const end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, value);
  const bool is_whole = parsed.ec == std::errc() && parsed.ptr == end;
  if (is_whole && text == fmt::format("{}", value)) return "";
  std::string message = fmt::format("\"{}\" is not a whole number", text);
  // A narrower type than T has another range.
  if (std::is_unsigned_v<T> || parsed.ec == std::errc::result_out_of_range) {
    message += fmt::format(" from {} to {}", std::numeric_limits<T>::min(),
                           std::numeric_limits<T>::max());
  }
  return message;
}

std::string CheckFinite(const std::string& text) {
  const char* const end = text.data() + text.size();
  double value = 0;
  const auto parsed = std::from_chars(text.data(), end, value);
  const bool is_number = parsed.ec == std::errc() && parsed.ptr == end;
  if (is_number && std::isfinite(value)) return "";
  return fmt::format("\"{}\" is not a finite number", text);
}

// Numbers that do not fit a narrower type are refused by CLI11.
void CheckNumbers(CLI::Option& option) {
  const std::string type = option.get_type_name();
  const std::string name = type.substr(0, type.find(':'));
  if (name == "INT") option.check(CheckWholeNumber<int64_t>);
  if (name == "UINT") option.check(CheckWholeNumber<uint64_t>);
  if (name == "FLOAT") option.check(CheckFinite);
}

CLI::Option* FindOption(CLI::App& app, const std::string& name) {
  for (CLI::App* each : AllApps(app)) {
    CLI::Option* const option = each->get_option_no_throw(name);
    if (option != nullptr) return option;
  }
  return nullptr;
}

// CLI11 takes the argument after "--name=" for its value. Here that value is
// empty.
absl::StatusOr<std::vector<std::string>> SplitEmptyValues(
    CLI::App& app, const std::vector<std::string>& arguments) {
  std::vector<std::string> split;
  bool options_end = false;
  for (const std::string& argument : arguments) {
    options_end = options_end || argument == "--";
    const size_t equals = argument.find('=');
    const CLI::Option* option = nullptr;
    if (!options_end && argument.rfind("--", 0) == 0 &&
        equals + 1 == argument.size()) {
      option = FindOption(app, argument.substr(0, equals));
    }
    if (option == nullptr) {
      split.push_back(argument);
      continue;
    }
    if (option->get_items_expected_max() == 0) {
      return InvalidArgument("{} takes true or false, or no value without =",
                             argument);
    }
    split.push_back(argument.substr(0, equals));
    split.emplace_back();
  }
  return split;
}

// Required options are checked here, after every source was read.
absl::Status CheckRequired(CLI::App& app,
                           const std::set<const CLI::Option*>& required) {
  for (CLI::App* selected : SelectedApps(app)) {
    for (CLI::Option* option : SettingsOf(*selected)) {
      if (option->count() > 0 || required.count(option) == 0) continue;
      if (option->get_positional()) {
        return InvalidArgument("{} is missing; try --help",
                               option->get_name(/*positional=*/true));
      }
      if (IsFlagOnly(*option)) {
        return InvalidArgument("--{} is missing; it is a flag",
                               NameOf(*option));
      }
      return InvalidArgument(
          "--{} is missing; give it as a flag, as {} in the environment or in "
          "the file of --config",
          NameOf(*option), EnvironmentName(NameOf(*option)));
    }
  }
  return absl::OkStatus();
}

}  // namespace

EnvironmentFn ProcessEnvironment() {
  return [](const std::string& name) -> std::optional<std::string> {
    const char* value = std::getenv(name.c_str());
    if (value == nullptr || *value == '\0') return std::nullopt;
    return std::string(value);
  };
}

std::string ClosestName(std::string_view name,
                        const std::vector<std::string>& candidates) {
  std::string closest;
  size_t best = std::max<size_t>(2, name.size() / 3) + 1;
  for (const std::string& candidate : candidates) {
    const size_t distance = EditDistance(name, candidate);
    if (distance < best && distance < candidate.size()) {
      best = distance;
      closest = candidate;
    }
  }
  return closest;
}

absl::StatusOr<std::string> ParseOptions(CLI::App& app,
                                         std::vector<std::string> arguments,
                                         const EnvironmentFn& environment) {
  std::string config_path;
  app.add_option(kConfigOption, config_path,
                 "TOML file with any of these options");
  std::set<const CLI::Option*> required;
  for (CLI::App* each : AllApps(app)) {
    if (each != &app) {
      each->fallthrough();
      each->footer("--config FILE names a TOML file with any of these.");
    }
    for (CLI::Option* option : SettingsOf(*each)) {
      if (option->get_required()) required.insert(option);
      option->required(false);
      CheckNumbers(*option);
      if (!option->get_lnames().empty()) {
        option->description(fmt::format(
            "{} [{}]", option->get_description(),
            IsFlagOnly(*option) ? "flag only"
                                : EnvironmentName(NameOf(*option))));
      }
    }
  }
  ASSIGN_OR_RETURN(arguments, SplitEmptyValues(app, arguments));
  std::reverse(arguments.begin(), arguments.end());
  try {
    app.parse(std::move(arguments));
  } catch (const CLI::Success& success) {  // --help, --version
    std::ostringstream out;
    app.exit(success, out, out);
    return out.str();
  } catch (const CLI::ExtrasError&) {
    return UnknownArgument(app);
  } catch (const CLI::Error& error) {
    // A misspelt subcommand is missing as well as left over.
    if (!app.remaining().empty()) return UnknownArgument(app);
    return InvalidArgument("{}; try --help", error.what());
  }
  RETURN_IF_ERROR(ApplyEnvironment(app, environment));
  if (config_path.empty()) {
    config_path = environment(EnvironmentName("config")).value_or("");
  }
  if (!config_path.empty()) RETURN_IF_ERROR(ApplyFile(app, config_path));
  RETURN_IF_ERROR(CheckRequired(app, required));
  return std::string();
}

std::optional<int> ParseCommandLine(CLI::App& app, int argc, char** argv) {
  const absl::StatusOr<std::string> text =
      ParseOptions(app, std::vector<std::string>(argv + 1, argv + argc),
                   ProcessEnvironment());
  if (!text.ok()) {
    fmt::print(stderr, "error: {}\n", MessageOf(text.status()));
    return kExitUsage;
  }
  if (text->empty()) return std::nullopt;
  fmt::print("{}", *text);
  return kExitOk;
}

}  // namespace witan
