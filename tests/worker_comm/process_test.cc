// Ranks as processes, as they are in production: they agree on bytes, and a
// killed one is named.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "base/status.h"
#include "tests/testing/temp_directory.h"
#include "tests/worker_comm/group.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

// Two ends of a pipe: one direction, whole messages of at most 8 KiB.
class Pipe {
 public:
  Pipe() { EXPECT_EQ(pipe(ends_), 0); }
  ~Pipe() {
    close(ends_[0]);
    close(ends_[1]);
  }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  void Write(const std::string& text) {
    const uint32_t size = static_cast<uint32_t>(text.size());
    EXPECT_EQ(write(ends_[1], &size, sizeof(size)), ssize_t{sizeof(size)});
    EXPECT_EQ(write(ends_[1], text.data(), size), static_cast<ssize_t>(size));
  }
  std::string Read() {
    uint32_t size = 0;
    if (!ReadAll(&size, sizeof(size)) || size > 8192) return "no message";
    std::string text(size, ' ');
    return ReadAll(text.data(), size) ? text : "half a message";
  }

 private:
  bool ReadAll(void* data, size_t size) {
    char* to = static_cast<char*>(data);
    while (size > 0) {
      const ssize_t got = read(ends_[0], to, size);
      if (got <= 0) return false;
      to += got;
      size -= static_cast<size_t>(got);
    }
    return true;
  }

  int ends_[2];
};

// A child process per rank. The parent never makes a communicator.
class ProcessGroup {
 public:
  using Body = std::function<std::string(Communicator&, Pipe& to_parent)>;

  // Every rank connects, runs body and reports what it returns, after what
  // body itself wrote. Shared memory is in `directory`, see MakeShmRendezvous.
  ProcessGroup(TestTransport transport, int size, const Body& body,
               const std::string& directory = "")
      : to_parent_(size), to_child_(size) {
    for (int rank = 0; rank < size; ++rank) {
      const pid_t pid = fork();
      if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        RunChild(transport, rank, size, body, directory);
        _exit(0);
      }
      EXPECT_GT(pid, 0);
      pids_.push_back(pid);
    }
    for (Pipe& pipe : to_parent_) endpoints_ += pipe.Read() + "\n";
    for (Pipe& pipe : to_child_) pipe.Write(endpoints_);
  }
  ~ProcessGroup() {
    for (const pid_t pid : pids_) {
      kill(pid, SIGKILL);
      waitpid(pid, nullptr, 0);
    }
  }

  void Kill(int rank) { kill(pids_[rank], SIGKILL); }
  std::string Report(int rank) { return to_parent_[rank].Read(); }
  // Where the ranks met, a line each.
  const std::string& endpoints() const { return endpoints_; }

 private:
  void RunChild(TestTransport transport, int rank, int size, const Body& body,
                const std::string& directory) {
    CommunicatorOptions options = PatientOptions(size, 1 << 20);
    options.rank = rank;
    auto half = transport == TestTransport::kTcp
                    ? MakeTcpRendezvous(options, "127.0.0.1")
                    : MakeShmRendezvous(options, directory);
    if (!half.ok()) {
      to_parent_[rank].Write(half.status().ToString());
      return;
    }
    to_parent_[rank].Write((*half)->endpoint());
    const std::string all = to_child_[rank].Read();
    std::vector<std::string> endpoints;
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = all.find('\n', begin);
      endpoints.push_back(all.substr(begin, end - begin));
      begin = end + 1;
    }
    auto communicator = (*half)->Connect(endpoints, kPatienceMs);
    to_parent_[rank].Write(communicator.ok()
                               ? body(**communicator, to_parent_[rank])
                               : communicator.status().ToString());
  }

  std::vector<Pipe> to_parent_;
  std::vector<Pipe> to_child_;
  std::string endpoints_;
  std::vector<pid_t> pids_;
};

class ProcessTest : public ::testing::TestWithParam<TestTransport> {};
INSTANTIATE_TEST_SUITE_P(All, ProcessTest,
                         ::testing::Values(TestTransport::kSharedMemory,
                                           TestTransport::kTcp),
                         ::testing::PrintToStringParamName());

TEST_P(ProcessTest, GatherWhatTheOthersWrote) {
  constexpr int kSize = 4;
  constexpr int kRounds = 200;
  ProcessGroup group(
      GetParam(), kSize, [](Communicator& comm, Pipe&) -> std::string {
        for (int round = 0; round < kRounds; ++round) {
          std::vector<size_t> bytes;
          for (int rank = 0; rank < kSize; ++rank) {
            bytes.push_back((round * 977 + rank * 131) % 20'000);
          }
          std::memset(comm.SendBuffer(), comm.rank() + round,
                      bytes[comm.rank()]);
          const auto views = comm.AllGather(bytes);
          if (!views.ok()) return views.status().ToString();
          for (int rank = 0; rank < kSize; ++rank) {
            for (const std::byte value : (*views)[rank]) {
              if (value != static_cast<std::byte>(rank + round)) {
                return fmt::format("round {} rank {}", round, rank);
              }
            }
          }
        }
        return "good";
      });
  for (int rank = 0; rank < kSize; ++rank) {
    EXPECT_EQ(group.Report(rank), "good");
  }
}

TEST_P(ProcessTest, AKilledRankIsNamedByAllOthers) {
  constexpr int kSize = 3;
  ProcessGroup group(GetParam(), kSize,
                     [](Communicator& comm, Pipe& to_parent) -> std::string {
                       if (const absl::Status status = comm.Barrier();
                           !status.ok()) {
                         return status.ToString();
                       }
                       if (comm.rank() == 1) {
                         to_parent.Write("I wait for my end");
                         pause();
                       }
                       return comm.Barrier().ToString();
                     });
  EXPECT_EQ(group.Report(1), "I wait for my end");
  group.Kill(1);
  for (const int rank : {0, 2}) {
    const std::string report = group.Report(rank);
    EXPECT_THAT(report, HasSubstr("rank 1 went away"));
    EXPECT_TRUE(report.starts_with("UNAVAILABLE")) << report;
  }
}

TEST_P(ProcessTest, ARankKilledInTheMiddleOfTrafficIsNamed) {
  constexpr int kSize = 3;
  ProcessGroup group(
      GetParam(), kSize, [](Communicator& comm, Pipe&) -> std::string {
        const std::vector<size_t> bytes(kSize, comm.max_send_bytes());
        for (int round = 0;; ++round) {
          if (comm.rank() == 2 && round == 20) kill(getpid(), SIGKILL);
          const auto views = comm.AllGather(bytes);
          if (!views.ok()) return views.status().ToString();
        }
      });
  for (const int rank : {0, 1}) {
    const std::string report = group.Report(rank);
    EXPECT_THAT(report, HasSubstr("rank 2 went away"));
    EXPECT_TRUE(report.starts_with("UNAVAILABLE")) << report;
  }
}

TEST_P(ProcessTest, AnAbortReachesOtherProcesses) {
  constexpr int kSize = 3;
  ProcessGroup group(GetParam(), kSize,
                     [](Communicator& comm, Pipe&) -> std::string {
                       if (comm.rank() == 0) comm.Abort("the operator said so");
                       std::string report;
                       while (report.empty() || report == "OK")
                         report = comm.Barrier().ToString();
                       return report;
                     });
  for (int rank = 0; rank < kSize; ++rank) {
    const std::string report = group.Report(rank);
    EXPECT_THAT(report, HasSubstr("the operator said so"));
    EXPECT_TRUE(report.starts_with("UNAVAILABLE")) << report;
  }
}

// In a directory of its own: other tests come and go in /dev/shm.
TEST(SharedMemoryFilesTest, NoneIsLeftByAKilledGroup) {
  const TempDirectory directory;
  {
    ProcessGroup group(
        TestTransport::kSharedMemory, 3,
        [](Communicator& comm, Pipe&) -> std::string {
          if (!comm.Barrier().ok()) return "bad";
          if (comm.rank() == 0) return "good";
          pause();
          return "";
        },
        directory.path());
    EXPECT_EQ(group.Report(0), "good");
    EXPECT_THAT(group.endpoints(), HasSubstr(directory.path()))
        << "the premise";
  }
  EXPECT_TRUE(std::filesystem::is_empty(directory.path()));
}

}  // namespace
}  // namespace witan
