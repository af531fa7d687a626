// The same requests on every layout, with ranks as processes over shared
// memory and over TCP: equal tokens and equal bits of every log-probability.

#include <gtest/gtest.h>

#include <bit>
#include <string>
#include <thread>
#include <vector>

#include "tests/e2e/local_cluster.h"
#include "tests/testing/tiny_model.h"

namespace witan {
namespace {

constexpr int kNumRequests = 8;

// Lengths around a block and above a chunk; half greedy, half sampled.
v1::GenerateRequest MakeRequest(int index, int64_t vocab_size) {
  constexpr int kLengths[kNumRequests] = {1, 31, 32, 33, 64, 100, 150, 7};
  v1::GenerateRequest request;
  for (int i = 0; i < kLengths[index]; ++i) {
    request.mutable_token_ids()->add_ids(
        static_cast<int32_t>((index * 131 + i * 37 + 11) % vocab_size));
  }
  v1::GenerationParameters& parameters = *request.mutable_parameters();
  parameters.set_max_tokens(20 + index);
  parameters.set_ignore_eos(true);
  parameters.set_top_logprobs(3);
  parameters.set_temperature(index % 2 == 0 ? 0.0f : 0.9f);
  parameters.set_seed(static_cast<uint64_t>(1000 + index));
  if (index % 3 == 1) parameters.set_top_p(0.95f);
  if (index % 4 == 3) parameters.set_repetition_penalty(1.2f);
  if (index == 5) parameters.set_num_choices(2);
  return request;
}

// Tokens and the bits of all log-probabilities as one text per request.
std::string Transcript(const CallResult& result) {
  if (!result.status.ok()) return "error: " + result.status.error_message();
  std::string text;
  const auto add_bits = [&text](float value) {
    text += " " + std::to_string(std::bit_cast<uint32_t>(value));
  };
  for (const ChoiceResult& choice : result.generation.choices) {
    for (size_t i = 0; i < choice.token_ids.size(); ++i) {
      text += "\n" + std::to_string(choice.token_ids[i]);
      add_bits(choice.logprobs[i].logprob());
      for (const v1::TokenLogprob& top : choice.logprobs[i].top()) {
        text += " " + std::to_string(top.token_id());
        add_bits(top.logprob());
      }
    }
    text += "\n--";
  }
  return text;
}

// All requests at once.
std::vector<std::string> Answers(const LocalServe& serve, int64_t vocab_size) {
  std::vector<std::string> answers(kNumRequests);
  const auto channel = serve.channel();
  std::vector<std::thread> clients;
  for (int i = 0; i < kNumRequests; ++i) {
    clients.emplace_back([&, i] {
      answers[static_cast<size_t>(i)] =
          Transcript(Generate(channel, MakeRequest(i, vocab_size)));
    });
  }
  for (std::thread& client : clients) client.join();
  return answers;
}

struct ProcessLayout {
  int tp;
  int ep;
  const char* transport;
  // Sums of up to so many KiB go one-shot; 0: every sum goes two-shot.
  int one_shot_max_kib = 64;
};

TEST(LayoutsTest, ProcessesOnEveryLayoutGiveTheSameBits) {
  const TinyModel model;
  const int64_t vocab_size = model.config().vocab_size;
  constexpr ProcessLayout kLayouts[] = {
      {1, 1, "shm"}, {2, 2, "shm"}, {4, 4, "shm"},    {8, 8, "shm"},
      {2, 4, "shm"}, {4, 2, "shm"}, {8, 1, "shm"},    {1, 8, "shm"},
      {2, 2, "tcp"}, {4, 4, "tcp"}, {2, 2, "shm", 0}, {2, 2, "tcp", 0}};
  std::vector<std::string> expected;
  std::string weights_id;
  for (const ProcessLayout& layout : kLayouts) {
    SCOPED_TRACE(testing::Message() << "tp=" << layout.tp << " ep=" << layout.ep
                                    << " " << layout.transport << " one-shot "
                                    << layout.one_shot_max_kib);
    LocalServe serve(
        model.directory(),
        {"--tp=" + std::to_string(layout.tp),
         "--ep=" + std::to_string(layout.ep),
         std::string("--transport=") + layout.transport,
         "--one-shot-max-kib=" + std::to_string(layout.one_shot_max_kib)});
    ASSERT_NE(serve.ready_line(), "") << serve.program().err();
    const auto status = serve.Status();
    EXPECT_EQ(status.num_ranks(), std::max(layout.tp, layout.ep));
    EXPECT_EQ(status.transport(), layout.transport);
    const auto answers = Answers(serve, vocab_size);
    if (expected.empty()) {
      expected = answers;
      weights_id = status.weights_id();
      for (const std::string& answer : answers) {
        EXPECT_EQ(answer.find("error"), std::string::npos) << answer;
      }
    }
    EXPECT_EQ(answers, expected);
    EXPECT_EQ(status.weights_id(), weights_id);
    EXPECT_EQ(serve.Stop(), 0);
  }
}

}  // namespace
}  // namespace witan
