#ifndef WITAN_CLI_SERVE_H_
#define WITAN_CLI_SERVE_H_

#include <absl/status/statusor.h>

#include <optional>
#include <string>
#include <vector>

#include "cli/supervisor.h"

namespace witan {

// An option of witan-coordinator or witan-worker that `serve` hands on as it
// was given; that program checks it.
struct PassedOption {
  std::string name;         // "--max-context"
  std::string description;  // for --help
  bool for_workers = false;
  std::optional<std::string> value;
};

std::vector<PassedOption> PassedOptions();

struct ServeOptions {
  std::string model;
  int tp = 1;
  int ep = 1;
  std::optional<int> num_workers;  // default: as many as ranks
  int num_spares = 0;              // beyond these
  int num_replicas = 1;
  bool insecure_listen = false;
  bool verbose = false;
  std::vector<PassedOption> passed = PassedOptions();
};

// The command lines of the processes. INVALID_ARGUMENT when tp, ep and the
// number of workers do not fit each other.
absl::StatusOr<LocalClusterOptions> PlanProcesses(const ServeOptions& options);

}  // namespace witan

#endif  // WITAN_CLI_SERVE_H_
