// What can be said of one class of requests.

#include <cmath>
#include <limits>

#include "base/limits.h"
#include "base/status.h"
#include "cli/bench/workload.h"
#include "proto/generation_request.h"

namespace witan::bench {
namespace {

// Headings of the help text.
constexpr char kArrivals[] = "Arrivals";
constexpr char kRequests[] = "Requests";

absl::StatusOr<double> NumberFrom(const std::string& text, double min,
                                  double max) {
  ASSIGN_OR_RETURN(const double value, ParseNumber(text));
  if (!(value >= min && value <= max)) {
    return InvalidArgument("must be from {} to {}", min, max);
  }
  return value;
}

absl::Status ApplyRate(const std::string& text, TrafficClass* out) {
  if (text == "inf") {
    out->rate = std::numeric_limits<double>::infinity();
    return absl::OkStatus();
  }
  const auto rate = ParseNumber(text);
  if (!rate.ok() || !(*rate > 0) || *rate > kMaxBenchRate) {
    return InvalidArgument("must be a number above 0, at most {}, or inf",
                           kMaxBenchRate);
  }
  out->rate = *rate;
  return absl::OkStatus();
}

absl::Status ApplyBurst(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->burst, ParseCount(text, 1, kMaxBenchBurst));
  return absl::OkStatus();
}

absl::Status ApplyClients(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->num_clients, ParseCount(text, 1, kMaxBenchClients));
  return absl::OkStatus();
}

absl::Status ApplyThinkTime(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->think_time_ms,
                   NumberFrom(text, 0, kMaxBenchThinkTimeMs));
  return absl::OkStatus();
}

absl::Status ApplyStart(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->start_s, NumberFrom(text, 0, kMaxBenchSeconds));
  return absl::OkStatus();
}

absl::Status ApplyNumRequests(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->num_requests, ParseCount(text, 1, kMaxBenchRequests));
  return absl::OkStatus();
}

absl::Status ApplyPromptTokens(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->prompt_tokens, Distribution::Parse(text));
  return absl::OkStatus();
}

absl::Status ApplyOutputTokens(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->output_tokens, Distribution::Parse(text));
  return absl::OkStatus();
}

absl::Status ApplyPrefixTokens(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->prefix_tokens, ParseCount(text, 0, kMaxContextTokens));
  return absl::OkStatus();
}

absl::Status ApplyNumPrefixes(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->num_prefixes, ParseCount(text, 1, kMaxBenchPrefixes));
  return absl::OkStatus();
}

absl::Status ApplyPrefixSkew(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->prefix_skew, NumberFrom(text, 0, kMaxBenchPrefixSkew));
  return absl::OkStatus();
}

absl::Status ApplyTenantPerPrefix(const std::string& text, TrafficClass* out) {
  if (text != "true" && text != "false") {
    return InvalidArgument("must be true or false");
  }
  out->tenant_per_prefix = text == "true";
  return absl::OkStatus();
}

absl::Status ApplyTenant(const std::string& text, TrafficClass* out) {
  out->tenant = text;
  return CheckTenant(text);
}

absl::Status ApplyPriority(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(
      const int64_t priority,
      ParseCount(text, -kMaxAbsolutePriority, kMaxAbsolutePriority));
  out->priority = static_cast<int32_t>(priority);
  return absl::OkStatus();
}

absl::Status ApplyTemperature(const std::string& text, TrafficClass* out) {
  ASSIGN_OR_RETURN(out->temperature, NumberFrom(text, 0, kMaxTemperature));
  return absl::OkStatus();
}

}  // namespace

const std::vector<ClassSetting>& ClassSettings() {
  static const auto& settings = *new std::vector<ClassSetting>{
      {"rate", "RATE", kArrivals,
       "Open loop: arrivals per second, a Poisson process that does not wait "
       "for answers; inf sends all at once",
       "", ApplyRate},
      {"burst", "N", kArrivals,
       "Requests that come together at each arrival of --rate", "1",
       ApplyBurst},
      {"clients", "N", kArrivals,
       "Closed loop: clients with one request in flight each; 1 if nothing "
       "else is said",
       "", ApplyClients},
      {"think-time-ms", "MS", kArrivals,
       "Pause of a client between an answer and its next request", "0",
       ApplyThinkTime},
      {"start-s", "SECONDS", kArrivals, "When the load of a class begins", "0",
       ApplyStart},
      {"num-requests", "N", kArrivals,
       "Requests to send (of each class); 100 if neither this nor --duration "
       "nor a trace says when to end",
       "", ApplyNumRequests},
      {"prompt-tokens", "DIST", kRequests,
       "Length of prompts, a distribution: 128, uniform:64-256, "
       "normal:MEAN,STDDEV, lognormal:MEDIAN,SIGMA or exponential:MEAN; the "
       "last three may end in bounds, as in normal:128,32,16-512",
       "128", ApplyPromptTokens},
      {"output-tokens", "DIST", kRequests,
       "Tokens that each request makes, a distribution as above; never fewer, "
       "end-of-sequence tokens are ignored",
       "64", ApplyOutputTokens},
      {"shared-prefix-tokens", "N", kRequests,
       "Tokens in front of each prompt that it shares with others", "0",
       ApplyPrefixTokens},
      {"num-prefixes", "K", kRequests, "Different shared prefixes", "1",
       ApplyNumPrefixes},
      {"prefix-skew", "S", kRequests,
       "Exponent of Zipf's law over the prefixes; 0 draws all equally often",
       "0", ApplyPrefixSkew},
      {"tenant-per-prefix", "", kRequests,
       "Give each prefix a tenant of its own, named TENANT-0, TENANT-1 ...",
       "false", ApplyTenantPerPrefix},
      {"tenant", "NAME", kRequests,
       "On whose account, 1 to 64 of A-Z a-z 0-9 . _ : -", "", ApplyTenant},
      {"priority", "N", kRequests, "Higher goes first; -10 to 10", "",
       ApplyPriority},
      {"temperature", "T", kRequests, "0 takes the most likely token", "0",
       ApplyTemperature},
  };
  return settings;
}

}  // namespace witan::bench
