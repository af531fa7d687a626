#ifndef WITAN_COORDINATOR_API_ADAPTER_LOADER_H_
#define WITAN_COORDINATOR_API_ADAPTER_LOADER_H_

// The adapters of one directory, by name: DIRECTORY/NAME is an adapter in the
// PEFT format. Clients say a name, never a path.

#include <absl/status/status.h>

#include <deque>
#include <string>
#include <thread>

#include "base/mutex.h"
#include "coordinator/cluster/engine.h"
#include "model/config.h"

namespace witan {

// 1 to kMaxAdapterNameBytes characters of [A-Za-z0-9._-], the first of them no
// dot. INVALID_ARGUMENT.
absl::Status CheckAdapterName(const std::string& name);

// Thread-safe. Files are read by a thread of its own, one adapter after the
// other.
class AdapterLoader {
 public:
  // `directory` empty: no adapters are served. `engine` outlives the loader.
  AdapterLoader(std::string directory, const ModelConfig& model,
                Engine& engine);
  ~AdapterLoader();
  AdapterLoader(const AdapterLoader&) = delete;
  AdapterLoader& operator=(const AdapterLoader&) = delete;

  // Nothing calls the engine after it has returned; later loads are
  // UNAVAILABLE. Not thread-safe; nothing when called again.
  void Stop();

  // Reads and checks the adapter and has every replica load it. `done` is
  // called once, on any thread, unless the loader ends before.
  // INVALID_ARGUMENT names what is wrong with name, files or rank; NOT_FOUND;
  // FAILED_PRECONDITION when no adapters are served; RESOURCE_EXHAUSTED when
  // kMaxAdapterLoads wait already, or as Engine::LoadAdapter.
  void Load(const std::string& name, AdapterSet::DoneFn done);

 private:
  struct Request {
    std::string name;
    AdapterSet::DoneFn done;
  };

  void Run();
  void LoadNow(const Request& request);

  const std::string directory_;
  const ModelConfig model_;
  Engine& engine_;

  Mutex mutex_;
  CondVar changed_;
  std::deque<Request> requests_ WITAN_GUARDED_BY(mutex_);
  bool stopping_ WITAN_GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_ADAPTER_LOADER_H_
