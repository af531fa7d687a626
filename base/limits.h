#ifndef WITAN_BASE_LIMITS_H_
#define WITAN_BASE_LIMITS_H_

// Every maximum of the system, in one place. What exceeds one is refused by
// name, with the value and the limit in the message; nothing is truncated
// silently.

#include <cstddef>
#include <cstdint>

namespace witan {

// --- Model files -----------------------------------------------------------
constexpr int64_t kMaxConfigFileBytes = int64_t{1} << 20;
// Of a config as one rank tells it to the coordinator.
constexpr size_t kMaxConfigTextBytes = 4096;
constexpr int64_t kMaxSafetensorsHeaderBytes = int64_t{100} << 20;
constexpr int64_t kMaxTensors = int64_t{1} << 20;
constexpr int kMaxTensorDimensions = 8;
constexpr int64_t kMaxPieceCacheFileBytes = int64_t{1} << 30;
// Hashes of a file are kept only once it was left alone for this long: file
// times may be as coarse.
constexpr int64_t kMinFileAgeNs = 2'000'000'000;
constexpr int64_t kMaxModelShards = 10000;
constexpr int64_t kMaxTokenizerFileBytes = int64_t{256} << 20;
constexpr int64_t kMaxChatTemplateBytes = int64_t{1} << 20;
constexpr int64_t kMaxHiddenSize = int64_t{1} << 17;
constexpr int64_t kMaxIntermediateSize = int64_t{1} << 20;
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxAttentionHeads = 1024;
constexpr int64_t kMaxHeadDim = 512;
constexpr int64_t kMaxExperts = 1024;
constexpr int64_t kMaxExpertsPerToken = 64;
constexpr int64_t kMaxVocabSize = int64_t{1} << 22;
constexpr int64_t kMaxContextTokens = int64_t{1} << 24;
constexpr double kMinRopeTheta = 1;
constexpr double kMaxRopeTheta = 1e12;
constexpr double kMaxRmsNormEpsilon = 1;
// What an error quotes of a text and of a JSON value, and how many names it
// lists.
constexpr size_t kMaxQuotedBytes = 120;
constexpr size_t kMaxShownValueBytes = 60;
constexpr size_t kMaxListedNames = 10;

// --- A cluster -------------------------------------------------------------
// tp and ep are at most kNumLeaves (base/leaves.h); the world is lcm(tp, ep),
// at most 7 * 8 (tp = 7, ep = 8).
constexpr int kMaxRanks = 64;
constexpr int kMaxWorkers = 256;
constexpr size_t kMaxRendezvousBytes = 4096;
constexpr int kMaxThreadsPerRank = 256;
constexpr int64_t kMaxCores = int64_t{1} << 16;
constexpr int64_t kMaxMemoryBytes = int64_t{1} << 50;
// Pieces of a model's weights that one rank may report (model/manifest.h).
constexpr int64_t kMaxPieces = int64_t{1} << 20;
constexpr size_t kMaxNameBytes = 1024;
constexpr size_t kMaxPathBytes = 4096;
constexpr size_t kMaxReasonBytes = 16384;
// One message between a worker and the coordinator.
constexpr int kMaxWorkerMessageBytes = 256 << 20;
// Messages that a server has received in part, all together; beyond it calls
// are cancelled.
constexpr int64_t kMaxReceiveBufferBytes = int64_t{2} << 30;
// Messages that wait to be sent to one worker.
constexpr size_t kMaxWorkerLinkQueue = 1024;
// Connections of workers, those included that have not registered yet.
constexpr size_t kMaxWorkerLinks = 2 * kMaxWorkers;
// Messages that wait for one worker's engine.
constexpr size_t kMaxWorkerPlanQueue = 64;

// --- One step --------------------------------------------------------------
// Positions of the KV cache that one block holds.
constexpr int kBlockTokens = 32;
// Positions of one attention split (numerics contract), a multiple of
// kBlockTokens.
constexpr int kSplitTokens = 256;
constexpr int kMaxStepTokens = 16384;
constexpr int kMaxStepSequences = 1024;
constexpr int kMaxBlocks = 1 << 24;
// Steps planned and sent beyond the one that runs.
constexpr int kMaxLookAheadSteps = 1;
// What a rank may say that a step took.
constexpr int64_t kMaxStepUs = int64_t{1} << 48;
constexpr int64_t kMaxOneShotKib = int64_t{1} << 30;

// --- One request -----------------------------------------------------------
// One message of a client, as it is on the wire.
constexpr size_t kMaxRequestBytes = size_t{4} << 20;
// What the command line receives in one message, a 2 MiB text's tokens say.
constexpr int kMaxClientReceiveBytes = 64 << 20;
constexpr size_t kMaxPromptTextBytes = size_t{2} << 20;
constexpr int kMaxDetokenizeTokens = 1 << 18;
constexpr size_t kMaxRequestIdBytes = 128;
constexpr size_t kMaxModelNameBytes = 256;
constexpr size_t kMaxTenantBytes = 64;
constexpr int kMaxAbsolutePriority = 10;
constexpr int kMaxMessages = 1024;
constexpr size_t kMaxRoleBytes = 256;
constexpr int kMaxTemplateArguments = 64;
constexpr size_t kMaxTemplateArgumentBytes = size_t{64} << 10;
// Of one JSON object in a template argument; adding a member looks through
// those before it.
constexpr int kMaxTemplateObjectMembers = 512;
constexpr int kMaxChoices = 8;
constexpr int kMaxStopStrings = 16;
constexpr size_t kMaxStopStringBytes = 256;
constexpr int kMaxStopTokenIds = 128;
constexpr int kMaxLogitBias = 1024;
constexpr int kMaxTopLogprobs = 20;
// Of a temperature other than 0: a smaller one makes numbers of logits that
// fp32 cannot tell apart.
constexpr float kMinTemperature = 1e-4f;
constexpr double kMaxTemperature = 100.0;
constexpr float kMinTopP = 1e-6f;
constexpr double kMaxPenalty = 100.0;
constexpr float kMinRepetitionPenalty = 1e-3f;
constexpr double kMaxAbsoluteLogitBias = 1000.0;
// Tokens in one message of a stream; what a slow reader has yet to take is cut
// into messages of this size.
constexpr int kMaxChunkTokens = 256;
// Tokens that a client has yet to take, of one request: beyond it the request
// is paused, and goes on below half of it.
constexpr int64_t kMaxUnreadTokens = 1024;
// A client that takes no message for so long is cut off.
constexpr int64_t kSlowReaderTimeoutMs = 60000;
constexpr int64_t kStreamWatchIntervalMs = 1000;
// Message of an error; a longer one is cut. It travels in a header, which
// clients bound to 8 KiB, with each byte that is not ASCII written as three.
constexpr size_t kMaxStatusMessageBytes = 1024;

// --- Queues and waits ------------------------------------------------------
// Of one replica; the cost of a step does not depend on it (bench/schedule.cc).
constexpr int kMaxWaitingSequences = 16384;
// Prompt tokens of all sequences of one replica, those that run included; they
// take four bytes each. Every request fits alone, with all its choices.
constexpr int64_t kMaxLivePromptTokens = int64_t{64} << 20;
// Of one priority: a tenant that was served so many tokens more than another
// one that waits gives up a place for it.
constexpr int64_t kMaxServiceLeadTokens = 4096;
// Tenants without a request whose share is remembered.
constexpr size_t kMaxIdleTenants = 4096;
constexpr int kMaxReplicas = 64;
// Blocks of one replica whose names the router remembers.
constexpr int64_t kMaxRememberedBlocks = int64_t{1} << 20;
constexpr int kMaxConcurrentStreams = 4096;
// Of so many places (open streams, sequences and prompt tokens of a replica)
// one is for others than the tenant that has the rest.
constexpr int kPlacesPerPlaceForOthers = 8;
constexpr int64_t MaxOfOneTenant(int64_t num_places) {
  return num_places - num_places / kPlacesPerPlaceForOthers;
}
static_assert(MaxOfOneTenant(kMaxLivePromptTokens) >=
              int64_t{kMaxChoices} * static_cast<int64_t>(kMaxRequestBytes));
// Messages, requests and cancellations that wait for one replica's thread.
constexpr size_t kMaxReplicaInbox = 65536;
// Workers that went away and are still shown.
constexpr size_t kMaxLostWorkersRemembered = 16;
constexpr int kMaxTextPoolThreads = 4;
constexpr int kMaxTextPoolQueue = 4096;
// Of them calls that only turn texts into tokens or back.
constexpr int kMaxTextCalls = kMaxTextPoolQueue / 4;
// Hint sent with RESOURCE_EXHAUSTED and UNAVAILABLE ("grpc-retry-pushback-ms").
constexpr int64_t kRetryPushbackMs = 500;
// Idle connections are probed this often, and given up without an answer.
constexpr int64_t kKeepaliveTimeMs = 20000;
constexpr int64_t kKeepaliveTimeoutMs = 10000;
// One attempt to connect to a peer, and the pause after the first one that
// failed.
constexpr int64_t kConnectAttemptTimeoutMs = 5000;
constexpr int64_t kMinReconnectPauseMs = 100;
constexpr int64_t kMaxReconnectPauseMs = 2000;
// Longest wait for Cluster.Status, when a person asks and when a supervisor
// does, many times a second.
constexpr int64_t kStatusCallTimeoutMs = 10000;
constexpr int64_t kStatusPollTimeoutMs = 500;
// How often a supervisor asks while the cluster loads, and while it serves.
constexpr int64_t kLoadingStatusIntervalMs = 100;
constexpr int64_t kServingStatusIntervalMs = 1000;
// A reason not to be ready is told to people when it stands for so long.
constexpr int64_t kShownDelayMs = 2000;
// A metrics server that ends wakes its threads this often until all are gone.
constexpr int64_t kMetricsTouchIntervalMs = 5;
constexpr int64_t kHeartbeatIntervalMs = 500;
// A worker that was not heard of for this long is lost.
constexpr int64_t kWorkerTimeoutMs = 10000;
// A worker's connection that has not registered in this time is closed.
constexpr int64_t kRegistrationTimeoutMs = 10000;
// A coordinator that wakes up later than this was not running itself, and has
// yet to read what arrived meanwhile before it calls others late.
constexpr int64_t kMaxTickDelayMs = 1000;
// How long calls may take to end when a process shuts down.
constexpr int64_t kCallGraceMs = 2000;
// Longest wait inside one collective before the group is given up and the
// late rank is named.
constexpr int64_t kCollectiveTimeoutMs = 30000;
// Longest wait for all ranks of a new epoch to connect with each other, and how
// long one of them tries, all its groups together: less, because it knows who
// is missing.
constexpr int64_t kRendezvousTimeoutMs = 30000;
constexpr int64_t kConnectTimeoutMs = 25000;
static_assert(kConnectTimeoutMs < kRendezvousTimeoutMs);
// Pause before a rank that hung up without an answer is dialled again.
constexpr int64_t kRedialPauseMs = 20;
// A rank that waits for another polls this long before it sleeps.
constexpr int64_t kMaxSpinUs = 50;
// A rank that sleeps looks this often whether the ranks it waits for live.
constexpr int64_t kPeerCheckIntervalMs = 20;
// A file in shared memory that nobody holds is removed at this age.
constexpr int64_t kStaleRegionSeconds = 60;
// Reason of an aborted group, as it is told to the other ranks.
constexpr size_t kMaxAbortReasonBytes = 1024;
// Blocks of one rank in an AllToAll.
constexpr size_t kMaxBlocksPerRank = 64;
// Connections to a TCP rendezvous that have not said yet who they are.
constexpr size_t kMaxPendingHandshakes = 64;
// Longest wait for a rank to load its shard.
constexpr int64_t kLoadTimeoutMs = 30 * 60 * 1000;
// Pause before a group is tried again that failed before it served: doubles
// from the first to the second.
constexpr int64_t kMinRegroupPauseMs = 200;
constexpr int64_t kMaxRegroupPauseMs = 10000;
// A replica's published snapshot is at most this old.
constexpr int64_t kSnapshotIntervalMs = 100;
// Longest wait for the result of a step.
constexpr int64_t kStepTimeoutMs = 120000;

// --- Text ------------------------------------------------------------------
constexpr int kMaxTemplateSteps = 1 << 20;
constexpr int kMaxTemplateDepth = 64;
constexpr size_t kMaxTemplateOutputBytes = size_t{8} << 20;
// Nested evaluations of a running template, calls of macros included.
constexpr int kMaxTemplateEvaluationDepth = 512;
// Bytes that one rendering may write or look through, all values together.
constexpr int64_t kMaxTemplateWorkBytes = int64_t{256} << 20;
constexpr int64_t kMaxTemplateRange = 100000;
// Spaces that one level of an indentation takes.
constexpr int64_t kMaxTemplateIndent = 1024;
// Digits of a number that a template formats or rounds.
constexpr int64_t kMaxTemplateDigits = 300;
constexpr int kMaxJsonDepth = 64;
constexpr size_t kMaxEncodeTextBytes = size_t{64} << 20;
constexpr size_t kMaxAddedTokenBytes = 1024;
// Stages of a normalizer, a pre-tokenizer and a decoder, each of which works on
// what the one before it left.
constexpr size_t kMaxTokenizerStages = 64;
// What the stages of a pre-tokenizer may make of one byte, on average.
constexpr size_t kMaxPreTokenizerGrowth = 16;
// Bytes that a decoder may add to one token.
constexpr size_t kMaxTokenGrowthBytes = 1024;
// Tokens that a post-processor puts around a text.
constexpr size_t kMaxPostProcessorTokens = 1024;
constexpr size_t kMaxTokenizerMerges = size_t{1} << 23;
constexpr size_t kMaxRegexPatternBytes = size_t{16} << 10;
// Backtracking steps and memory of one match of a pre-tokenizer pattern.
constexpr uint32_t kMaxRegexSteps = 10'000'000;
constexpr uint32_t kMaxRegexHeapKib = 64 << 10;
constexpr size_t kMaxRegexJitStackBytes = size_t{1} << 20;

// --- Traces ----------------------------------------------------------------
constexpr int64_t kMaxTraceBytes = int64_t{4} << 30;

// --- Logs ------------------------------------------------------------------
constexpr int kMaxLogLinesPerSecond = 200;

// --- Local processes (witan serve) -----------------------------------------
constexpr int kMaxLocalWorkers = 64;
// One line of a child's output; a longer one is cut there.
constexpr size_t kMaxChildLineBytes = size_t{64} << 10;
// Pause before a worker that ended is started again: doubles from the first to
// the second, and begins anew once one has lived for the third.
constexpr int64_t kMinRespawnPauseMs = 100;
constexpr int64_t kMaxRespawnPauseMs = 10000;
constexpr int64_t kRespawnForgivenAfterMs = 30000;
// Ends of one worker in a row, before anything was served, that end it all.
constexpr int kMaxFailedStarts = 5;
// Longest wait for processes to end by themselves before they are killed.
constexpr int64_t kShutdownGraceMs = 10000;

// --- Load generator (witan bench) --------------------------------------------
constexpr int64_t kMaxTraceFileBytes = int64_t{1} << 30;
constexpr size_t kMaxTraceLineBytes = size_t{1} << 20;
constexpr int64_t kMaxTraceMs = int64_t{366} * 24 * 3600 * 1000;
// Of one run, warm-up apart; each leaves a record of its tokens' arrivals.
constexpr int64_t kMaxBenchRequests = int64_t{1} << 20;
constexpr int64_t kMaxBenchWarmupRequests = 65536;
// Warm-up requests at once.
constexpr int64_t kMaxBenchWarmupClients = 8;
constexpr int kMaxBenchClasses = 64;
// Closed-loop clients, and requests of one burst, of one class.
constexpr int64_t kMaxBenchClients = 65536;
constexpr int64_t kMaxBenchBurst = 65536;
constexpr int64_t kMaxBenchPrefixes = int64_t{1} << 20;
constexpr double kMaxBenchPrefixSkew = 10;
constexpr double kMaxBenchRate = 1e6;
constexpr double kMaxBenchSeconds = 7.0 * 24 * 3600;
constexpr double kMaxBenchThinkTimeMs = 3600.0 * 1000;
constexpr int kMaxBenchConnections = 64;
// Pause between two states of the progress bar.
constexpr int64_t kBenchProgressIntervalMs = 100;

}  // namespace witan

#endif  // WITAN_BASE_LIMITS_H_
