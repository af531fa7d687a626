#include "net/metrics_server.h"

#include <netdb.h>
#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <exception>
#include <thread>

#include "base/limits.h"
#include "base/mutex.h"
#include "base/status.h"

namespace witan {
namespace {

// Connects and hangs up.
void Touch(const ListenAddress& address) {
  addrinfo hints = {};
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_NUMERICHOST | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  if (getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(),
                  &hints, &found) != 0) {
    return;
  }
  const int fd =
      socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd >= 0) {
    // To knock is enough; the server may be gone by now.
    static_cast<void>(connect(fd, found->ai_addr, found->ai_addrlen));
    close(fd);
  }
  freeaddrinfo(found);
}

}  // namespace

// The HTTP server looks whether it shall stop when somebody connects, or else
// every two seconds.
MetricsServer::~MetricsServer() {
  if (exposer_ == nullptr) return;
  Mutex mutex;
  CondVar end;
  bool has_ended = false;
  std::thread toucher([&] {
    MutexLock lock(mutex);
    while (!has_ended) {
      Touch({host_, port_});
      end.WaitUntil(mutex,
                    std::chrono::steady_clock::now() +
                        std::chrono::milliseconds(kMetricsTouchIntervalMs));
    }
  });
  exposer_.reset();
  {
    MutexLock lock(mutex);
    has_ended = true;
    end.NotifyAll();
  }
  toucher.join();
}

absl::StatusOr<std::unique_ptr<MetricsServer>> MetricsServer::Start(
    const ListenAddress& address, bool insecure_listen) {
  RETURN_IF_ERROR(CheckCanListen(address, insecure_listen));
  auto server = std::unique_ptr<MetricsServer>(new MetricsServer());
  server->host_ = address.host;
  try {
    server->exposer_ = std::make_unique<prometheus::Exposer>(
        HostPort(address.host, address.port), /*num_threads=*/1);
  } catch (const std::exception& error) {
    return ResourceExhausted("cannot serve metrics on {}: {}",
                             HostPort(address.host, address.port),
                             error.what());
  }
  server->port_ = server->exposer_->GetListeningPorts().front();
  return server;
}

void MetricsServer::Add(
    const std::weak_ptr<prometheus::Collectable>& collectable) {
  exposer_->RegisterCollectable(collectable);
}

}  // namespace witan
