#ifndef WITAN_BASE_METRIC_NAMES_H_
#define WITAN_BASE_METRIC_NAMES_H_

// Every metric's name, so that dashboards and alerts can be checked against
// this list. Base units; counters end in _total. A name is never changed once
// released. No label ever holds a user's text or a request id.

namespace witan::metric {

// --- Coordinator -------------------------------------------------------------
// Requests that ended, by method ("generate", "chat") and outcome ("stop",
// "length", "cancelled", or the gRPC code of an error in lower case).
constexpr char kRequests[] = "witan_requests_total";
constexpr char kRequestsInFlight[] = "witan_requests_in_flight";
// Label reason: "streams", "tenant_streams" (of one tenant), "text_pool",
// "inbox" and "queue" (of sequences) were full, or "request_bytes" were too
// many.
constexpr char kAdmissionRejected[] = "witan_admission_rejected_total";
constexpr char kPromptTokens[] = "witan_prompt_tokens_total";
constexpr char kGeneratedTokens[] = "witan_generated_tokens_total";
// Of them, those of thoughts.
constexpr char kReasoningTokens[] = "witan_reasoning_tokens_total";
constexpr char kTimeToFirstToken[] = "witan_time_to_first_token_seconds";
constexpr char kInterTokenLatency[] = "witan_inter_token_latency_seconds";
constexpr char kRequestDuration[] = "witan_request_duration_seconds";
constexpr char kQueueTime[] = "witan_request_queue_seconds";
// --- Of each replica, label replica: 0, 1 ...
constexpr char kSequencesRunning[] = "witan_sequences_running";
constexpr char kSequencesWaiting[] = "witan_sequences_waiting";
constexpr char kSequencesPaused[] = "witan_sequences_paused";
constexpr char kPauses[] = "witan_pauses_total";
constexpr char kSlowReadersCut[] = "witan_slow_readers_cut_total";
constexpr char kPrefixLookupTokens[] = "witan_prefix_cache_lookup_tokens_total";
constexpr char kPrefixHitTokens[] = "witan_prefix_cache_hit_tokens_total";
constexpr char kPrefixEvictions[] = "witan_prefix_cache_evictions_total";
constexpr char kPrefixParked[] = "witan_prefix_cache_parked_total";
constexpr char kPrefixBlocks[] = "witan_prefix_cache_blocks";
constexpr char kKvBlocks[] = "witan_kv_blocks";  // label state: used, free
constexpr char kKvCacheUsage[] = "witan_kv_cache_usage_ratio";
constexpr char kPreemptions[] = "witan_preemptions_total";
constexpr char kSteps[] = "witan_steps_total";
constexpr char kStepRows[] = "witan_step_rows_total";  // kind: decode, prefill
// Of these rows, computed for sequences that had ended meanwhile.
constexpr char kDiscardedRows[] = "witan_discarded_rows_total";
// Of the steps, planned while another one ran.
constexpr char kLookAheadSteps[] = "witan_look_ahead_steps_total";
// Of all steps so far; phase: compute, communication (without waiting), wait
// (for other ranks; these three are means over the ranks), coordinator (what
// the step took beyond its slowest rank).
constexpr char kStepTime[] = "witan_step_seconds_total";
constexpr char kSequencesFinished[] = "witan_sequences_finished_total";
constexpr char kGroupEpoch[] = "witan_group_epoch";
constexpr char kGroupServing[] = "witan_group_serving";
constexpr char kGroupFailures[] = "witan_group_failures_total";
constexpr char kWorkerUp[] = "witan_worker_up";  // label rank
constexpr char kWorkerStepSeconds[] = "witan_rank_last_step_seconds";
constexpr char kLoadProgress[] = "witan_weights_load_progress_ratio";

// --- Worker ------------------------------------------------------------------
// Label phase: "compute", "communication" (without waiting), "wait".
constexpr char kStepSeconds[] = "witan_worker_step_seconds";
constexpr char kWorkerEpoch[] = "witan_worker_group_epoch";
constexpr char kWorkerConnected[] = "witan_worker_connected";
constexpr char kWorkerLoadProgress[] = "witan_worker_load_progress_ratio";

// --- Both --------------------------------------------------------------------
// Always 1; labels version, build_id.
constexpr char kBuildInfo[] = "witan_build_info";

}  // namespace witan::metric

#endif  // WITAN_BASE_METRIC_NAMES_H_
