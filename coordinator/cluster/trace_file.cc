#include "coordinator/cluster/trace_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string_view>
#include <system_error>
#include <utility>

#include "base/limits.h"
#include "base/log.h"
#include "base/status.h"

namespace witan {
namespace {

constexpr int kCoordinatorLine = 0;
// Of every trace: the bracket of the array and its first event, which names a
// replica.
constexpr std::string_view kBegin = "[\n";
constexpr std::string_view kFirstEvent = "{\"ph\":\"M\",\"pid\":0,";

int LineOfRank(size_t rank) { return static_cast<int>(rank) + 1; }

void AppendName(std::string& out, int replica, const char* kind, int line,
                const std::string& name) {
  fmt::format_to(std::back_inserter(out),
                 "{{\"ph\":\"M\",\"pid\":{},\"tid\":{},\"name\":\"{}\","
                 "\"args\":{{\"name\":\"{}\"}}}},\n",
                 replica, line, kind, name);
}

// A bar from `begin` of `duration_us`; `arguments` are JSON members.
void AppendBar(std::string& out, int replica, int line, const std::string& name,
               Micros begin, Micros duration_us,
               const std::string& arguments = "") {
  fmt::format_to(std::back_inserter(out),
                 "{{\"ph\":\"X\",\"pid\":{},\"tid\":{},\"name\":\"{}\","
                 "\"ts\":{},\"dur\":{},\"args\":{{{}}}}},\n",
                 replica, line, name, begin, duration_us, arguments);
}

// A phase of a request, in the request's own line.
void AppendPhase(std::string& out, int replica, SequenceId id, const char* name,
                 Micros begin, Micros end) {
  for (const bool begins : {true, false}) {
    fmt::format_to(std::back_inserter(out),
                   "{{\"ph\":\"{}\",\"cat\":\"request\",\"pid\":{},\"tid\":0,"
                   "\"id\":{},\"name\":\"{}\",\"ts\":{}}},\n",
                   begins ? 'b' : 'e', replica, id, name, begins ? begin : end);
  }
}

// OK when nothing is lost by writing a trace there.
absl::Status CheckReplaceable(const std::string& path) {
  std::error_code error;
  // Devices and pipes hold nothing, and reading them may not end.
  if (!std::filesystem::is_regular_file(path, error) ||
      std::filesystem::file_size(path, error) == 0) {
    return absl::OkStatus();
  }
  std::string begin(kBegin.size() + kFirstEvent.size(), '\0');
  std::ifstream file(path, std::ios::binary);
  file.read(begin.data(), static_cast<std::streamsize>(begin.size()));
  if (file && begin == std::string(kBegin) + std::string(kFirstEvent)) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "--trace {}: the file holds something other than a trace of an earlier "
      "run and would be overwritten; name another file, or remove this one",
      path);
}

}  // namespace

class TraceFile::ReplicaTrace final : public StepObserver {
 public:
  ReplicaTrace(TraceFile& file, int replica) : file_(file), replica_(replica) {
    std::string out;
    AppendName(out, replica_, "process_name", 0,
               fmt::format("replica {}", replica_));
    AppendName(out, replica_, "thread_name", kCoordinatorLine, "coordinator");
    file_.Write(out);
  }

  void OnStep(const StepRecord& record) override {
    std::string out;
    NameRanks(record.ranks.size(), out);
    int64_t longest_us = 0;
    for (size_t rank = 0; rank < record.ranks.size(); ++rank) {
      AppendRank(record, rank, out);
      longest_us = std::max(longest_us, record.ranks[rank].total_us);
    }
    const int64_t duration_us = record.ended_at - record.began_at;
    AppendBar(
        out, replica_, kCoordinatorLine, "coordinator", record.began_at,
        std::max<int64_t>(0, duration_us - longest_us),
        fmt::format("\"step\":{},\"epoch\":{}", record.step, record.epoch));
    fmt::format_to(std::back_inserter(out),
                   "{{\"ph\":\"C\",\"pid\":{},\"tid\":0,\"name\":\"sequences\","
                   "\"ts\":{},\"args\":{{\"running\":{},\"waiting\":{}}}}},\n",
                   replica_, record.ended_at, record.num_running,
                   record.num_waiting);
    file_.Write(out);
  }

  void OnSequenceEnded(SequenceId id, const SequenceUsage& usage,
                       Micros now) override {
    std::string out;
    const Micros added_at = now - usage.total_us;
    const Micros planned_at = added_at + usage.queued_us;
    AppendPhase(out, replica_, id, "request", added_at, now);
    AppendPhase(out, replica_, id, "queue", added_at, planned_at);
    if (usage.num_output_tokens > 0) {
      const Micros first_token_at = added_at + usage.first_token_us;
      AppendPhase(out, replica_, id, "prefill", planned_at, first_token_at);
      AppendPhase(out, replica_, id, "decode", first_token_at, now);
    }
    file_.Write(out);
  }

 private:
  void NameRanks(size_t num_ranks, std::string& out) {
    for (; num_named_ranks_ < num_ranks; ++num_named_ranks_) {
      AppendName(out, replica_, "thread_name", LineOfRank(num_named_ranks_),
                 fmt::format("rank {}", num_named_ranks_));
    }
  }

  void AppendRank(const StepRecord& record, size_t rank, std::string& out) {
    const StepTimings& timings = record.ranks[rank];
    const int64_t wait_us = std::min(timings.wait_us, timings.communication_us);
    const int64_t compute_us =
        std::max<int64_t>(0, timings.total_us - timings.communication_us);
    const int line = LineOfRank(rank);
    Micros begin = record.ended_at - timings.total_us;
    AppendBar(out, replica_, line, fmt::format("step {}", record.step), begin,
              timings.total_us,
              fmt::format("\"sequences\":{},\"rows\":{},\"epoch\":{}",
                          record.num_sequences, record.num_rows, record.epoch));
    const std::pair<const char*, int64_t> phases[] = {
        {"compute", compute_us},
        {"communication", timings.communication_us - wait_us},
        {"wait", wait_us}};
    for (const auto& [name, duration_us] : phases) {
      if (duration_us == 0) continue;
      AppendBar(out, replica_, line, name, begin, duration_us);
      begin += duration_us;
    }
  }

  TraceFile& file_;
  const int replica_;
  size_t num_named_ranks_ = 0;
};

absl::StatusOr<std::unique_ptr<TraceFile>> TraceFile::Create(
    const std::string& path, int num_replicas) {
  RETURN_IF_ERROR(CheckReplaceable(path));
  std::FILE* const file = std::fopen(path.c_str(), "w");
  if (file == nullptr) {
    return InvalidArgument("the trace file {} cannot be written: {}", path,
                           std::strerror(errno));
  }
  return std::unique_ptr<TraceFile>(new TraceFile(path, file, num_replicas));
}

TraceFile::TraceFile(std::string path, std::FILE* file, int num_replicas)
    : path_(std::move(path)), file_(file) {
  Write(std::string(kBegin));
  for (int replica = 0; replica < num_replicas; ++replica) {
    observers_.push_back(std::make_unique<ReplicaTrace>(*this, replica));
  }
}

TraceFile::~TraceFile() {
  // After the last comma has to come something.
  std::fputs("{\"ph\":\"M\",\"pid\":0,\"name\":\"end\",\"args\":{}}\n]\n",
             file_);
  std::fclose(file_);
}

void TraceFile::Write(const std::string& events) {
  MutexLock lock(mutex_);
  if (stopped_) return;
  num_bytes_ += static_cast<int64_t>(events.size());
  if (num_bytes_ <= kMaxTraceBytes &&
      std::fwrite(events.data(), 1, events.size(), file_) == events.size()) {
    return;
  }
  stopped_ = true;
  LogWarning("the trace ends here",
             {{"path", path_},
              {"reason", num_bytes_ > kMaxTraceBytes
                             ? std::string("it has reached its largest size")
                             : std::string(std::strerror(errno))}});
}

}  // namespace witan
