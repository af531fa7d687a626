#include "coordinator/api/adapter_loader.h"

#include <fmt/format.h>

#include <utility>

#include "base/limits.h"
#include "base/status.h"
#include "model/adapter.h"
#include "model/json_object.h"

namespace witan {

absl::Status CheckAdapterName(const std::string& name) {
  constexpr std::string_view kCharacters =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
  if (!name.empty() && name.size() <= kMaxAdapterNameBytes &&
      name.front() != '.' &&
      name.find_first_not_of(kCharacters) == std::string::npos) {
    return absl::OkStatus();
  }
  return InvalidArgument(
      "name is {}; allowed are 1 to {} characters of [A-Za-z0-9._-], the first "
      "no dot",
      Quoted(name), kMaxAdapterNameBytes);
}

AdapterLoader::AdapterLoader(std::string directory, const ModelConfig& model,
                             Engine& engine)
    : directory_(std::move(directory)),
      model_(model),
      engine_(engine),
      thread_([this] { Run(); }) {}

AdapterLoader::~AdapterLoader() { Stop(); }

void AdapterLoader::Stop() {
  {
    MutexLock lock(mutex_);
    stopping_ = true;
  }
  changed_.NotifyAll();
  if (thread_.joinable()) thread_.join();
}

void AdapterLoader::Load(const std::string& name, AdapterSet::DoneFn done) {
  absl::Status status = CheckAdapterName(name);
  if (status.ok() && directory_.empty()) {
    status = FailedPrecondition(
        "this cluster serves no adapters; start the coordinator with "
        "--adapters DIRECTORY");
  }
  if (status.ok()) {
    MutexLock lock(mutex_);
    if (stopping_) {
      status = Unavailable("the coordinator is shutting down");
    } else if (requests_.size() < kMaxAdapterLoads) {
      requests_.push_back({name, std::move(done)});
      changed_.NotifyAll();
      return;
    } else {
      status = ResourceExhausted(
          "{} adapters wait to be loaded already; try again", requests_.size());
    }
  }
  done(status);
}

void AdapterLoader::Run() {
  while (true) {
    Request request;
    {
      MutexLock lock(mutex_);
      while (requests_.empty() && !stopping_) changed_.Wait(mutex_);
      if (stopping_) return;
      request = std::move(requests_.front());
      requests_.pop_front();
    }
    LoadNow(request);
  }
}

void AdapterLoader::LoadNow(const Request& request) {
  const std::string directory = fmt::format("{}/{}", directory_, request.name);
  const auto adapter = Adapter::Open(directory, model_);
  if (!adapter.ok()) {
    request.done(
        Annotate(adapter.status(), fmt::format("adapter {}", request.name)));
    return;
  }
  engine_.LoadAdapter(request.name, directory, (*adapter)->content_hash(),
                      (*adapter)->max_rank(), request.done);
}

}  // namespace witan
