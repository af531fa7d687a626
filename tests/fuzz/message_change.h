#ifndef WITAN_TESTS_FUZZ_MESSAGE_CHANGE_H_
#define WITAN_TESTS_FUZZ_MESSAGE_CHANGE_H_

#include <google/protobuf/message.h>

#include <cstdint>

namespace witan::fuzz {

// Changes one thing somewhere in `message`: sets or clears a field, adds,
// copies, exchanges or removes an entry of a list. The result can always be
// serialized. Equal seeds change equal messages equally.
void ChangeMessage(google::protobuf::Message* message, uint64_t seed);

}  // namespace witan::fuzz

#endif  // WITAN_TESTS_FUZZ_MESSAGE_CHANGE_H_
