#ifndef WITAN_CLI_BENCH_PLOT_H_
#define WITAN_CLI_BENCH_PLOT_H_

#include <string>
#include <vector>

#include "cli/bench/report.h"

namespace witan::bench {

// The run in four panels, as an SVG file: output tokens per second and requests
// in flight over time (failures as red marks), and the cumulative
// distributions of time to first token and of inter-token latency, by class,
// with the objectives. Pure.
std::string PlotSvg(const RunFacts& facts, const Plan& plan,
                    const Report& report, const std::vector<Record>& records);

}  // namespace witan::bench

#endif  // WITAN_CLI_BENCH_PLOT_H_
