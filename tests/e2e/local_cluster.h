#ifndef WITAN_TESTS_E2E_LOCAL_CLUSTER_H_
#define WITAN_TESTS_E2E_LOCAL_CLUSTER_H_

// Real processes for tests: the built binaries, started as a person would.

#include <grpcpp/channel.h>
#include <grpcpp/support/status.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "cli/generation.h"
#include "cli/process.h"
#include "proto/cluster.grpc.pb.h"
#include "proto/inference.grpc.pb.h"

namespace witan {

// A program whose output is collected. A test that waits too long for it fails
// through ctest's timeout, not through a clock of its own.
class RunningProgram {
 public:
  RunningProgram(const std::string& program,
                 const std::vector<std::string>& arguments);

  // Reads output until `condition` holds or the program has closed both of its
  // outputs. Returns whether it holds.
  bool ReadUntil(const std::function<bool()>& condition);
  // Reads all output, then returns the exit code, or 128 + the signal.
  int WaitForEnd();
  void Signal(int signal) const { process_.Signal(signal); }
  pid_t pid() const { return process_.pid(); }

  const std::string& out() const { return out_; }
  const std::string& err() const { return err_; }

 private:
  Process process_;
  std::string out_;
  std::string err_;
};

struct ProgramResult {
  int exit_code = 0;
  std::string out;
  std::string err;
};

// Runs a binary of the build ("witan", "witan-worker") to its end.
ProgramResult RunBinary(const std::string& name,
                        const std::vector<std::string>& arguments);

std::string BinaryPath(const std::string& name);

// `witan serve` on free ports.
class LocalServe {
 public:
  // `arguments` beyond the model and the ports.
  LocalServe(const std::string& model_directory,
             const std::vector<std::string>& arguments);
  // Ends it, if it runs, with SIGTERM.
  ~LocalServe();

  // The line beginning "ready"; empty when the program ended without one.
  const std::string& ready_line() const { return ready_line_; }
  // Value of NAME=VALUE in that line.
  std::string ReadyValue(const std::string& name) const;
  std::string server() const { return ReadyValue("grpc"); }
  std::shared_ptr<grpc::Channel> channel() const;
  v1::StatusResponse Status() const;
  // Asks for the status until `condition` holds for it.
  v1::StatusResponse WaitForStatus(
      const std::function<bool(const v1::StatusResponse&)>& condition) const;
  // SIGTERM, then the exit code.
  int Stop();
  RunningProgram& program() { return program_; }

 private:
  RunningProgram program_;
  std::string ready_line_;
  bool stopped_ = false;
};

struct CallResult {
  grpc::Status status;
  GenerationResult generation;
};

// One whole Generate call. `on_chunk` is called after each chunk.
CallResult Generate(
    const std::shared_ptr<grpc::Channel>& channel,
    const v1::GenerateRequest& request,
    const std::function<void()>& on_chunk = [] {});

// Process id of the child of `parent` that runs the binary `name`; 0 if none.
pid_t ChildOf(pid_t parent, const std::string& name);

// The HTTP response of http://`url`.
std::string HttpGet(const std::string& url);

}  // namespace witan

#endif  // WITAN_TESTS_E2E_LOCAL_CLUSTER_H_
