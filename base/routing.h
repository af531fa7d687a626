#ifndef WITAN_BASE_ROUTING_H_
#define WITAN_BASE_ROUTING_H_

// How a row's experts are chosen and weighed, as data.

#include <cstdint>

namespace witan {

enum class RoutingKind : uint8_t {
  // Softmax over all experts, the largest, weights as they are.
  kSoftmax,
  // The same, weights divided by their sum; equals softmax over the chosen.
  kSoftmaxNormalised,
  // "SparseMixer" (arXiv 2409.12136), two experts: the first is the largest,
  // the second the largest of the rest; each weighs what softmax gives it among
  // those experts, the first left out for the second, whose logits are close.
  kSparseMixer,
};

struct RoutingRule {
  RoutingKind kind = RoutingKind::kSoftmaxNormalised;
  // kSparseMixer: a logit s is close to the largest m if
  // (m - s) / max(|s|, m) <= 2 * jitter.
  float jitter = 0;
  bool operator==(const RoutingRule&) const = default;
};

}  // namespace witan

#endif  // WITAN_BASE_ROUTING_H_
