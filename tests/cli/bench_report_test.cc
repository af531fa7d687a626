// What records say together, held against counting by hand and against models
// that know no percentiles.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <random>
#include <regex>

#include "cli/bench/axis.h"
#include "cli/bench/bench.h"
#include "cli/bench/plot.h"
#include "cli/bench/report.h"
#include "cli/bench/statistics.h"
#include "cli/bench/svg.h"

namespace witan::bench {
namespace {

using ::testing::AllOf;
using ::testing::DoubleEq;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

// --- Percentiles ------------------------------------------------------------

TEST(BenchPercentileTest, IsTheLeastSampleThatSoManyDoNotExceed) {
  std::mt19937 random(5);
  for (int count = 1; count <= 300; ++count) {
    std::vector<double> samples;
    // Few different values, so that many are equal.
    for (int i = 0; i < count; ++i) samples.push_back(random() % 50 * 0.25);
    std::vector<double> ascending = samples;
    std::sort(ascending.begin(), ascending.end());
    for (const int percent : {1, 50, 90, 95, 99, 100}) {
      // The model: no ranks, only how many samples are at most a value.
      double expected = 1e300;
      for (const double candidate : samples) {
        const auto num_within =
            std::count_if(samples.begin(), samples.end(),
                          [&](double s) { return s <= candidate; });
        if (num_within * 100 >= percent * count) {
          expected = std::min(expected, candidate);
        }
      }
      ASSERT_EQ(Percentile(ascending, percent), expected)
          << percent << " of " << count;
    }
  }
}

TEST(BenchPercentileTest, ASummaryOfHundredIsReadOff) {
  std::vector<double> samples;
  for (int i = 100; i >= 1; --i) samples.push_back(i);
  const Summary summary = Summarize(samples);
  EXPECT_EQ(summary.count, 100);
  EXPECT_EQ(summary.mean, 50.5);
  EXPECT_EQ(summary.p50, 50);
  EXPECT_EQ(summary.p90, 90);
  EXPECT_EQ(summary.p95, 95);
  EXPECT_EQ(summary.p99, 99);
  EXPECT_EQ(summary.max, 100);
  EXPECT_EQ(Summarize({}).count, 0);
}

// --- One request ------------------------------------------------------------

Record ARecord(std::vector<TokenArrival> arrivals, Micros sent = 1000,
               Micros ended = 100000) {
  Record record;
  record.due_us = sent - 500;
  record.sent_us = sent;
  record.ended_us = ended;
  record.prompt_tokens = 7;
  record.arrivals = std::move(arrivals);
  return record;
}

TEST(BenchLatencyTest, GapsAreSharedByTheTokensOfTheLaterChunk) {
  const Record record =
      ARecord({{11000, 2}, {21000, 1}, {51000, 3}, {61000, 1}}, 1000, 62000);
  const Latencies latencies = LatenciesOf(record);
  EXPECT_EQ(latencies.ttft_ms, 10);
  EXPECT_THAT(latencies.inter_token_ms, ElementsAre(10, 10, 10, 10, 10));
  EXPECT_THAT(latencies.chunk_gap_ms, ElementsAre(10, 30, 10));
  EXPECT_THAT(*latencies.tpot_ms, DoubleEq(50.0 / 6));
  EXPECT_EQ(latencies.end_to_end_ms, 61);
}

TEST(BenchLatencyTest, AnOpenLoopCountsFromWhenARequestWasDue) {
  Record record = ARecord({{11000, 1}});
  EXPECT_EQ(LatenciesOf(record).ttft_ms, 10);
  EXPECT_EQ(LatenciesOf(record).tpot_ms, std::nullopt);
  record.open_loop = true;
  EXPECT_EQ(LatenciesOf(record).ttft_ms, 10.5);
  EXPECT_EQ(LatenciesOf(record).end_to_end_ms, 99.5);
}

TEST(BenchObjectivesTest, EachIsComparedWithItsOwnLatency) {
  // 101 gaps of 1 ms but two of 5: the 99th percentile is the 100th of 101.
  std::vector<TokenArrival> arrivals = {{1000, 1}};
  for (int i = 0; i < 101; ++i) {
    const Micros gap = i == 30 || i == 70 ? 5000 : 1000;
    arrivals.push_back({arrivals.back().at_us + gap, 1});
  }
  const Latencies latencies = LatenciesOf(ARecord(arrivals, 500, 200000));
  const auto meets = [&](const std::vector<std::string>& texts) {
    return Meets(latencies, ParseObjectives(texts).value());
  };
  EXPECT_TRUE(meets({}));
  EXPECT_TRUE(meets({"ttft:0.5"}));
  EXPECT_FALSE(meets({"ttft:0.49"}));
  EXPECT_TRUE(meets({"itl:5"}));
  EXPECT_FALSE(meets({"itl:4.9"}));
  EXPECT_TRUE(meets({"gap:5"}));
  EXPECT_FALSE(meets({"gap:4.9"}));
  EXPECT_TRUE(meets({"tpot:1.08"}));  // 109 / 101
  EXPECT_FALSE(meets({"tpot:1.07"}));
  EXPECT_TRUE(meets({"e2e:199.5"}));
  EXPECT_FALSE(meets({"e2e:199.4"}));
  EXPECT_FALSE(meets({"ttft:9", "itl:9", "tpot:9", "e2e:9"}));
  // Nothing came after the first token, so nothing came late.
  EXPECT_TRUE(
      Meets(LatenciesOf(ARecord({{2000, 1}})),
            ParseObjectives({"itl:0.1", "gap:0.1", "tpot:0.1"}).value()));
}

TEST(BenchObjectivesTest, AStallBeforeALongChunkIsSeenByTheGapAlone) {
  const Latencies latencies =
      LatenciesOf(ARecord({{1000, 1}, {2000, 1}, {1002000, 1000}}));
  const auto meets = [&](const std::string& text) {
    return Meets(latencies, ParseObjectives({text}).value());
  };
  EXPECT_TRUE(meets("itl:1"));  // 1000 ms for 1000 tokens
  EXPECT_TRUE(meets("gap:1000"));
  EXPECT_FALSE(meets("gap:999"));
}

TEST(BenchObjectivesTest, WhatCannotBeReadIsQuoted) {
  for (const char* text : {"", "ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1",
                           "ttft:nan", "latency:5", "ttft=5"}) {
    EXPECT_THAT(ParseObjectives({text}).status().ToString(),
                HasSubstr(std::string("--objective ") + text + ":"));
  }
  EXPECT_THAT(ParseObjectives({"itl:5", "itl:6"}).status().ToString(),
              HasSubstr("names itl twice"));
  EXPECT_EQ(Describe(ParseObjectives({"gap:9", "itl:5", "ttft:0.5"}).value()),
            "ttft 0.5 ms, itl 5 ms, gap 9 ms");
}

// --- All of them ------------------------------------------------------------

Record Failed(grpc::StatusCode code, const std::string& message) {
  Record record = ARecord({{5000, 2}}, 4000, 9000);
  record.code = code;
  record.message = message;
  return record;
}

// Two of class 0 and four of class 1, two of which failed, and a warm-up.
std::vector<Record> SomeRecords() {
  std::vector<Record> records = {ARecord({{3000, 1}, {5000, 1}}, 1000, 2000000),
                                 ARecord({{4000, 1}}, 2000, 500000),
                                 ARecord({{1500000, 4}}, 1000000, 1800000),
                                 ARecord({{1900000, 4}}, 1800000, 1900000)};
  records[2].class_index = records[3].class_index = 1;
  records.push_back(Failed(grpc::StatusCode::UNAVAILABLE, "worker 1"));
  records.push_back(Failed(grpc::StatusCode::DATA_LOSS, "token 3"));
  records.push_back(Failed(grpc::StatusCode::UNAVAILABLE, "worker 2"));
  for (size_t i = 4; i < 7; ++i) records[i].class_index = 1;
  Record warmup = Failed(grpc::StatusCode::INTERNAL, "cold");
  warmup.is_warmup = true;
  warmup.ended_us = 99000000;
  records.push_back(warmup);
  return records;
}

TEST(BenchReportTest, CountsWhatCameAndWhatFailed) {
  const Report report = MakeReport(
      {"a", "b"}, ParseObjectives({"ttft:100"}).value(), SomeRecords());
  EXPECT_EQ(report.duration_s, 2);  // the warm-up is in no number
  const ClassReport& total = report.total;
  EXPECT_EQ(total.num_completed, 4);
  EXPECT_EQ(total.num_failed, 3);
  EXPECT_EQ(total.num_good, 3);  // one token came after 500 ms
  EXPECT_EQ(total.prompt_tokens, 28);
  EXPECT_EQ(total.output_tokens, 11);
  EXPECT_EQ(total.failed_output_tokens, 6);
  EXPECT_EQ(total.ttft_ms.count, 4);
  EXPECT_EQ(total.ttft_ms.max, 500);
  EXPECT_EQ(total.inter_token_ms.count, 1);
  EXPECT_EQ(total.client_lag_ms.count, 7);
  EXPECT_EQ(total.client_lag_ms.max, 0.5);
  ASSERT_EQ(total.errors.size(), 2u);
  EXPECT_EQ(total.errors[0].code, grpc::StatusCode::UNAVAILABLE);
  EXPECT_EQ(total.errors[0].count, 2);
  EXPECT_EQ(total.errors[0].example, "worker 1");
  EXPECT_EQ(report.classes[0].num_completed, 2);
  EXPECT_EQ(report.classes[0].num_failed, 0);
  EXPECT_EQ(report.classes[1].num_completed, 2);
  EXPECT_EQ(report.classes[1].num_failed, 3);
  EXPECT_EQ(report.warmup.num_failed, 1);
  EXPECT_EQ(report.warmup.errors[0].example, "cold");
}

TEST(BenchReportTest, RequestsInFlightAreCountedAtEveryMoment) {
  // Random intervals against a model that looks at each moment by itself.
  std::mt19937 random(3);
  std::vector<Record> records;
  for (int i = 0; i < 200; ++i) {
    const Micros sent = random() % 1000;
    records.push_back(ARecord({{sent, 1}}, sent, sent + 1 + random() % 100));
  }
  int64_t peak = 0;
  int64_t busy = 0;
  for (Micros at = 0; at < 1200; ++at) {
    const int64_t now = std::count_if(
        records.begin(), records.end(),
        [at](const Record& r) { return r.sent_us <= at && at < r.ended_us; });
    peak = std::max(peak, now);
    busy += now;
  }
  const Report report = MakeReport({"a"}, {}, records);
  EXPECT_EQ(report.total.peak_in_flight, peak);
  EXPECT_NEAR(report.total.mean_in_flight * report.duration_s * 1e6,
              static_cast<double>(busy), 1e-3);
}

TEST(BenchReportTest, TheTimelineHoldsEveryTokenAndFailure) {
  const Report report = MakeReport({"a", "b"}, {}, SomeRecords());
  double tokens = 0;
  double in_flight_s = 0;
  int64_t failures = 0;
  for (const TimelineSlice& slice : report.timeline) {
    tokens += slice.output_tokens_per_second * report.slice_s;
    in_flight_s += slice.in_flight * report.slice_s;
    failures += slice.num_failed;
  }
  EXPECT_NEAR(tokens, 11 + 6, 1e-9);
  EXPECT_NEAR(in_flight_s, report.total.mean_in_flight * report.duration_s,
              1e-9);
  EXPECT_EQ(failures, 3);
}

TEST(BenchReportTest, AClassIsMeasuredFromItsFirstBeginToItsLastEnd) {
  // The second class is due at 10 s, sent at 11 and done at 15; the first, a
  // closed loop, is busy from 1 to 20.
  std::vector<Record> records = {ARecord({{2000000, 3}}, 1000000, 20000000),
                                 ARecord({{12000000, 2}}, 11000000, 13000000),
                                 ARecord({{14000000, 3}}, 12000000, 15000000)};
  for (size_t i = 1; i < 3; ++i) {
    records[i].class_index = 1;
    records[i].open_loop = true;
  }
  records[1].due_us = 10000000;
  const Report report = MakeReport({"a", "b", "idle"}, {}, records);
  EXPECT_EQ(report.total.begin_s, 0);
  EXPECT_EQ(report.total.duration_s, 20);
  EXPECT_EQ(report.classes[0].begin_s, 1);
  EXPECT_EQ(report.classes[0].duration_s, 19);
  EXPECT_EQ(report.classes[1].begin_s, 10);
  EXPECT_EQ(report.classes[1].duration_s, 5);
  EXPECT_EQ(report.classes[1].PerSecond(report.classes[1].output_tokens), 1);
  EXPECT_EQ(report.classes[1].mean_in_flight, 1);  // 2 s and 3 s of 5
  EXPECT_EQ(report.classes[2].duration_s, 0);
  EXPECT_EQ(report.classes[2].PerSecond(5), 0);
}

TEST(BenchReportTest, AStragglerIsSeenAndHidesNoRate) {
  // Nine that stream ten tokens each within ten seconds, and one that hangs
  // for ninety more and fails.
  std::vector<Record> records;
  for (int i = 0; i < 9; ++i) {
    records.push_back(ARecord({{5000000, 10}}, i * 1000000, 6000000));
  }
  records.push_back(
      ARecord({{10000000, 5}, {90000000, 5}}, 10000000, 100000000));
  records.back().code = grpc::StatusCode::DEADLINE_EXCEEDED;
  const Report report = MakeReport({"a"}, {}, records);
  EXPECT_EQ(report.duration_s, 100);
  EXPECT_EQ(report.send_window_s, 10);
  EXPECT_EQ(report.drain_s(), 90);
  EXPECT_EQ(report.total.PerSecond(report.total.output_tokens), 0.9);
  // 90, and the 5 that came with the last sending.
  EXPECT_EQ(report.output_tokens_per_second_while_sending, 9.5);
  const auto workload = MakeWorkload({});
  const Plan plan = Plan::Make(*workload, {320, 512}).value();
  EXPECT_THAT(ToText({}, plan, report),
              AllOf(HasSubstr("in 100.00 s, of which 90.00 s after the last "
                              "request was sent"),
                    HasSubstr(" 9.5 output tokens/s while sending, in the "
                              "first 10.00 s\n")));
  const auto json = ToJson({}, plan, report, nullptr);
  EXPECT_EQ(json["send_window_s"], 10);
  EXPECT_EQ(json["drain_s"], 90);
  EXPECT_EQ(json["output_tokens_per_second_while_sending"], 9.5);
  EXPECT_EQ(json["total"]["output_tokens_per_second"], 0.9);
}

TEST(BenchReportTest, ALoadSentAllAtOnceHasNoRateWhileSending) {
  const Report report = MakeReport({"a"}, {}, {ARecord({{0, 3}}, 0, 5000)});
  EXPECT_EQ(report.send_window_s, 0);
  EXPECT_EQ(report.output_tokens_per_second_while_sending, std::nullopt);
}

TEST(BenchReportTest, NothingSentIsAReportOfZeros) {
  const Report report = MakeReport({"a"}, {}, {});
  EXPECT_EQ(report.duration_s, 0);
  EXPECT_EQ(report.drain_s(), 0);
  EXPECT_EQ(report.total.num_sent(), 0);
  EXPECT_TRUE(report.timeline.empty());
}

// --- For people and programs ------------------------------------------------

Plan TwoClasses() {
  const auto workload = MakeWorkload(
      {.classes = {"a<b>:rate=2,prompt-tokens=7", "b:clients=3"}, .seed = 4});
  return Plan::Make(*workload, {320, 512}).value();
}

RunFacts SomeFacts() {
  RunFacts facts;
  facts.server = "127.0.0.1:1";
  facts.model = "tiny & \"small\"";
  facts.server_build_id = "0123456789abcdef";
  facts.version = "0.1.0";
  facts.objectives = ParseObjectives({"ttft:100"}).value();
  facts.started_at = "2024-01-01T00:00:00Z";
  return facts;
}

TEST(BenchReportTest, PeopleSeeThroughputGoodputClassesAndErrors) {
  const Plan plan = TwoClasses();
  const Report report =
      MakeReport({"a<b>", "b"}, SomeFacts().objectives, SomeRecords());
  const std::string text = ToText(SomeFacts(), plan, report);
  EXPECT_THAT(text, HasSubstr("requests     4 completed, 3 failed in 2.00 s"));
  EXPECT_THAT(text, HasSubstr("throughput   2.00 requests/s, 5.5 output "
                              "tokens/s, 14.0 prompt tokens/s"));
  EXPECT_THAT(text, HasSubstr("goodput      1.50 requests/s: 3 of 7 kept ttft "
                              "100 ms"));
  EXPECT_THAT(text, HasSubstr("failed: 2 times UNAVAILABLE, e.g. worker 1\n"));
  EXPECT_THAT(text,
              HasSubstr("failed in warm-up: 1 times INTERNAL, e.g. cold"));
  EXPECT_THAT(text, HasSubstr("a<b>: open loop, Poisson 2 requests/s; prompt 7,"
                              " output 64 tokens"));
  EXPECT_THAT(text, Not(HasSubstr("interrupted")));
  EXPECT_THAT(text, Not(HasSubstr("sent late")));
}

TEST(BenchReportTest, CachedPromptTokensAreCountedByClass) {
  std::vector<Record> records = SomeRecords();
  for (const size_t i : {0, 2}) {
    records[i].cached_tokens = records[i].shared_tokens = 4;
  }
  records[4].cached_tokens = 7;  // failed
  const auto report_of = [&] { return MakeReport({"a<b>", "b"}, {}, records); };
  EXPECT_EQ(report_of().total.num_unshared_hits, 0);
  const auto text_of = [&] {
    return ToText(SomeFacts(), TwoClasses(), report_of());
  };
  EXPECT_THAT(text_of(),
              AllOf(HasSubstr("prefix cache 8 of 28 prompt tokens were cached "
                              "(28.6 %)\n"),
                    Not(HasSubstr("note:"))));
  records[2].cached_tokens = 5;
  records[3].cached_tokens = 1;
  EXPECT_THAT(text_of(),
              HasSubstr("note: 2 prompts were found in the server's prefix "
                        "cache although this load does not share them; use "
                        "another --seed than an earlier run\n"));
  const auto json = ToJson(SomeFacts(), TwoClasses(), report_of(), &records);
  EXPECT_EQ(json["total"]["cached_tokens"], 10);
  EXPECT_EQ(json["total"]["unshared_cache_hits"], 2);
  EXPECT_EQ(json["classes"][0]["cached_tokens"], 4);
  EXPECT_EQ(json["classes"][1]["cached_tokens"], 6);
  EXPECT_EQ(json["requests"][2]["cached_tokens"], 5);
}

TEST(BenchReportTest, ALoadThatEndedByTheLimitOfRequestsIsNoted) {
  RunFacts facts = SomeFacts();
  const Report report = MakeReport({"a", "b"}, {}, SomeRecords());
  EXPECT_THAT(ToText(facts, TwoClasses(), report), Not(HasSubstr("stopped")));
  EXPECT_EQ(
      ToJson(facts, TwoClasses(), report, nullptr)["stopped_at_max_requests"],
      false);
  facts.stopped_at_max_requests = true;
  EXPECT_THAT(ToText(facts, TwoClasses(), report),
              HasSubstr("note: stopped after 1048576 requests"));
  EXPECT_EQ(
      ToJson(facts, TwoClasses(), report, nullptr)["stopped_at_max_requests"],
      true);
}

TEST(BenchReportTest, ALateClientAndAnInterruptedRunAreNoted) {
  std::vector<Record> records = {ARecord({{70000, 1}}, 60000, 70000)};
  records[0].open_loop = true;
  records[0].due_us = 0;
  RunFacts facts = SomeFacts();
  facts.interrupted = true;
  facts.num_unsent = 12;
  const std::string text = ToText(
      facts, TwoClasses(), MakeReport({"a", "b"}, facts.objectives, records));
  EXPECT_THAT(text, HasSubstr("the client sent late (p99 60.0 ms"));
  EXPECT_THAT(text, HasSubstr("12 planned requests were not sent"));
}

TEST(BenchReportTest, ProgramsGetEveryNumberTheConfigurationAndTheServer) {
  const Plan plan = TwoClasses();
  const std::vector<Record> records = SomeRecords();
  const Report report =
      MakeReport({"a<b>", "b"}, SomeFacts().objectives, records);
  const auto json = ToJson(SomeFacts(), plan, report, &records);
  EXPECT_EQ(json["server"]["build_id"], "0123456789abcdef");
  EXPECT_EQ(json["client"]["version"], "0.1.0");
  EXPECT_EQ(json["config"]["seed"], 4);
  EXPECT_EQ(json["config"]["classes"][0]["rate"], 2);
  EXPECT_EQ(json["config"]["classes"][1]["clients"], 3);
  EXPECT_EQ(json["config"]["objectives"]["ttft_ms"], 100);
  EXPECT_EQ(json["total"]["completed"], 4);
  EXPECT_EQ(json["total"]["good"], 3);
  EXPECT_EQ(json["total"]["errors"][0]["code"], "UNAVAILABLE");
  EXPECT_EQ(json["classes"][1]["failed"], 3);
  EXPECT_EQ(json["requests"].size(), records.size());
  EXPECT_EQ(json["requests"][0]["chunks"][1], nlohmann::ordered_json({5.0, 1}));
  EXPECT_FALSE(json["requests"][4].contains("ttft_ms"));
  RunFacts without = SomeFacts();
  without.objectives = {};
  const auto plain = ToJson(without, plan, report, nullptr);
  EXPECT_TRUE(plain["total"]["good"].is_null());
  EXPECT_FALSE(plain.contains("requests"));
}

// --- Progress ---------------------------------------------------------------

TEST(BenchProgressTest, GoesByRequestsOrTimeWhicheverIsFurther) {
  const RunState state = {.elapsed_us = 3000000,
                          .num_ended = 45,
                          .num_failed = 1,
                          .num_in_flight = 3,
                          .num_tokens = 500};
  const RunState earlier = {.elapsed_us = 1000000, .num_tokens = 300};
  EXPECT_EQ(DescribeProgress(state, earlier, 100),
            "45 / 100 requests, 3 in flight, 1 failed, 100.0 tokens/s");
  EXPECT_EQ(DescribeProgress(state, state, std::nullopt),
            "45 requests, 3 in flight, 1 failed, 0.0 tokens/s");
  EXPECT_EQ(PercentDone(state, 10, 100), 45);
  EXPECT_EQ(PercentDone(state, 5, 100), 60);
  EXPECT_EQ(PercentDone(state, 0, 100), 45);
  EXPECT_EQ(PercentDone(state, 10, 0), 100);
  EXPECT_EQ(PercentDone(state, 10, std::nullopt), 30);
  EXPECT_EQ(PercentDone(state, 2, std::nullopt), 100);
  EXPECT_EQ(PercentDone(state, 0, std::nullopt), std::nullopt);
}

// --- Drawing ----------------------------------------------------------------

// Every element is closed by its own end; text has no stray marks.
void ExpectWellFormed(const std::string& xml) {
  static const std::regex element("<(/?)([a-z]+)([^<>]*?)(/?)>");
  std::vector<std::string> open;
  size_t end = 0;
  for (std::sregex_iterator it(xml.begin(), xml.end(), element), last;
       it != last; ++it) {
    const std::string between =
        xml.substr(end, static_cast<size_t>(it->position()) - end);
    EXPECT_EQ(between.find_first_of("<>"), std::string::npos) << between;
    end = static_cast<size_t>(it->position() + it->length());
    if ((*it)[4].length() > 0) continue;
    if ((*it)[1].length() == 0) {
      open.push_back((*it)[2]);
    } else {
      ASSERT_FALSE(open.empty());
      EXPECT_EQ(open.back(), (*it)[2]);
      open.pop_back();
    }
  }
  EXPECT_TRUE(open.empty());
  EXPECT_EQ(xml.substr(end), "\n");
}

TEST(BenchPlotTest, IsOneWellFormedFileWithoutReferences) {
  const Report report =
      MakeReport({"a", "b"}, SomeFacts().objectives, SomeRecords());
  const std::string svg =
      PlotSvg(SomeFacts(), TwoClasses(), report, SomeRecords());
  ExpectWellFormed(svg);
  EXPECT_THAT(svg, AllOf(HasSubstr("tiny &amp; &quot;small&quot;"),
                         HasSubstr(">a&lt;b&gt;</text>"),
                         HasSubstr("4 requests completed, 3 failed"),
                         HasSubstr("stroke-dasharray"),  // the objective
                         HasSubstr("#dc2626")));         // the failures
  EXPECT_THAT(svg, AllOf(Not(HasSubstr("href")), Not(HasSubstr("script")),
                         Not(HasSubstr("url(")), Not(HasSubstr("nan")),
                         Not(HasSubstr("inf"))));
}

TEST(BenchPlotTest, NothingToDrawIsDrawnAsNothing) {
  const std::string svg =
      PlotSvg(SomeFacts(), TwoClasses(), MakeReport({"a", "b"}, {}, {}), {});
  ExpectWellFormed(svg);
  EXPECT_THAT(svg, AllOf(HasSubstr("no sample"), Not(HasSubstr("nan"))));
}

TEST(BenchAxisTest, EndsAreRoundAndHoldEverything) {
  for (double max = 0.001; max < 1e6; max *= 1.37) {
    const Axis linear = Axis::Linear(max, 100, 300);
    EXPECT_GE(linear.max(), max * (1 - 1e-6));
    EXPECT_LE(linear.ticks().size(), 7u);
    const Axis exact = Axis::UpTo(max, 0, 1);
    EXPECT_EQ(exact.max(), max);
    EXPECT_LE(exact.ticks().back(), max * (1 + 1e-6));
    EXPECT_GE(exact.ticks().size(), 3u);
    EXPECT_NEAR(linear.Pixel(0), 100, 1e-9);
    EXPECT_NEAR(linear.Pixel(2 * linear.max()), 300, 1e-9);
    const Axis logarithmic = Axis::Logarithmic(max / 70, max, 0, 1);
    EXPECT_LE(logarithmic.ticks().front(), max / 70 * (1 + 1e-6));
    EXPECT_GE(logarithmic.max(), max * (1 - 1e-6));
    EXPECT_TRUE(
        std::is_sorted(logarithmic.ticks().begin(), logarithmic.ticks().end()));
  }
  EXPECT_THAT(Axis::Linear(90, 0, 1).ticks(),
              ElementsAre(0, 20, 40, 60, 80, 100));
  EXPECT_THAT(Axis::Logarithmic(3, 40, 0, 1).ticks(),
              ElementsAre(DoubleEq(2), DoubleEq(5), DoubleEq(10), DoubleEq(20),
                          DoubleEq(50)));
  EXPECT_NEAR(Axis::Logarithmic(1, 100, 0, 1).Pixel(10), 0.5, 1e-9);
  EXPECT_EQ(TickLabel(0.5) + TickLabel(12000) + TickLabel(3e6), "0.512k3M");
}

}  // namespace
}  // namespace witan::bench
