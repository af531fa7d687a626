// Times of the communicators between two processes: AllGather alone, and the
// tree all-reduce one-shot and two-shot, over shared memory and TCP loopback.
// Prints a table (microseconds), or one line of JSON per figure with --json,
// and the size at which two-shot begins to win.
//
//   bench_comm [--json] [--rounds N] [--ranks N]

#include <fmt/format.h>
#include <sched.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "kernels/backend.h"
#include "worker/comm/rendezvous.h"
#include "worker/tree_sum.h"

namespace witan {
namespace {

// Bytes of the fp32 vector that is summed.
constexpr int64_t kSizes[] = {4 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
constexpr int kNumSizes = std::size(kSizes);
enum Kind { kAllGather, kOneShot, kTwoShot, kNumKinds };
constexpr std::string_view kKindNames[] = {"all_gather", "one_shot",
                                           "two_shot"};

struct Flags {
  bool json = false;
  int rounds = 2000;
  int ranks = 2;
};

struct Times {
  double p50_us = 0;
  double p99_us = 0;
};
using Table = Times[kNumKinds][kNumSizes];

double NowUs() {
  timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return now.tv_sec * 1e6 + now.tv_nsec * 1e-3;
}

template <typename Operation>
Times Measure(int rounds, const Operation& operation) {
  std::vector<double> us;
  for (int round = 0; round < rounds / 10 + 10; ++round) operation();
  for (int round = 0; round < rounds; ++round) {
    const double start = NowUs();
    operation();
    us.push_back(NowUs() - start);
  }
  std::sort(us.begin(), us.end());
  return {us[us.size() / 2], us[us.size() * 99 / 100]};
}

void RunRank(Communicator& comm, int rounds, Table& table) {
  auto backend = MakeCpuBackend({.num_threads = 1});
  WITAN_CHECK(backend.ok(), "{}", backend.status().ToString());
  std::vector<uint16_t> out(kSizes[kNumSizes - 1] / sizeof(float));
  TreeAllReduce one_shot(**backend, comm, int64_t{1} << 40);
  TreeAllReduce two_shot(**backend, comm, 0);
  for (int i = 0; i < kNumSizes; ++i) {
    const int64_t n = kSizes[i] / static_cast<int64_t>(sizeof(float));
    const TensorView sum(out.data(), DType::kBF16, 1, n);
    const std::vector<size_t> bytes(comm.size(), kSizes[i]);
    const int repeats = static_cast<int>(
        std::max<int64_t>(100, rounds * kSizes[0] / kSizes[i] * 4));
    table[kAllGather][i] =
        Measure(repeats, [&] { WITAN_CHECK(comm.AllGather(bytes).ok()); });
    table[kOneShot][i] = Measure(repeats, [&] {
      // As in a layer: the rank has just written what the others read.
      one_shot.PartialsBuffer(1, n).Row<float>(0)[0] = 1;
      WITAN_CHECK(one_shot.Reduce(1, n, sum).ok());
    });
    table[kTwoShot][i] = Measure(repeats, [&] {
      two_shot.PartialsBuffer(1, n).Row<float>(0)[0] = 1;
      WITAN_CHECK(two_shot.Reduce(1, n, sum).ok());
    });
  }
}

size_t MaxSendBytes(int num_ranks) {
  size_t num_subtrees = 0;
  for (int rank = 0; rank < num_ranks; ++rank) {
    num_subtrees = std::max(
        num_subtrees, MaximalSubtrees(LeavesOfMember(rank, num_ranks)).size());
  }
  return num_subtrees * kSizes[kNumSizes - 1];
}

void WriteAll(int fd, const std::string& text) {
  WITAN_CHECK(write(fd, text.data(), text.size()) ==
              static_cast<ssize_t>(text.size()));
}

std::string ReadLine(int fd) {
  std::string line;
  for (char c; read(fd, &c, 1) == 1 && c != '\n';) line += c;
  return line;
}

// Keeps the ranks on cores of their own, where there are as many. After the
// communicator has counted the cores it may use.
void PinToCore(int rank) {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  WITAN_CHECK(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
  int skip = rank % CPU_COUNT(&allowed);
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (!CPU_ISSET(core, &allowed) || skip-- > 0) continue;
    cpu_set_t one;
    CPU_ZERO(&one);
    CPU_SET(core, &one);
    WITAN_CHECK(sched_setaffinity(0, sizeof(one), &one) == 0);
    return;
  }
}

// Rank 0 is this process, the others are children of it.
void MeasureTransport(bool is_tcp, const Flags& flags, Table& table) {
  const int size = flags.ranks;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  WITAN_CHECK(sched_getaffinity(0, sizeof(allowed), &allowed) == 0);
  std::vector<int> up(2 * size);
  std::vector<int> down(2 * size);
  int rank = 0;
  std::vector<pid_t> children;
  for (int child = 1; child < size; ++child) {
    WITAN_CHECK(pipe(&up[2 * child]) == 0 && pipe(&down[2 * child]) == 0);
    const pid_t pid = fork();
    WITAN_CHECK(pid >= 0);
    if (pid == 0) {
      prctl(PR_SET_PDEATHSIG, SIGKILL);
      rank = child;
      break;
    }
    children.push_back(pid);
  }
  const CommunicatorOptions options{.rank = rank,
                                    .size = size,
                                    .epoch = 1,
                                    .max_send_bytes = MaxSendBytes(size),
                                    .timeout_ms = kCollectiveTimeoutMs};
  auto half = is_tcp ? MakeTcpRendezvous(options, "127.0.0.1")
                     : MakeShmRendezvous(options);
  WITAN_CHECK(half.ok(), "{}", half.status().ToString());
  std::vector<std::string> endpoints = {(*half)->endpoint()};
  if (rank != 0) {
    WriteAll(up[2 * rank + 1], endpoints[0] + "\n");
    endpoints.resize(size);
    for (std::string& endpoint : endpoints) {
      endpoint = ReadLine(down[2 * rank]);
    }
  } else {
    for (int child = 1; child < size; ++child) {
      endpoints.push_back(ReadLine(up[2 * child]));
    }
    for (int child = 1; child < size; ++child) {
      for (const std::string& endpoint : endpoints) {
        WriteAll(down[2 * child + 1], endpoint + "\n");
      }
    }
  }
  {
    auto comm = (*half)->Connect(endpoints, kConnectTimeoutMs);
    WITAN_CHECK(comm.ok(), "{}", comm.status().ToString());
    PinToCore(rank);
    RunRank(**comm, flags.rounds, table);
  }
  if (rank != 0) _exit(0);
  WITAN_CHECK(sched_setaffinity(0, sizeof(allowed), &allowed) == 0);
  for (const pid_t child : children) waitpid(child, nullptr, 0);
  for (int i = 2; i < 2 * size; ++i) {
    close(up[i]);
    close(down[i]);
  }
}

void Print(std::string_view transport, const Table& table, const Flags& flags) {
  for (int kind = 0; kind < kNumKinds; ++kind) {
    if (!flags.json) fmt::print("{:<4} {:<11}", transport, kKindNames[kind]);
    for (int i = 0; i < kNumSizes; ++i) {
      const Times& times = table[kind][i];
      if (flags.json) {
        fmt::print(
            "{{\"bench\":\"comm\",\"transport\":\"{}\",\"ranks\":{},"
            "\"operation\":\"{}\",\"bytes\":{},\"p50_us\":{:.2f},"
            "\"p99_us\":{:.2f}}}\n",
            transport, flags.ranks, kKindNames[kind], kSizes[i], times.p50_us,
            times.p99_us);
      } else {
        fmt::print(" {:>8.2f} ({:>8.2f})", times.p50_us, times.p99_us);
      }
    }
    if (!flags.json) fmt::print("\n");
  }
  // The largest size up to which one-shot is no slower.
  int64_t crossover = 0;
  for (int i = 0; i < kNumSizes; ++i) {
    if (table[kOneShot][i].p50_us > table[kTwoShot][i].p50_us) break;
    crossover = kSizes[i];
  }
  if (flags.json) {
    fmt::print(
        "{{\"bench\":\"comm\",\"transport\":\"{}\",\"ranks\":{},"
        "\"one_shot_wins_up_to_bytes\":{}}}\n",
        transport, flags.ranks, crossover);
  } else {
    fmt::print("{:<4} one-shot wins up to {} bytes\n", transport, crossover);
  }
}

int Main(int argc, char** argv) {
  Flags flags;
  for (int i = 1; i < argc; ++i) {
    const std::string_view flag = argv[i];
    if (flag == "--json") {
      flags.json = true;
    } else if (flag == "--rounds" && i + 1 < argc) {
      flags.rounds = std::max(1, std::atoi(argv[++i]));
    } else if (flag == "--ranks" && i + 1 < argc) {
      flags.ranks = std::clamp(std::atoi(argv[++i]), 1, kNumLeaves);
    } else {
      fmt::print(stderr, "usage: {} [--json] [--rounds N] [--ranks 1 to 8]\n",
                 argv[0]);
      return 2;
    }
  }
  if (!flags.json) {
    fmt::print("{} ranks, p50 (p99) in us\n{:<16}", flags.ranks, "");
    for (const int64_t size : kSizes) {
      fmt::print(" {:>15} KiB", size >> 10);
    }
    fmt::print("\n");
  }
  for (const bool is_tcp : {false, true}) {
    std::fflush(stdout);
    Table table;
    MeasureTransport(is_tcp, flags, table);
    Print(is_tcp ? "tcp" : "shm", table, flags);
  }
  return 0;
}

}  // namespace
}  // namespace witan

int main(int argc, char** argv) { return witan::Main(argc, argv); }
