#include "cli/process.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/limits.h"
#include "base/status.h"

namespace witan {
namespace {

struct Pipe {
  int read_end = -1;
  int write_end = -1;
};

absl::StatusOr<Pipe> MakePipe() {
  int ends[2];
  if (pipe2(ends, O_CLOEXEC) != 0) {
    return ResourceExhausted("cannot make a pipe: {}", std::strerror(errno));
  }
  fcntl(ends[0], F_SETFL, O_NONBLOCK);
  return Pipe{ends[0], ends[1]};
}

void ClosePipe(const Pipe& pipe) {
  close(pipe.read_end);
  close(pipe.write_end);
}

// In the child, between fork and exec: only calls that are safe there.
[[noreturn]] void BecomeProgram(const char* program, char* const* arguments,
                                char* const* environment, const Pipe& out,
                                const Pipe& err, pid_t parent) {
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);  // it died before the line above
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  const int null = open("/dev/null", O_RDONLY | O_CLOEXEC);
  if (dup2(null, STDIN_FILENO) < 0 || dup2(out.write_end, STDOUT_FILENO) < 0 ||
      dup2(err.write_end, STDERR_FILENO) < 0) {
    _exit(127);
  }
  execve(program, arguments, environment);
  _exit(127);
}

void ReadPipe(int* fd, LineBuffer& lines, const LineBuffer::Sink& sink) {
  char bytes[4096];
  while (*fd >= 0) {
    const ssize_t size = read(*fd, bytes, sizeof bytes);
    if (size > 0) {
      lines.Push({bytes, static_cast<size_t>(size)}, sink);
    } else if (size < 0 && errno == EINTR) {
      continue;
    } else if (size < 0 && errno == EAGAIN) {
      return;
    } else {
      close(*fd);
      *fd = -1;
      lines.Finish(sink);
    }
  }
}

}  // namespace

void LineBuffer::Push(std::string_view bytes, const Sink& sink) {
  for (const char c : bytes) {
    if (c == '\n') {
      sink(line_);
      line_.clear();
    } else if (line_.size() < kMaxChildLineBytes) {
      line_ += c;
    }
  }
}

void LineBuffer::Finish(const Sink& sink) {
  if (!line_.empty()) sink(line_);
  line_.clear();
}

absl::StatusOr<Process> Process::Start(
    const std::string& program, const std::vector<std::string>& arguments) {
  if (access(program.c_str(), X_OK) != 0) {
    return NotFound("cannot run {}: {}; build it with ./dev build", program,
                    std::strerror(errno));
  }
  ASSIGN_OR_RETURN(const Pipe out, MakePipe());
  const absl::StatusOr<Pipe> err = MakePipe();
  if (!err.ok()) {
    ClosePipe(out);
    return err.status();
  }
  std::vector<char*> argv = {const_cast<char*>(program.c_str())};
  for (const std::string& argument : arguments) {
    argv.push_back(const_cast<char*>(argument.c_str()));
  }
  argv.push_back(nullptr);
  std::vector<char*> environment;
  for (char** variable = environ; *variable != nullptr; ++variable) {
    if (!std::string_view(*variable).starts_with("WITAN_")) {
      environment.push_back(*variable);
    }
  }
  environment.push_back(nullptr);
  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) {
    BecomeProgram(program.c_str(), argv.data(), environment.data(), out, *err,
                  parent);
  }
  if (pid < 0) {
    const int error = errno;
    ClosePipe(out);
    ClosePipe(*err);
    return ResourceExhausted("cannot start {}: {}", program,
                             std::strerror(error));
  }
  close(out.write_end);
  close(err->write_end);
  Process process;
  process.pid_ = pid;
  process.stdout_fd_ = out.read_end;
  process.stderr_fd_ = err->read_end;
  return process;
}

Process::~Process() {
  if (running()) {
    kill(pid_, SIGKILL);
    waitpid(pid_, nullptr, 0);
  }
  if (stdout_fd_ >= 0) close(stdout_fd_);
  if (stderr_fd_ >= 0) close(stderr_fd_);
}

Process& Process::operator=(Process&& other) noexcept {
  // Swapped, so that what this object ran ends with `other`.
  std::swap(pid_, other.pid_);
  std::swap(stdout_fd_, other.stdout_fd_);
  std::swap(stderr_fd_, other.stderr_fd_);
  std::swap(stdout_lines_, other.stdout_lines_);
  std::swap(stderr_lines_, other.stderr_lines_);
  return *this;
}

void Process::Signal(int signal) const {
  if (running()) kill(pid_, signal);
}

void Process::ReadLines(const LineBuffer::Sink& out,
                        const LineBuffer::Sink& err) {
  ReadPipe(&stdout_fd_, stdout_lines_, out);
  ReadPipe(&stderr_fd_, stderr_lines_, err);
}

std::string DescribeWaitStatus(int wait_status) {
  if (WIFSIGNALED(wait_status)) {
    const int signal = WTERMSIG(wait_status);
    return fmt::format("signal {} ({})", signal, strsignal(signal));
  }
  return fmt::format("exit code {}", WEXITSTATUS(wait_status));
}

std::string OwnBinaryFolder() {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/self/exe", error)
      .parent_path()
      .string();
}

}  // namespace witan
