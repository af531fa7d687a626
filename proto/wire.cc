#include "proto/wire.h"

#include <algorithm>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "base/bounds.h"
#include "base/leaves.h"
#include "base/limits.h"
#include "base/status.h"
#include "proto/wire_step.h"

namespace witan {
namespace {

namespace wv = worker::v1;

using wire::CheckEpoch;
using wire::Fill;
using wire::Read;

// --- Both directions, struct by struct ---------------------------------------

void Fill(wv::RegisterWorker& out, const RegisterWorker& in) {
  out.set_build_id(in.build_id);
  out.set_protocol_version(in.protocol_version);
  out.set_host_id(in.host_id);
  out.set_host_name(in.host_name);
  out.set_process_id(in.process_id);
  out.set_device(in.device);
  out.set_cpu_path(in.cpu_path);
  out.set_num_cores(in.num_cores);
  out.set_num_threads(in.num_threads);
  out.set_memory_bytes(in.memory_bytes);
  out.set_memory_is_of_host(in.memory_is_of_host);
  out.set_model_directory(in.model_directory);
  out.set_metrics_address(in.metrics_address);
}

absl::StatusOr<RegisterWorker> Read(const wv::RegisterWorker& in) {
  RETURN_IF_ERROR(CheckSize("build_id", in.build_id().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("host_id", in.host_id().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("host_name", in.host_name().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("device", in.device().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckSize("cpu_path", in.cpu_path().size(), kMaxNameBytes));
  RETURN_IF_ERROR(
      CheckSize("model_directory", in.model_directory().size(), kMaxPathBytes));
  RETURN_IF_ERROR(
      CheckSize("metrics_address", in.metrics_address().size(), kMaxNameBytes));
  RETURN_IF_ERROR(CheckRange("process_id", in.process_id(), 0, INT32_MAX));
  RETURN_IF_ERROR(CheckRange("num_cores", in.num_cores(), 0, kMaxCores));
  RETURN_IF_ERROR(
      CheckRange("num_threads", in.num_threads(), 0, kMaxThreadsPerRank));
  RETURN_IF_ERROR(
      CheckRange("memory_bytes", in.memory_bytes(), 0, kMaxMemoryBytes));
  return RegisterWorker{.build_id = in.build_id(),
                        .protocol_version = in.protocol_version(),
                        .host_id = in.host_id(),
                        .host_name = in.host_name(),
                        .process_id = in.process_id(),
                        .device = in.device(),
                        .cpu_path = in.cpu_path(),
                        .num_cores = in.num_cores(),
                        .num_threads = in.num_threads(),
                        .memory_bytes = in.memory_bytes(),
                        .memory_is_of_host = in.memory_is_of_host(),
                        .model_directory = in.model_directory(),
                        .metrics_address = in.metrics_address()};
}

void Fill(wv::LoadProgress& out, const LoadProgress& in) {
  out.set_epoch(in.epoch);
  out.set_bytes_done(in.bytes_done);
  out.set_bytes_total(in.bytes_total);
}

absl::StatusOr<LoadProgress> Read(const wv::LoadProgress& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckRange("bytes_total", in.bytes_total(), 0, kMaxMemoryBytes));
  RETURN_IF_ERROR(
      CheckRange("bytes_done", in.bytes_done(), 0, in.bytes_total()));
  return LoadProgress{.epoch = in.epoch(),
                      .bytes_done = in.bytes_done(),
                      .bytes_total = in.bytes_total()};
}

void Fill(wv::GroupEndpoints& out, const GroupEndpoints& in) {
  out.set_world(in.world);
  out.set_attention(in.attention);
  out.set_expert(in.expert);
}

absl::StatusOr<GroupEndpoints> Read(const wv::GroupEndpoints& in) {
  RETURN_IF_ERROR(
      CheckSize("endpoints.world", in.world().size(), kMaxRendezvousBytes));
  RETURN_IF_ERROR(CheckSize("endpoints.attention", in.attention().size(),
                            kMaxRendezvousBytes));
  RETURN_IF_ERROR(
      CheckSize("endpoints.expert", in.expert().size(), kMaxRendezvousBytes));
  return GroupEndpoints{
      .world = in.world(), .attention = in.attention(), .expert = in.expert()};
}

void Fill(wv::GroupPrepared& out, const GroupPrepared& in) {
  out.set_epoch(in.epoch);
  Fill(*out.mutable_endpoints(), in.endpoints);
  out.set_numerics_id(in.numerics_id);
  out.set_config(in.config);
  for (const auto& [name, hash] : in.piece_hashes) {
    (*out.mutable_piece_hashes())[name] = hash;
  }
  out.set_weights_bytes(in.weights_bytes);
  out.set_kv_bytes(in.kv_bytes);
}

absl::StatusOr<GroupPrepared> Read(const wv::GroupPrepared& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  GroupPrepared out;
  out.epoch = in.epoch();
  ASSIGN_OR_RETURN(out.endpoints, Read(in.endpoints()));
  RETURN_IF_ERROR(
      CheckSize("numerics_id", in.numerics_id().size(), kMaxNameBytes));
  out.numerics_id = in.numerics_id();
  RETURN_IF_ERROR(CheckSize("config", in.config().size(), kMaxConfigTextBytes));
  out.config = in.config();
  RETURN_IF_ERROR(
      CheckCount("piece_hashes", in.piece_hashes_size(), kMaxPieces));
  for (const auto& [name, hash] : in.piece_hashes()) {
    RETURN_IF_ERROR(
        CheckSize("a name in piece_hashes", name.size(), kMaxNameBytes));
    RETURN_IF_ERROR(
        CheckSize("a hash in piece_hashes", hash.size(), kMaxNameBytes));
    out.piece_hashes.emplace(name, hash);
  }
  RETURN_IF_ERROR(
      CheckRange("weights_bytes", in.weights_bytes(), 0, kMaxMemoryBytes));
  RETURN_IF_ERROR(CheckRange("kv_bytes", in.kv_bytes(), 0, kMaxMemoryBytes));
  out.weights_bytes = in.weights_bytes();
  out.kv_bytes = in.kv_bytes();
  return out;
}

void Fill(wv::GroupConnected& out, const GroupConnected& in) {
  out.set_epoch(in.epoch);
}

absl::StatusOr<GroupConnected> Read(const wv::GroupConnected& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  return GroupConnected{.epoch = in.epoch()};
}

void Fill(wv::GroupFailed& out, const GroupFailed& in) {
  out.set_epoch(in.epoch);
  out.set_code(static_cast<int32_t>(in.reason.code()));
  out.set_message(std::string(MessageOf(in.reason)).substr(0, kMaxReasonBytes));
}

absl::StatusOr<GroupFailed> Read(const wv::GroupFailed& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(
      CheckRange("code", in.code(), 1,
                 static_cast<int64_t>(absl::StatusCode::kUnauthenticated)));
  RETURN_IF_ERROR(CheckSize("message", in.message().size(), kMaxReasonBytes));
  return GroupFailed{
      .epoch = in.epoch(),
      .reason =
          absl::Status(static_cast<absl::StatusCode>(in.code()), in.message())};
}

void Fill(wv::Heartbeat&, const Heartbeat&) {}

absl::StatusOr<Heartbeat> Read(const wv::Heartbeat&) { return Heartbeat{}; }

void Fill(wv::WorkerAccepted& out, const WorkerAccepted& in) {
  out.set_worker_id(in.worker_id);
}

absl::StatusOr<WorkerAccepted> Read(const wv::WorkerAccepted& in) {
  return WorkerAccepted{.worker_id = in.worker_id()};
}

void Fill(wv::PrepareGroup& out, const PrepareGroup& in) {
  out.set_epoch(in.epoch);
  out.set_rank(in.rank);
  out.set_tp(in.tp);
  out.set_ep(in.ep);
  out.set_model_directory(in.model_directory);
  out.set_transport(in.transport == Transport::kTcp
                        ? wv::TRANSPORT_TCP
                        : wv::TRANSPORT_SHARED_MEMORY);
  out.set_num_threads(in.num_threads);
  out.set_max_context_tokens(in.max_context_tokens);
  out.set_max_step_tokens(in.max_step_tokens);
  out.set_max_sequences(in.max_sequences);
  out.set_num_blocks(in.num_blocks);
  out.set_max_adapters(in.max_adapters);
  out.set_max_adapter_rank(in.max_adapter_rank);
  out.set_one_shot_max_bytes(in.one_shot_max_bytes);
}

absl::StatusOr<PrepareGroup> Read(const wv::PrepareGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckRange("tp", in.tp(), 1, kNumLeaves));
  RETURN_IF_ERROR(CheckRange("ep", in.ep(), 1, kNumLeaves));
  RETURN_IF_ERROR(CheckRange("rank", in.rank(), 0, kMaxRanks - 1));
  RETURN_IF_ERROR(
      CheckSize("model_directory", in.model_directory().size(), kMaxPathBytes));
  if (in.transport() != wv::TRANSPORT_SHARED_MEMORY &&
      in.transport() != wv::TRANSPORT_TCP) {
    return InvalidArgument("transport is {}; allowed is {} or {}",
                           static_cast<int>(in.transport()),
                           static_cast<int>(wv::TRANSPORT_SHARED_MEMORY),
                           static_cast<int>(wv::TRANSPORT_TCP));
  }
  RETURN_IF_ERROR(
      CheckRange("num_threads", in.num_threads(), 1, kMaxThreadsPerRank));
  RETURN_IF_ERROR(CheckRange("max_context_tokens", in.max_context_tokens(), 1,
                             kMaxContextTokens));
  RETURN_IF_ERROR(
      CheckRange("max_step_tokens", in.max_step_tokens(), 1, kMaxStepTokens));
  RETURN_IF_ERROR(
      CheckRange("max_sequences", in.max_sequences(), 1, kMaxStepSequences));
  RETURN_IF_ERROR(CheckRange("num_blocks", in.num_blocks(), 2, kMaxBlocks));
  RETURN_IF_ERROR(
      CheckRange("max_adapters", in.max_adapters(), 0, kMaxAdapters));
  RETURN_IF_ERROR(CheckRange("max_adapter_rank", in.max_adapter_rank(), 0,
                             kMaxAdapterRank));
  RETURN_IF_ERROR(CheckRange("one_shot_max_bytes", in.one_shot_max_bytes(), 0,
                             kMaxMemoryBytes));
  return PrepareGroup{.epoch = in.epoch(),
                      .rank = in.rank(),
                      .tp = in.tp(),
                      .ep = in.ep(),
                      .model_directory = in.model_directory(),
                      .transport = in.transport() == wv::TRANSPORT_TCP
                                       ? Transport::kTcp
                                       : Transport::kSharedMemory,
                      .num_threads = in.num_threads(),
                      .max_context_tokens = in.max_context_tokens(),
                      .max_step_tokens = in.max_step_tokens(),
                      .max_sequences = in.max_sequences(),
                      .num_blocks = in.num_blocks(),
                      .max_adapters = in.max_adapters(),
                      .max_adapter_rank = in.max_adapter_rank(),
                      .one_shot_max_bytes = in.one_shot_max_bytes()};
}

void Fill(wv::ConnectGroup& out, const ConnectGroup& in) {
  out.set_epoch(in.epoch);
  for (const GroupEndpoints& endpoints : in.endpoints) {
    Fill(*out.add_endpoints(), endpoints);
  }
}

absl::StatusOr<ConnectGroup> Read(const wv::ConnectGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckCount("endpoints", in.endpoints_size(), kMaxRanks));
  ConnectGroup out;
  out.epoch = in.epoch();
  for (const wv::GroupEndpoints& endpoints : in.endpoints()) {
    ASSIGN_OR_RETURN(out.endpoints.emplace_back(), Read(endpoints));
  }
  return out;
}

void Fill(wv::LoadAdapter& out, const LoadAdapter& in) {
  out.set_epoch(in.epoch);
  out.set_index(in.index);
  out.set_load_number(in.load_number);
  out.set_directory(in.directory);
}

absl::StatusOr<LoadAdapter> Read(const wv::LoadAdapter& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckRange("index", in.index(), 0, kMaxAdapters - 1));
  RETURN_IF_ERROR(CheckSize("directory", in.directory().size(), kMaxPathBytes));
  return LoadAdapter{.epoch = in.epoch(),
                     .index = in.index(),
                     .load_number = in.load_number(),
                     .directory = in.directory()};
}

void Fill(wv::AdapterLoaded& out, const AdapterLoaded& in) {
  out.set_epoch(in.epoch);
  out.set_index(in.index);
  out.set_load_number(in.load_number);
  out.set_code(static_cast<int32_t>(in.status.code()));
  out.set_message(std::string(MessageOf(in.status)).substr(0, kMaxReasonBytes));
  out.set_content_hash(in.content_hash);
}

absl::StatusOr<AdapterLoaded> Read(const wv::AdapterLoaded& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckRange("index", in.index(), 0, kMaxAdapters - 1));
  RETURN_IF_ERROR(
      CheckRange("code", in.code(), 0,
                 static_cast<int64_t>(absl::StatusCode::kUnauthenticated)));
  RETURN_IF_ERROR(CheckSize("message", in.message().size(), kMaxReasonBytes));
  RETURN_IF_ERROR(
      CheckSize("content_hash", in.content_hash().size(), kMaxNameBytes));
  return AdapterLoaded{
      .epoch = in.epoch(),
      .index = in.index(),
      .load_number = in.load_number(),
      .status =
          absl::Status(static_cast<absl::StatusCode>(in.code()), in.message()),
      .content_hash = in.content_hash()};
}

void Fill(wv::AbortGroup& out, const AbortGroup& in) {
  out.set_epoch(in.epoch);
  out.set_reason(in.reason.substr(0, kMaxReasonBytes));
}

absl::StatusOr<AbortGroup> Read(const wv::AbortGroup& in) {
  RETURN_IF_ERROR(CheckEpoch(in.epoch()));
  RETURN_IF_ERROR(CheckSize("reason", in.reason().size(), kMaxReasonBytes));
  return AbortGroup{.epoch = in.epoch(), .reason = in.reason()};
}

// --- Messages ----------------------------------------------------------------

// Assigns a struct or its error, with the message's name before it.
template <typename Variant, typename T>
absl::StatusOr<Variant> Named(const char* name, absl::StatusOr<T> message) {
  if (!message.ok()) return Annotate(message.status(), name);
  return Variant(*std::move(message));
}

}  // namespace

worker::v1::FromWorker ToProto(const WorkerMessage& message) {
  wv::FromWorker out;
  struct Filler {
    wv::FromWorker& out;
    void operator()(const RegisterWorker& m) {
      Fill(*out.mutable_register_worker(), m);
    }
    void operator()(const LoadProgress& m) {
      Fill(*out.mutable_load_progress(), m);
    }
    void operator()(const GroupPrepared& m) {
      Fill(*out.mutable_group_prepared(), m);
    }
    void operator()(const GroupConnected& m) {
      Fill(*out.mutable_group_connected(), m);
    }
    void operator()(const StepResult& m) {
      Fill(*out.mutable_step_result(), m);
    }
    void operator()(const GroupFailed& m) {
      Fill(*out.mutable_group_failed(), m);
    }
    void operator()(const Heartbeat& m) { Fill(*out.mutable_heartbeat(), m); }
    void operator()(const AdapterLoaded& m) {
      Fill(*out.mutable_adapter_loaded(), m);
    }
  };
  std::visit(Filler{out}, message);
  return out;
}

worker::v1::FromCoordinator ToProto(const CoordinatorMessage& message) {
  wv::FromCoordinator out;
  struct Filler {
    wv::FromCoordinator& out;
    void operator()(const WorkerAccepted& m) {
      Fill(*out.mutable_worker_accepted(), m);
    }
    void operator()(const PrepareGroup& m) {
      Fill(*out.mutable_prepare_group(), m);
    }
    void operator()(const ConnectGroup& m) {
      Fill(*out.mutable_connect_group(), m);
    }
    void operator()(const StepPlan& m) { Fill(*out.mutable_step_plan(), m); }
    void operator()(const AbortGroup& m) {
      Fill(*out.mutable_abort_group(), m);
    }
    void operator()(const LoadAdapter& m) {
      Fill(*out.mutable_load_adapter(), m);
    }
  };
  std::visit(Filler{out}, message);
  return out;
}

absl::StatusOr<WorkerMessage> FromProto(const worker::v1::FromWorker& message,
                                        int64_t vocab_size) {
  switch (message.message_case()) {
    case wv::FromWorker::kRegisterWorker:
      return Named<WorkerMessage>("RegisterWorker",
                                  Read(message.register_worker()));
    case wv::FromWorker::kLoadProgress:
      return Named<WorkerMessage>("LoadProgress",
                                  Read(message.load_progress()));
    case wv::FromWorker::kGroupPrepared:
      return Named<WorkerMessage>("GroupPrepared",
                                  Read(message.group_prepared()));
    case wv::FromWorker::kGroupConnected:
      return Named<WorkerMessage>("GroupConnected",
                                  Read(message.group_connected()));
    case wv::FromWorker::kStepResult:
      return Named<WorkerMessage>("StepResult",
                                  Read(message.step_result(), vocab_size));
    case wv::FromWorker::kGroupFailed:
      return Named<WorkerMessage>("GroupFailed", Read(message.group_failed()));
    case wv::FromWorker::kHeartbeat:
      return Named<WorkerMessage>("Heartbeat", Read(message.heartbeat()));
    case wv::FromWorker::kAdapterLoaded:
      return Named<WorkerMessage>("AdapterLoaded",
                                  Read(message.adapter_loaded()));
    case wv::FromWorker::MESSAGE_NOT_SET:
      break;
  }
  return InvalidArgument("a worker sent a message without content");
}

absl::StatusOr<CoordinatorMessage> FromProto(
    const worker::v1::FromCoordinator& message) {
  switch (message.message_case()) {
    case wv::FromCoordinator::kWorkerAccepted:
      return Named<CoordinatorMessage>("WorkerAccepted",
                                       Read(message.worker_accepted()));
    case wv::FromCoordinator::kPrepareGroup:
      return Named<CoordinatorMessage>("PrepareGroup",
                                       Read(message.prepare_group()));
    case wv::FromCoordinator::kConnectGroup:
      return Named<CoordinatorMessage>("ConnectGroup",
                                       Read(message.connect_group()));
    case wv::FromCoordinator::kStepPlan:
      return Named<CoordinatorMessage>("StepPlan", Read(message.step_plan()));
    case wv::FromCoordinator::kAbortGroup:
      return Named<CoordinatorMessage>("AbortGroup",
                                       Read(message.abort_group()));
    case wv::FromCoordinator::kLoadAdapter:
      return Named<CoordinatorMessage>("LoadAdapter",
                                       Read(message.load_adapter()));
    case wv::FromCoordinator::MESSAGE_NOT_SET:
      break;
  }
  return InvalidArgument("the coordinator sent a message without content");
}

}  // namespace witan
