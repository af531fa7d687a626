#include "cli/supervisor.h"

#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <poll.h>
#include <signal.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <nlohmann/json.hpp>
#include <utility>

#include "base/config.h"
#include "base/limits.h"
#include "base/status.h"
#include "cli/client.h"
#include "cli/status.h"

namespace witan {
namespace {

Micros Now() { return MonotonicClock().Now(); }

sigset_t WatchedSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  for (const int signal : {SIGINT, SIGTERM, SIGCHLD}) {
    sigaddset(&signals, signal);
  }
  return signals;
}

// The value of " name=VALUE" in a line of such pairs; empty if absent.
std::string PairValue(const std::string& line, const std::string& name) {
  const size_t at = line.find(" " + name + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return line.substr(begin, line.find(' ', begin) - begin);
}

LoadState LoadStateOf(const v1::StatusResponse& status) {
  LoadState load;
  load.num_ranks = status.num_ranks() * std::max(1, status.replicas_size());
  load.num_workers = status.workers_size();
  for (const v1::WorkerStatus& worker : status.workers()) {
    if (!worker.has_rank()) continue;
    load.bytes_done += worker.load_done_bytes();
    load.bytes_total += worker.load_total_bytes();
  }
  return load;
}

}  // namespace

LocalCluster::LocalCluster(LocalClusterOptions options)
    : options_(std::move(options)),
      started_at_(Now()),
      workers_(static_cast<size_t>(options_.num_workers)),
      progress_(options_.model_name, isatty(STDERR_FILENO) != 0) {
  // Threads made later inherit the mask, so the descriptor gets all of them.
  const sigset_t signals = WatchedSignals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  signal_fd_ = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
  coordinator_.name = "coordinator";
  for (size_t i = 0; i < workers_.size(); ++i) {
    workers_[i].name = fmt::format("worker {}", i);
  }
}

LocalCluster::~LocalCluster() {
  close(signal_fd_);
  const sigset_t signals = WatchedSignals();
  pthread_sigmask(SIG_UNBLOCK, &signals, nullptr);
}

int LocalCluster::Run() {
  const absl::Status started = StartCoordinator();
  if (!started.ok()) Fail(kExitInternal, std::string(MessageOf(started)));
  while (!exit_code_.has_value()) {
    const Micros now = Now();
    StartDueWorkers(now);
    if (stub_ != nullptr && now >= next_status_at_) AskForStatus(now);
    WaitForEvents(Now());
    for (Child* child : AllChildren()) ReadOutput(*child);
    HandleSignals();
  }
  Stop();
  return *exit_code_;
}

absl::Status LocalCluster::StartCoordinator() {
  ASSIGN_OR_RETURN(coordinator_.process,
                   Process::Start(options_.binary_folder + "/witan-coordinator",
                                  options_.coordinator_arguments));
  coordinator_.started_at = Now();
  return absl::OkStatus();
}

void LocalCluster::StartWorker(Child& worker) {
  std::vector<std::string> arguments = {"--join", grpc_address_};
  arguments.insert(arguments.end(), options_.worker_arguments.begin(),
                   options_.worker_arguments.end());
  auto process =
      Process::Start(options_.binary_folder + "/witan-worker", arguments);
  if (!process.ok()) {
    Fail(kExitInternal, std::string(MessageOf(process.status())));
    return;
  }
  worker.process = *std::move(process);
  worker.started_at = Now();
  worker.restart_at.reset();
}

void LocalCluster::StartDueWorkers(Micros now) {
  for (Child& worker : workers_) {
    if (worker.restart_at.has_value() && now >= *worker.restart_at) {
      StartWorker(worker);
    }
  }
}

void LocalCluster::WaitForEvents(Micros now) {
  Micros due = now + kServingStatusIntervalMs * kMicrosPerMilli;
  if (stub_ != nullptr) due = std::min(due, next_status_at_);
  for (const Child& worker : workers_) {
    due = std::min(due, worker.restart_at.value_or(due));
  }
  std::vector<pollfd> descriptors = {{signal_fd_, POLLIN, 0}};
  for (const Child* child : AllChildren()) {
    for (const int fd :
         {child->process.stdout_fd(), child->process.stderr_fd()}) {
      if (fd >= 0) descriptors.push_back({fd, POLLIN, 0});
    }
  }
  const Micros wait_ms =
      (std::max<Micros>(due - now, 0) + kMicrosPerMilli - 1) / kMicrosPerMilli;
  poll(descriptors.data(), descriptors.size(), static_cast<int>(wait_ms));
}

void LocalCluster::HandleSignals() {
  signalfd_siginfo info;
  while (read(signal_fd_, &info, sizeof info) == sizeof info) {
    if (info.ssi_signo == SIGCHLD) {
      ReapChildren();
    } else if (!exit_code_.has_value()) {
      exit_code_ = kExitOk;
    }
  }
}

void LocalCluster::ReapChildren() {
  int wait_status = 0;
  for (pid_t pid = 0; (pid = waitpid(-1, &wait_status, WNOHANG)) > 0;) {
    for (Child* child : AllChildren()) {
      if (child->process.pid() != pid) continue;
      ReadOutput(*child);
      child->process.MarkEnded();
      HandleEnd(*child, wait_status);
      break;
    }
  }
}

void LocalCluster::HandleEnd(Child& child, int wait_status) {
  if (exit_code_.has_value()) return;  // we asked for it
  if (&child != &coordinator_) {
    HandleWorkerEnd(child, wait_status);
    return;
  }
  const bool refused = WIFEXITED(wait_status) && !was_ready_ &&
                       WEXITSTATUS(wait_status) != kExitOk;
  Fail(refused ? WEXITSTATUS(wait_status) : kExitPeerLost,
       fmt::format("the coordinator ended with {}",
                   DescribeWaitStatus(wait_status)));
}

void LocalCluster::HandleWorkerEnd(Child& worker, int wait_status) {
  const Micros now = Now();
  const std::string what = fmt::format("{} ended with {}", worker.name,
                                       DescribeWaitStatus(wait_status));
  const int code = WIFEXITED(wait_status) ? WEXITSTATUS(wait_status) : 0;
  // A refusal of flags, model or resources would only be repeated.
  if (!was_ready_ &&
      (code == kExitUsage || code == kExitModel || code == kExitResources)) {
    Fail(code, what);
    return;
  }
  const Micros pause = worker.policy.PauseAfterEnd(now - worker.started_at);
  if (!was_ready_ && worker.policy.num_ends() >= kMaxFailedStarts) {
    Fail(kExitPeerLost,
         fmt::format("{}, {} times in a row", what, worker.policy.num_ends()));
    return;
  }
  worker.restart_at = now + pause;
  next_status_at_ = now;
  WriteLine(fmt::format("{}; starting it again in {:.1f} s", what,
                        static_cast<double>(pause) / kMicrosPerSecond));
}

void LocalCluster::ReadOutput(Child& child) {
  child.process.ReadLines(
      [&](const std::string& line) {
        if (&child == &coordinator_) {
          HandleCoordinatorLine(line);
        } else {
          ForwardLog(child.name, line);
        }
      },
      [&](const std::string& line) { ForwardLog(child.name, line); });
}

void LocalCluster::HandleCoordinatorLine(const std::string& line) {
  if (line.starts_with("ready ")) {
    next_status_at_ = 0;  // the status will say so at once
    return;
  }
  if (!line.starts_with("listening ")) {
    ForwardLog(coordinator_.name, line);
    return;
  }
  grpc_address_ = PairValue(line, "grpc");
  metrics_address_ = PairValue(line, "metrics");
  stub_ = v1::Cluster::NewStub(MakeClientChannel(grpc_address_));
  for (Child& worker : workers_) {
    if (!exit_code_.has_value()) StartWorker(worker);
  }
}

// Children log JSON to their pipes; people get "worker 0: message name=value".
void LocalCluster::ForwardLog(const std::string& name,
                              const std::string& line) {
  const auto json = nlohmann::ordered_json::parse(line, nullptr,
                                                  /*allow_exceptions=*/false);
  if (!json.is_object() || !json.contains("level") ||
      !json.contains("message")) {
    WriteLine(fmt::format("{}: {}", name, line));
    return;
  }
  // Processes that are told to end miss each other, which is no news.
  const bool minor = json["level"] == "info" || json["level"] == "debug" ||
                     (json["level"] == "warning" && exit_code_.has_value());
  if (minor && !options_.verbose) return;
  std::string text = fmt::format("{}: {}", name, json["message"].dump());
  for (const auto& [key, value] : json.items()) {
    if (key == "level" || key == "message" || key == "time") continue;
    text += fmt::format(" {}={}", key, value.dump());
  }
  WriteLine(text);
}

void LocalCluster::AskForStatus(Micros now) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() +
                       std::chrono::milliseconds(kStatusPollTimeoutMs));
  v1::StatusResponse response;
  const grpc::Status status =
      stub_->Status(&context, v1::StatusRequest(), &response);
  // A coordinator that is gone is noticed by its end, a slow one next time.
  if (status.ok()) ShowState(response);
  next_status_at_ =
      now + kMicrosPerMilli * (last_state_ == v1::GROUP_STATE_SERVING
                                   ? kServingStatusIntervalMs
                                   : kLoadingStatusIntervalMs);
}

void LocalCluster::ShowState(const v1::StatusResponse& status) {
  const bool serving = status.state() == v1::GROUP_STATE_SERVING;
  const bool changed =
      status.state() != last_state_ || status.epoch() != last_epoch_;
  last_state_ = status.state();
  last_epoch_ = status.epoch();
  if (!was_ready_)
    fmt::print(stderr, "{}", progress_.Show(LoadStateOf(status)));
  if (!serving) {
    if (!was_ready_) ShowDelay(status.state_reason());
    if (was_ready_ && changed) {
      WriteLine(fmt::format("not serving, {}: {}", NameOf(status.state()),
                            status.state_reason()));
    }
    return;
  }
  if (was_ready_) {
    if (changed) {  // it did not serve, or not with these workers
      WriteLine(fmt::format("serving again, epoch {}", status.epoch()));
    }
    return;
  }
  was_ready_ = true;
  fmt::print(stderr, "{}", progress_.Finish());
  fmt::print(
      "ready grpc={} metrics={} model={} tp={} ep={} ranks={} "
      "seconds={:.1f}\n",
      grpc_address_,
      metrics_address_.empty()
          ? "off"
          : fmt::format("http://{}/metrics", metrics_address_),
      status.model(), status.tp(), status.ep(), status.num_ranks(),
      static_cast<double>(Now() - started_at_) / kMicrosPerSecond);
  std::fflush(stdout);
}

void LocalCluster::ShowDelay(const std::string& reason) {
  const Micros now = Now();
  if (reason != delay_reason_) {
    delay_reason_ = reason;
    delay_since_ = now;
    delay_is_shown_ = false;
  }
  if (delay_is_shown_ || reason.empty() ||
      now < delay_since_ + kShownDelayMs * kMicrosPerMilli) {
    return;
  }
  delay_is_shown_ = true;
  WriteLine("not ready yet: " + reason);
}

void LocalCluster::Stop() {
  // The coordinator would wait for its clients to hang up.
  stub_.reset();
  // The coordinator first, so that its streams end with its reason; it logs as
  // soon as it has the signal.
  coordinator_.process.Signal(SIGTERM);
  if (coordinator_.process.running()) WaitForEvents(Now());
  for (const Child& worker : workers_) worker.process.Signal(SIGTERM);

  const Micros deadline = Now() + kShutdownGraceMs * kMicrosPerMilli;
  bool killed = false;
  const auto is_running = [](const Child* child) {
    return child->process.running();
  };
  const std::vector<Child*> all = AllChildren();
  while (std::any_of(all.begin(), all.end(), is_running)) {
    if (!killed && Now() >= deadline) {
      killed = true;
      for (const Child* child : all) child->process.Signal(SIGKILL);
    }
    WaitForEvents(Now());
    for (Child* child : all) ReadOutput(*child);
    HandleSignals();
  }
}

void LocalCluster::Fail(int exit_code, const std::string& message) {
  WriteLine("error: " + message);
  if (!exit_code_.has_value()) exit_code_ = exit_code;
}

void LocalCluster::WriteLine(const std::string& line) {
  fmt::print(stderr, "{}{}\n{}", progress_.Erase(), line, progress_.Redraw());
}

std::vector<LocalCluster::Child*> LocalCluster::AllChildren() {
  std::vector<Child*> all = {&coordinator_};
  for (Child& worker : workers_) all.push_back(&worker);
  return all;
}

}  // namespace witan
