#ifndef WITAN_CLI_PROCESS_H_
#define WITAN_CLI_PROCESS_H_

// Child processes of `witan serve`.

#include <absl/status/statusor.h>
#include <sys/types.h>

#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace witan {

// Cuts what a pipe delivers into lines of at most kMaxChildLineBytes.
class LineBuffer {
 public:
  using Sink = std::function<void(const std::string& line)>;
  void Push(std::string_view bytes, const Sink& sink);
  // The last line, if it had no end.
  void Finish(const Sink& sink);

 private:
  std::string line_;
};

// A running program in a process group of its own (so that Ctrl-C in a
// terminal reaches only its parent), which gets SIGTERM should this process
// die. Its stdin is empty; its stdout and stderr are pipes. Move-only; the
// destructor kills what still runs.
class Process {
 public:
  // `arguments` without the program's name. WITAN_* variables are not passed
  // on: what they say is in the arguments. The error names the program.
  // REQUIRES: called from the main thread (the death of the thread that starts
  // a child counts as the parent's).
  static absl::StatusOr<Process> Start(
      const std::string& program, const std::vector<std::string>& arguments);

  Process() = default;
  ~Process();
  Process(Process&& other) noexcept { *this = std::move(other); }
  Process& operator=(Process&& other) noexcept;

  bool running() const { return pid_ > 0; }
  pid_t pid() const { return pid_; }
  // Non-blocking; -1 once read to the end.
  int stdout_fd() const { return stdout_fd_; }
  int stderr_fd() const { return stderr_fd_; }
  // Does nothing once the process has ended.
  void Signal(int signal) const;
  // Reads what is there now and passes whole lines on.
  void ReadLines(const LineBuffer::Sink& out, const LineBuffer::Sink& err);
  // To be called with the pid that waitpid() returned: nothing runs any more.
  void MarkEnded() { pid_ = -1; }

 private:
  pid_t pid_ = -1;
  int stdout_fd_ = -1;
  int stderr_fd_ = -1;
  LineBuffer stdout_lines_;
  LineBuffer stderr_lines_;
};

// "exit code 3", "signal 9 (Killed)": what waitpid() said, for people.
std::string DescribeWaitStatus(int wait_status);

// The folder of the running program.
std::string OwnBinaryFolder();

}  // namespace witan

#endif  // WITAN_CLI_PROCESS_H_
