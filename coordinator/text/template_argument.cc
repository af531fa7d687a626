#include "coordinator/text/template_argument.h"

#include <vector>

#include "base/limits.h"
#include "base/status.h"

namespace witan {

absl::StatusOr<nlohmann::ordered_json> ParseTemplateArgument(
    const std::string& value) {
  using nlohmann::ordered_json;
  using Event = ordered_json::parse_event_t;
  constexpr int kDepth = kMaxJsonDepth - 1;
  // Both are bounded while the text is parsed: deeper values are copied by
  // recursion, and an object that keeps its order looks through all of its
  // members for each new one.
  bool is_too_deep = false;
  bool is_too_wide = false;
  std::vector<int> num_members;  // of the objects that are open
  const auto bound = [&](int depth, Event event, ordered_json&) {
    is_too_deep |= depth == kDepth && (event == Event::array_start ||
                                       event == Event::object_start);
    if (event == Event::object_start) num_members.push_back(0);
    if (event == Event::object_end) num_members.pop_back();
    is_too_wide |=
        event == Event::key && ++num_members.back() > kMaxTemplateObjectMembers;
    return !is_too_deep && !is_too_wide;
  };
  ordered_json parsed =
      ordered_json::parse(value, bound, /*allow_exceptions=*/false);
  if (is_too_deep) {
    return InvalidArgument("is nested deeper than {} levels", kDepth);
  }
  if (is_too_wide) {
    return InvalidArgument("has an object with more than {} members",
                           kMaxTemplateObjectMembers);
  }
  if (parsed.is_discarded()) return ordered_json(value);
  return parsed;
}

}  // namespace witan
