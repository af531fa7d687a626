#ifndef WITAN_CLI_BENCH_REPORT_H_
#define WITAN_CLI_BENCH_REPORT_H_

// A report as people and programs read it. Pure.

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "cli/bench/plan.h"
#include "cli/bench/statistics.h"

namespace witan::bench {

// Who was measured, by whom and how.
struct RunFacts {
  std::string server;  // HOST:PORT
  std::string model;
  std::string architecture;
  std::string weights_dtype;
  ModelFacts model_facts;
  int64_t num_ranks = 0;
  int tp = 0;
  int ep = 0;
  std::string server_build_id;
  std::string weights_id;
  std::string numerics_id;
  // Of this program.
  std::string version;
  std::string build_id;

  Objectives objectives;
  int num_connections = 1;
  int64_t timeout_ms = 0;
  std::string started_at;  // UTC, 2023-11-16T18:15:46Z
  bool interrupted = false;
  int64_t num_unsent = 0;                // planned, but the run was interrupted
  bool stopped_at_max_requests = false;  // before the load's own end
  // Cores that the client kept busy; near the machine's number it was the
  // client that was measured.
  double client_cores = 0;
};

// A few lines and tables.
std::string ToText(const RunFacts& facts, const Plan& plan,
                   const Report& report);

// Every number of the report, the configuration and who was measured. With
// `records` also one object per request.
nlohmann::ordered_json ToJson(const RunFacts& facts, const Plan& plan,
                              const Report& report,
                              const std::vector<Record>* records);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_REPORT_H_
