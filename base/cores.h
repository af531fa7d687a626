#ifndef WITAN_BASE_CORES_H_
#define WITAN_BASE_CORES_H_

namespace witan {

// Cores that the calling thread may run on, at least one: what taskset or a
// container leaves, not what the machine has.
int NumUsableCores();

}  // namespace witan

#endif  // WITAN_BASE_CORES_H_
