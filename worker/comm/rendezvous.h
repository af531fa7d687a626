#ifndef WITAN_WORKER_COMM_RENDEZVOUS_H_
#define WITAN_WORKER_COMM_RENDEZVOUS_H_

// The transports there are. A group of one rank needs none: every factory then
// makes a communicator without file or socket.

#include <absl/status/statusor.h>

#include <memory>
#include <string>
#include <vector>

#include "worker/comm/communicator.h"

namespace witan {

// Ranks as threads of this process: the rendezvous of ranks 0 to options.size
// - 1 (options.rank is not read). Endpoints are empty.
std::vector<std::unique_ptr<Rendezvous>> MakeLocalRendezvous(
    const CommunicatorOptions& options);

// Ranks on one host, over a file in shared memory: in `directory`, or, when it
// is empty, in /dev/shm, or in $TMPDIR (/tmp) where that is missing or too
// small. Rank 0 creates the file; it has no name any more once all ranks are
// connected. Files of this kind that dead processes left behind are removed.
// RESOURCE_EXHAUSTED names the directories tried and the bytes needed.
absl::StatusOr<std::unique_ptr<Rendezvous>> MakeShmRendezvous(
    const CommunicatorOptions& options, const std::string& directory = "");

// Ranks anywhere, over TCP: a connection between every two ranks. Listens on a
// free port of `listen_host`, a numeric address of this host that the other
// ranks can reach. INVALID_ARGUMENT when it is none, UNAVAILABLE when nobody
// can listen there.
absl::StatusOr<std::unique_ptr<Rendezvous>> MakeTcpRendezvous(
    const CommunicatorOptions& options, const std::string& listen_host);

}  // namespace witan

#endif  // WITAN_WORKER_COMM_RENDEZVOUS_H_
