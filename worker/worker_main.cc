// witan-worker: one rank of a cluster. Dials a coordinator and serves whatever
// shard it is given.

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <optional>
#include <string>
#include <system_error>
#include <thread>

#include "base/build_id.h"
#include "base/config.h"
#include "base/cores.h"
#include "base/limits.h"
#include "base/log.h"
#include "base/process.h"
#include "base/status.h"
#include "net/address.h"
#include "net/metrics_server.h"
#include "worker/worker.h"
#include "worker/worker_metrics.h"
#include "worker/worker_service.h"

namespace witan {
namespace {

struct Options {
  std::string join;
  std::string model_directory;
  std::string cache_directory;
  std::string cpu_path = "auto";
  int threads = 0;
  double memory_gib = 0;
  int metrics_port = -1;
  std::string metrics_host = "127.0.0.1";
  std::string comm_host = "127.0.0.1";
  bool insecure_listen = false;
};

void AddOptions(CLI::App& app, Options& options) {
  app.set_version_flag("--version", VersionLine("witan-worker"));
  app.add_option("--join", options.join, "Coordinator, as HOST:PORT")
      ->check(CheckHostPort)
      ->required();
  app.add_option(
      "--model", options.model_directory,
      "Model directory or .gguf file; the coordinator must serve the "
      "same one. "
      "Default: whatever it says");
  app.add_option("--cache-dir", options.cache_directory,
                 "Keep hashes of the weights there, so that a restart does not "
                 "read them all again. Default: none are kept");
  app.add_option("--threads", options.threads,
                 "Compute threads, 0: as the coordinator says")
      ->check(CLI::Range(0, kMaxThreadsPerRank));
  app.add_option("--cpu-path", options.cpu_path,
                 "Instruction set: auto, avx512bf16, avx2 or portable");
  app.add_option("--memory", options.memory_gib,
                 "GiB that this worker may use, 0: its share of half of what "
                 "is free, divided among the workers of this host")
      ->check(CLI::Range(0.0, 1e6));
  app.add_option("--metrics-port", options.metrics_port,
                 "Port of /metrics; 0: any free one, -1: none")
      ->check(CLI::Range(-1, 65535));
  app.add_option("--metrics-host", options.metrics_host, "Address of /metrics");
  app.add_option("--comm-host", options.comm_host,
                 "Address at which other ranks reach this one over TCP");
  app.add_flag("--insecure-listen", options.insecure_listen,
               "Allow plaintext ports on other addresses than loopback");
}

// A file of the kernel's, which has no size to stat; empty if it cannot be
// read.
std::string ReadKernelFile(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file),
          std::istreambuf_iterator<char>()};
}

// MemAvailable of /proc/meminfo, or the room left under the cgroup's limit if
// that is less. 0 if neither can be read.
int64_t FreeMemoryBytes() {
  int64_t free_bytes = 0;
  const std::string meminfo = ReadKernelFile("/proc/meminfo");
  const size_t at = meminfo.find("MemAvailable:");
  if (at != std::string::npos) {
    free_bytes = std::atoll(meminfo.c_str() + at + 13) * 1024;
  }
  const std::string limit = ReadKernelFile("/sys/fs/cgroup/memory.max");
  const std::string used = ReadKernelFile("/sys/fs/cgroup/memory.current");
  if (!limit.empty() && !used.empty() && limit.rfind("max", 0) != 0) {
    const int64_t room = std::atoll(limit.c_str()) - std::atoll(used.c_str());
    free_bytes = std::min(free_bytes, std::max<int64_t>(room, 0));
  }
  return free_bytes;
}

std::string HostName() {
  char name[HOST_NAME_MAX + 1] = {};
  return gethostname(name, sizeof(name) - 1) == 0 ? name : "unknown";
}

// Equal for processes that can map each other's shared memory: one boot of one
// kernel, and one mount under /dev/shm.
std::string HostId() {
  std::string id = ReadKernelFile("/proc/sys/kernel/random/boot_id");
  id = id.empty() ? HostName() : id.substr(0, id.find('\n'));
  struct stat shm = {};
  if (stat("/dev/shm", &shm) == 0) {
    id += fmt::format("/{}:{}", shm.st_dev, shm.st_ino);
  }
  return id;
}

RegisterWorker Registration(const Options& options, const std::string& cpu_path,
                            const std::string& metrics_address) {
  RegisterWorker registration;
  registration.build_id = BuildId();
  registration.host_id = HostId();
  registration.host_name = HostName();
  registration.process_id = getpid();
  registration.device = "cpu";
  registration.cpu_path = cpu_path;
  registration.num_cores = NumUsableCores();
  registration.num_threads = options.threads;
  registration.memory_is_of_host = options.memory_gib == 0;
  registration.memory_bytes =
      registration.memory_is_of_host
          ? FreeMemoryBytes() / 2
          : static_cast<int64_t>(options.memory_gib * (int64_t{1} << 30));
  registration.model_directory = options.model_directory;
  registration.metrics_address = metrics_address;
  return registration;
}

int Fail(int exit_code, const absl::Status& status) {
  fmt::print(stderr, "error: {}\n", MessageOf(status));
  return exit_code;
}

int Main(int argc, char** argv) {
  TerminationSignals signals;
  Options options;
  CLI::App app("One rank of a Witan cluster.", "witan-worker");
  AddOptions(app, options);
  if (const auto exit_code = ParseCommandLine(app, argc, argv)) {
    return *exit_code;
  }
  const auto cpu_path = ParseCpuPath(options.cpu_path);
  if (!cpu_path.ok()) return Fail(kExitUsage, cpu_path.status());
  const auto resolved_path = ResolvedCpuPath(*cpu_path);
  if (!resolved_path.ok()) return Fail(kExitUsage, resolved_path.status());
  if (const absl::Status status = CheckCanListen(
          {.host = options.comm_host, .port = 0}, options.insecure_listen);
      !status.ok()) {
    return Fail(kExitUsage, Annotate(status, "--comm-host"));
  }
  if (!options.model_directory.empty()) {
    std::error_code error;
    const auto path =
        std::filesystem::canonical(options.model_directory, error);
    if (error) {
      return Fail(kExitModel,
                  NotFound("model directory {}: {}", options.model_directory,
                           error.message()));
    }
    options.model_directory = path.string();
  }

  WorkerMetrics metrics;
  std::unique_ptr<MetricsServer> metrics_server;
  if (options.metrics_port >= 0) {
    auto server = MetricsServer::Start(
        {.host = options.metrics_host, .port = options.metrics_port},
        options.insecure_listen);
    if (!server.ok())
      return Fail(kExitResources, Annotate(server.status(), "--metrics-port"));
    metrics_server = *std::move(server);
    metrics_server->Add(metrics.registry());
    LogInfo("metrics", {{"address", metrics_server->address()}});
  }

  Worker worker({.cpu_path = *cpu_path,
                 .communication_host = options.comm_host,
                 .model_directory = options.model_directory,
                 .cache_directory = options.cache_directory,
                 .make_rendezvous = nullptr});
  WorkerService service(
      EngineOf(worker),
      {.coordinator = options.join,
       .registration = Registration(
           options, *resolved_path,
           metrics_server == nullptr ? "" : metrics_server->address())},
      metrics);
  absl::Status status;
  std::thread serving([&] {
    status = service.Run();
    signals.Wake();
  });
  signals.Wait();
  service.Stop();
  serving.join();
  if (!status.ok()) return Fail(kExitModel, status);
  return kExitOk;
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) { return witan::Main(argc, argv); }
