#include "model/config_identity.h"

#include <fmt/format.h>

#include <algorithm>

#include "model/json_object.h"

namespace witan {
namespace {

// Takes the next line off the front of `text`; empty at the end.
std::string_view TakeLine(std::string_view& text) {
  const size_t size = std::min(text.find('\n'), text.size());
  const std::string_view line = text.substr(0, size);
  text.remove_prefix(std::min(size + 1, text.size()));
  return line;
}

// The value of a line "name=value", or what there is in its place.
std::string ValueOf(std::string_view line, std::string_view name) {
  if (line.empty()) return "absent";
  if (!line.starts_with(name) || !line.substr(name.size()).starts_with('=')) {
    return Quoted(line);
  }
  const std::string_view value = line.substr(name.size() + 1);
  const std::string quoted = Quoted(value);
  // Numbers and words read better without quotes.
  return quoted.size() == value.size() + 2 ? std::string(value) : quoted;
}

std::string_view NameOf(RopeScaling scaling) {
  switch (scaling) {
    case RopeScaling::kNone:
      return "default";
    case RopeScaling::kLinear:
      return "linear";
    case RopeScaling::kLlama3:
      return "llama3";
    case RopeScaling::kYarn:
      return "yarn";
    case RopeScaling::kLongRope:
      return "longrope";
  }
  return "";
}

std::string_view NameOf(RoutingKind kind) {
  switch (kind) {
    case RoutingKind::kSoftmax:
      return "softmax";
    case RoutingKind::kSoftmaxNormalised:
      return "normalised softmax";
    case RoutingKind::kSparseMixer:
      return "sparse mixer";
  }
  return "";
}

}  // namespace

std::string ConfigText(const ModelConfig& config) {
  // A field that is added does not compile until it is here.
  const auto& [architecture, hidden_size, intermediate_size, num_layers,
               num_heads, num_kv_heads, head_dim, num_experts,
               experts_per_token, vocab_size, max_context_tokens,
               sliding_window, windowed_layers, norm_epsilon, rope, routing,
               norm, qkv_bias, output_bias, qk_norm, lm_head_bias,
               tie_word_embeddings, weights] = config;
  const auto& [scaling, theta, rotary_dim, factor, original_context_tokens,
               low_freq_factor, high_freq_factor, beta_fast, beta_slow,
               truncate, short_factors, long_factors, attention_factor,
               long_attention_factor] = rope;
  std::string text;
  const auto add = [&text](std::string_view name, const auto& value) {
    // Floating-point values are written with as many digits as tell them from
    // every other.
    text += fmt::format("{}={}\n", name, value);
  };
  std::string windows;
  for (const bool windowed : windowed_layers) windows += windowed ? 'w' : '-';
  add("architectures", architecture);
  add("hidden_size", hidden_size);
  add("intermediate_size", intermediate_size);
  add("num_hidden_layers", num_layers);
  add("num_attention_heads", num_heads);
  add("num_key_value_heads", num_kv_heads);
  add("head_dim", head_dim);
  add("num_local_experts", num_experts);
  add("num_experts_per_tok", experts_per_token);
  add("vocab_size", vocab_size);
  add("max_position_embeddings", max_context_tokens);
  add("sliding_window", sliding_window);
  add("layers with a window", windows);
  add("rms_norm_eps", norm_epsilon);
  add("rope_theta", theta);
  add("rope_type", NameOf(scaling));
  add("rotary dimensions", rotary_dim);
  add("rope factor", factor);
  add("original_max_position_embeddings", original_context_tokens);
  add("low_freq_factor", low_freq_factor);
  add("high_freq_factor", high_freq_factor);
  add("beta_fast", beta_fast);
  add("beta_slow", beta_slow);
  add("truncate", truncate);
  add("short_factor", fmt::format("{}", fmt::join(short_factors, ",")));
  add("long_factor", fmt::format("{}", fmt::join(long_factors, ",")));
  add("attention_factor", attention_factor);
  add("long attention_factor", long_attention_factor);
  add("routing", NameOf(routing.kind));
  add("router_jitter_noise", routing.jitter);
  add("kind of norm", norm == NormKind::kRms ? "rms" : "layer");
  add("biases of query, key and value", qkv_bias);
  add("bias of the attention's output", output_bias);
  add("norms of query and key", qk_norm);
  add("lm_head_bias", lm_head_bias);
  add("tie_word_embeddings", tie_word_embeddings);
  add("dtype", NameOf(weights));
  return text;
}

std::string ConfigDifference(std::string_view theirs, std::string_view ours) {
  while (!theirs.empty() || !ours.empty()) {
    const std::string_view their_line = TakeLine(theirs);
    const std::string_view our_line = TakeLine(ours);
    if (their_line == our_line) continue;
    const std::string_view named = our_line.empty() ? their_line : our_line;
    const std::string_view name = named.substr(0, named.find('='));
    return fmt::format("{} is {} and {}",
                       our_line.empty() ? Quoted(name) : std::string(name),
                       ValueOf(their_line, name), ValueOf(our_line, name));
  }
  return "";
}

}  // namespace witan
