// Adapters over the API: by name, never by path.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <memory>
#include <string>
#include <thread>

#include "base/limits.h"
#include "tests/api/running_api.h"
#include "tests/testing/temp_directory.h"
#include "tests/testing/tiny_adapter.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

class ApiAdapterTest : public testing::Test {
 protected:
  ApiAdapterTest() {
    for (const char* name : {"pirate", "poet", "chef"}) {
      std::filesystem::create_directory_symlink(adapter_.directory(),
                                                directory_.path() + "/" + name);
    }
    std::filesystem::create_directory(directory_.path() + "/empty");
    RunningApiOptions options;
    options.adapters_directory = directory_.path();
    api_ = std::make_unique<RunningApi>(model_.directory(), std::move(options));
  }

  grpc::Status Load(const std::string& name) {
    grpc::ClientContext context;
    v1::LoadAdapterRequest request;
    request.set_name(name);
    v1::LoadAdapterResponse response;
    return api_->cluster().LoadAdapter(&context, request, &response);
  }
  // While the ranks say `status`.
  grpc::Status LoadAnd(const std::string& name, const absl::Status& status) {
    grpc::Status result;
    std::thread loading([&] { result = Load(name); });
    api_->engine().AnswerAdapters(status);
    loading.join();
    return result;
  }
  grpc::Status Unload(const std::string& name) {
    grpc::ClientContext context;
    v1::UnloadAdapterRequest request;
    request.set_name(name);
    v1::UnloadAdapterResponse response;
    return api_->cluster().UnloadAdapter(&context, request, &response);
  }
  v1::StatusResponse Status() {
    grpc::ClientContext context;
    v1::StatusResponse response;
    EXPECT_TRUE(
        api_->cluster().Status(&context, v1::StatusRequest(), &response).ok());
    return response;
  }
  StreamResult GenerateWith(const std::string& model) {
    v1::GenerateRequest request = APrompt(2);
    request.set_model(model);
    return api_->Generate(request);
  }

  TinyModel model_;
  TinyAdapter adapter_{model_.config(), {.rank = 3}};
  TempDirectory directory_;
  std::unique_ptr<RunningApi> api_;
};

TEST_F(ApiAdapterTest, ALoadedOneIsAModelForRequests) {
  EXPECT_EQ(GenerateWith("pirate").status.error_code(),
            grpc::StatusCode::NOT_FOUND);
  ASSERT_TRUE(LoadAnd("pirate", absl::OkStatus()).ok());
  const StreamResult result = GenerateWith("pirate");
  EXPECT_TRUE(result.status.ok()) << result.status.error_message();
  EXPECT_EQ(api_->engine().last_spec().adapter_name, "pirate");
  EXPECT_EQ(api_->engine().last_spec().adapter.index, 0);
  EXPECT_TRUE(GenerateWith("tiny").status.ok());
  EXPECT_EQ(api_->engine().last_spec().adapter.index, kNoAdapter);

  grpc::ClientContext context;
  v1::ListModelsResponse models;
  ASSERT_TRUE(api_->inference()
                  .ListModels(&context, v1::ListModelsRequest(), &models)
                  .ok());
  ASSERT_EQ(models.models_size(), 2);
  EXPECT_EQ(models.models(1).name(), "pirate");
  EXPECT_EQ(models.models(1).base_model(), "tiny");
  EXPECT_FALSE(models.models(0).has_base_model());

  const v1::StatusResponse status = Status();
  ASSERT_EQ(status.adapters_size(), 1);
  EXPECT_EQ(status.adapters(0).name(), "pirate");
  EXPECT_EQ(status.adapters(0).rank(), 3);
  EXPECT_EQ(status.adapters(0).state(), v1::ADAPTER_STATE_READY);

  EXPECT_TRUE(Unload("pirate").ok());
  EXPECT_EQ(Unload("pirate").error_code(), grpc::StatusCode::NOT_FOUND);
}

TEST_F(ApiAdapterTest, WhatCannotBeLoadedSaysWhy) {
  for (const std::string name :
       {"", ".", "..", "../pirate", "/etc", "a b", "\xc3\xa9"}) {
    EXPECT_EQ(Load(name).error_code(), grpc::StatusCode::INVALID_ARGUMENT)
        << name;
  }
  EXPECT_EQ(Load(std::string(kMaxAdapterNameBytes + 1, 'a')).error_code(),
            grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_EQ(Load("nobody").error_code(), grpc::StatusCode::NOT_FOUND);
  EXPECT_EQ(Load("empty").error_code(), grpc::StatusCode::NOT_FOUND);
  const grpc::Status refused = LoadAnd(
      "pirate", absl::InvalidArgumentError("rank 1 of 2: rank 3 is above"));
  EXPECT_EQ(refused.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(refused.error_message(), HasSubstr("rank 3 is above"));
  EXPECT_EQ(Status().adapters_size(), 0);
}

TEST_F(ApiAdapterTest, TheModelsOwnNameIsTaken) {
  const grpc::Status status = Load("tiny");
  EXPECT_EQ(status.error_code(), grpc::StatusCode::INVALID_ARGUMENT);
  EXPECT_THAT(status.error_message(), HasSubstr("the model's own name"));
}

TEST_F(ApiAdapterTest, OneTooManyIsRefused) {
  ASSERT_TRUE(LoadAnd("pirate", absl::OkStatus()).ok());
  ASSERT_TRUE(LoadAnd("poet", absl::OkStatus()).ok());
  EXPECT_TRUE(Load("poet").ok());
  EXPECT_EQ(Load("chef").error_code(), grpc::StatusCode::RESOURCE_EXHAUSTED);
}

TEST_F(ApiAdapterTest, AServerThatEndsAnswersThoseWhoWait) {
  grpc::Status result;
  std::thread loading([&] { result = Load("pirate"); });
  api_->engine().WaitForLoading();
  api_.reset();
  loading.join();
  EXPECT_FALSE(result.ok());
}

TEST(ApiWithoutAdaptersTest, SaysHowToGetThem) {
  TinyModel model;
  RunningApi api(model.directory());
  grpc::ClientContext context;
  v1::LoadAdapterRequest request;
  request.set_name("pirate");
  v1::LoadAdapterResponse response;
  const grpc::Status status =
      api.cluster().LoadAdapter(&context, request, &response);
  EXPECT_EQ(status.error_code(), grpc::StatusCode::FAILED_PRECONDITION);
  EXPECT_THAT(status.error_message(), HasSubstr("--adapters"));
}

}  // namespace
}  // namespace witan
