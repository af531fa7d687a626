#include "tests/e2e/local_cluster.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <grpcpp/client_context.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <utility>

#include "base/check.h"
#include "cli/client.h"

namespace witan {
namespace {

constexpr auto kCallTimeout = std::chrono::minutes(5);

Process StartOrDie(const std::string& program,
                   const std::vector<std::string>& arguments) {
  auto process = Process::Start(program, arguments);
  WITAN_CHECK(process.ok(), "{}", process.status().ToString());
  return *std::move(process);
}

}  // namespace

RunningProgram::RunningProgram(const std::string& program,
                               const std::vector<std::string>& arguments)
    : process_(StartOrDie(program, arguments)) {}

bool RunningProgram::ReadUntil(const std::function<bool()>& condition) {
  while (!condition()) {
    std::vector<pollfd> descriptors;
    for (const int fd : {process_.stdout_fd(), process_.stderr_fd()}) {
      if (fd >= 0) descriptors.push_back({fd, POLLIN, 0});
    }
    if (descriptors.empty()) return condition();
    poll(descriptors.data(), descriptors.size(), -1);
    process_.ReadLines(
        [this](const std::string& line) { out_ += line + "\n"; },
        [this](const std::string& line) { err_ += line + "\n"; });
  }
  return true;
}

int RunningProgram::WaitForEnd() {
  ReadUntil([] { return false; });
  int wait_status = 0;
  waitpid(process_.pid(), &wait_status, 0);
  process_.MarkEnded();
  return WIFSIGNALED(wait_status) ? 128 + WTERMSIG(wait_status)
                                  : WEXITSTATUS(wait_status);
}

std::string BinaryPath(const std::string& name) {
  return std::string(WITAN_BINARY_DIR) + "/" + name;
}

ProgramResult RunBinary(const std::string& name,
                        const std::vector<std::string>& arguments) {
  RunningProgram program(BinaryPath(name), arguments);
  const int exit_code = program.WaitForEnd();
  return {exit_code, program.out(), program.err()};
}

LocalServe::LocalServe(const std::string& model_directory,
                       const std::vector<std::string>& arguments)
    : program_(BinaryPath("witan"), [&] {
        std::vector<std::string> all = {"serve", model_directory, "--port=0",
                                        "--metrics-port=0"};
        all.insert(all.end(), arguments.begin(), arguments.end());
        return all;
      }()) {
  const auto ready = [this] {
    const std::string& out = program_.out();
    const size_t begin = out.find("ready ");
    if (begin != 0 && (begin == std::string::npos || out[begin - 1] != '\n')) {
      return false;
    }
    ready_line_ = out.substr(begin, out.find('\n', begin) - begin);
    return true;
  };
  program_.ReadUntil(ready);
}

LocalServe::~LocalServe() {
  if (!stopped_) Stop();
}

int LocalServe::Stop() {
  stopped_ = true;
  program_.Signal(SIGTERM);
  return program_.WaitForEnd();
}

std::string LocalServe::ReadyValue(const std::string& name) const {
  const size_t at = ready_line_.find(" " + name + "=");
  if (at == std::string::npos) return "";
  const size_t begin = at + name.size() + 2;
  return ready_line_.substr(begin, ready_line_.find(' ', begin) - begin);
}

std::shared_ptr<grpc::Channel> LocalServe::channel() const {
  return MakeClientChannel(server());
}

v1::StatusResponse LocalServe::Status() const {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  v1::StatusResponse response;
  const grpc::Status status = v1::Cluster::NewStub(channel())->Status(
      &context, v1::StatusRequest(), &response);
  WITAN_CHECK(status.ok(), "{}", status.error_message());
  return response;
}

v1::StatusResponse LocalServe::WaitForStatus(
    const std::function<bool(const v1::StatusResponse&)>& condition) const {
  v1::StatusResponse status = Status();
  while (!condition(status)) {
    poll(nullptr, 0, 20);  // no event tells; leave the cores to the cluster
    status = Status();
  }
  return status;
}

CallResult Generate(const std::shared_ptr<grpc::Channel>& channel,
                    const v1::GenerateRequest& request,
                    const std::function<void()>& on_chunk) {
  grpc::ClientContext context;
  context.set_deadline(std::chrono::system_clock::now() + kCallTimeout);
  const auto stub = v1::Inference::NewStub(channel);
  const auto stream = stub->Generate(&context, request);
  const int num_choices = std::max(request.parameters().num_choices(), 1);
  CallResult result;
  v1::GenerateResponse chunk;
  while (stream->Read(&chunk)) {
    const grpc::Status appended =
        Append(chunk, num_choices, &result.generation);
    WITAN_CHECK(appended.ok(), "{}", appended.error_message());
    on_chunk();
  }
  result.status = stream->Finish();
  return result;
}

pid_t ChildOf(pid_t parent, const std::string& name) {
  std::ifstream children(fmt::format("/proc/{0}/task/{0}/children", parent));
  for (pid_t child; children >> child;) {
    std::error_code error;
    const auto program = std::filesystem::read_symlink(
        fmt::format("/proc/{}/exe", child), error);
    if (program.filename() == name) return child;
  }
  return 0;
}

std::string HttpGet(const std::string& url) {
  const size_t host_begin = url.find("//") + 2;
  const size_t colon = url.find(':', host_begin);
  const size_t slash = url.find('/', host_begin);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons(static_cast<uint16_t>(
      std::stoi(url.substr(colon + 1, slash - colon - 1))));
  inet_pton(AF_INET, url.substr(host_begin, colon - host_begin).c_str(),
            &address.sin_addr);
  const int fd = socket(AF_INET, SOCK_STREAM, 0);
  WITAN_CHECK(connect(fd, reinterpret_cast<const sockaddr*>(&address),
                      sizeof address) == 0,
              "cannot connect to {}", url);
  const std::string request = "GET " + url.substr(slash) +
                              " HTTP/1.1\r\nHost: localhost\r\n"
                              "Connection: close\r\n\r\n";
  WITAN_CHECK(write(fd, request.data(), request.size()) ==
                  static_cast<ssize_t>(request.size()),
              "cannot write to {}", url);
  std::string response;
  char bytes[4096];
  for (ssize_t size; (size = read(fd, bytes, sizeof bytes)) > 0;) {
    response.append(bytes, static_cast<size_t>(size));
  }
  close(fd);
  return response;
}

}  // namespace witan
