#ifndef WITAN_COORDINATOR_API_ENGINE_H_
#define WITAN_COORDINATOR_API_ENGINE_H_

#include <absl/status/status.h>

#include <memory>
#include <utility>

#include "coordinator/cluster/replica.h"
#include "coordinator/cluster/replica_loop.h"
#include "coordinator/cluster/token_sink.h"
#include "coordinator/schedule/sequence.h"

namespace witan {

// What the API asks of the cluster below it. Thread-safe; never blocks. The
// contracts are ReplicaLoop's.
class Engine {
 public:
  virtual ~Engine() = default;
  virtual SequenceId NewSequenceId() = 0;
  virtual absl::Status Submit(SequenceSpec spec,
                              std::unique_ptr<TokenSink> sink) = 0;
  virtual void Cancel(SequenceId id) = 0;
  virtual void Pause(SequenceId id) = 0;
  virtual void Resume(SequenceId id) = 0;
  virtual std::shared_ptr<const ReplicaSnapshot> Snapshot() const = 0;
};

// One replica serves everything.
class ReplicaEngine final : public Engine {
 public:
  // REQUIRES: `loop` outlives this object.
  explicit ReplicaEngine(ReplicaLoop& loop) : loop_(loop) {}
  SequenceId NewSequenceId() override { return loop_.NewSequenceId(); }
  absl::Status Submit(SequenceSpec spec,
                      std::unique_ptr<TokenSink> sink) override {
    return loop_.Submit(std::move(spec), std::move(sink));
  }
  void Cancel(SequenceId id) override { loop_.Cancel(id); }
  void Pause(SequenceId id) override { loop_.Pause(id); }
  void Resume(SequenceId id) override { loop_.Resume(id); }
  std::shared_ptr<const ReplicaSnapshot> Snapshot() const override {
    return loop_.Snapshot();
  }

 private:
  ReplicaLoop& loop_;
};

}  // namespace witan

#endif  // WITAN_COORDINATOR_API_ENGINE_H_
