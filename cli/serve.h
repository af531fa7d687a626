#ifndef WITAN_CLI_SERVE_H_
#define WITAN_CLI_SERVE_H_

#include <absl/status/statusor.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "cli/supervisor.h"

namespace witan {

struct ServeOptions {
  std::string model;
  int tp = 1;
  int ep = 1;
  std::optional<int> num_workers;  // default: as many as ranks
  int port = 50051;
  int metrics_port = 9464;
  std::string listen = "127.0.0.1";
  bool insecure_listen = false;
  std::string transport = "auto";
  std::string cpu_path = "auto";
  std::optional<int> num_threads;
  std::optional<int64_t> max_context_tokens;
  std::optional<int64_t> max_step_tokens;
  std::optional<int64_t> max_sequences;
  std::optional<int64_t> memory_bytes;
  bool verbose = false;
};

// The command lines of the processes. INVALID_ARGUMENT when tp, ep and the
// number of workers do not fit each other.
absl::StatusOr<LocalClusterOptions> PlanProcesses(const ServeOptions& options);

}  // namespace witan

#endif  // WITAN_CLI_SERVE_H_
