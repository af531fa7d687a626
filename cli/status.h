#ifndef WITAN_CLI_STATUS_H_
#define WITAN_CLI_STATUS_H_

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "proto/cluster.pb.h"

namespace witan {

// "waiting for workers", "loading", "connecting", "serving".
std::string_view NameOf(v1::GroupState state);
// "spare", "loading", "prepared", "serving".
std::string_view NameOf(v1::WorkerState state);

// Every field of the response, under its name in proto/cluster.proto.
nlohmann::ordered_json ToJson(const v1::StatusResponse& status);

// A few lines and a table of the workers for people.
std::string ToText(const v1::StatusResponse& status);

}  // namespace witan

#endif  // WITAN_CLI_STATUS_H_
