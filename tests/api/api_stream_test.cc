// Streams of the API at their limits: their ends, their chunks, their errors.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/api/running_api.h"

namespace witan {
namespace {

TEST(ApiStreamTest, AnIdAndAStreamAreFreeOnceTheirStreamHasEnded) {
  const TinyModel model;
  RunningApi api(model.directory(), {.max_streams = 1});
  v1::GenerateRequest request = APrompt(1);
  request.set_request_id("again");
  for (int i = 0; i < 300; ++i) {
    const StreamResult result = api.Generate(request);
    ASSERT_TRUE(result.status.ok())
        << "use " << i << ": " << result.status.error_message();
  }
  // Also after an end that the client did not ask for.
  request.mutable_parameters()->set_max_tokens(100000);
  for (int i = 0; i < 100; ++i) {
    ASSERT_EQ(api.Generate(request).status.error_code(),
              grpc::StatusCode::INVALID_ARGUMENT)
        << "use " << i;
  }
}

}  // namespace
}  // namespace witan
