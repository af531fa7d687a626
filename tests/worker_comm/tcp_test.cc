// Strangers at the door of a TCP rendezvous, and peers that do not speak as
// they should.

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <poll.h>
#include <sys/socket.h>

#include <cstring>
#include <thread>

#include "tests/worker_comm/group.h"
#include "worker/comm/endpoint.h"
#include "worker/comm/socket.h"
#include "worker/comm/tcp_communicator.h"

namespace witan {
namespace {

using ::testing::HasSubstr;

// A blocking connection to the listener of `endpoint`.
FileDescriptor Call(const std::string& endpoint) {
  const auto address = ParseAddress(ParseEndpoint("tcp", endpoint)->address);
  EXPECT_TRUE(address.ok());
  FileDescriptor socket(
      ::socket(address->storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
  EXPECT_EQ(connect(socket.get(),
                    reinterpret_cast<const sockaddr*>(&address->storage),
                    address->length),
            0);
  return socket;
}

void Say(const FileDescriptor& socket, const std::string& bytes) {
  EXPECT_EQ(send(socket.get(), bytes.data(), bytes.size(), MSG_NOSIGNAL),
            static_cast<ssize_t>(bytes.size()));
}

// The 64 bytes that rank `from` of `group` says to rank `to`.
std::string HelloBytes(const std::vector<std::string>& endpoints, int from,
                       int to) {
  const Endpoint sender = *ParseEndpoint("tcp", endpoints[from]);
  const Endpoint receiver = *ParseEndpoint("tcp", endpoints[to]);
  std::string bytes;
  const auto add = [&bytes](const auto& value) {
    bytes.append(reinterpret_cast<const char*>(&value), sizeof(value));
  };
  bytes += "WTNHELLO";
  add(uint32_t{1});  // protocol
  add(static_cast<uint32_t>(sender.size));
  add(static_cast<uint32_t>(from));
  add(static_cast<uint32_t>(to));
  add(sender.epoch);
  add(sender.nonce);
  add(receiver.nonce);
  return bytes;
}

void ExpectConnects(const std::vector<std::unique_ptr<Rendezvous>>& group,
                    const std::vector<std::string>& endpoints) {
  OnRanks(static_cast<int>(group.size()), [&](int rank) {
    const auto communicator = group[rank]->Connect(endpoints, kPatienceMs);
    ASSERT_TRUE(communicator.ok()) << communicator.status().ToString();
    EXPECT_TRUE((*communicator)->Barrier().ok());
  });
}

TEST(TcpRendezvousTest, StrangersHurtNobody) {
  const auto group =
      MakeRendezvous(TestTransport::kTcp, PatientOptions(3, 100));
  const std::vector<std::string> endpoints = EndpointsOf(group);
  std::vector<FileDescriptor> strangers;
  for (const std::string& endpoint : endpoints) {
    // Silent, gone, talkative, slow, and more than there are places for.
    strangers.push_back(Call(endpoint));
    Call(endpoint);
    strangers.push_back(Call(endpoint));
    Say(strangers.back(),
        "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" + std::string(1000, 'x'));
    strangers.push_back(Call(endpoint));
    Say(strangers.back(), "WTNHELLO");
    strangers.push_back(Call(endpoint));
    Say(strangers.back(), std::string(100'000, '\0'));
  }
  for (size_t i = 0; i < 2 * kMaxPendingHandshakes; ++i) {
    strangers.push_back(Call(endpoints[0]));
  }
  ExpectConnects(group, endpoints);
}

TEST(TcpRendezvousTest, AlmostRightHandshakesAreDropped) {
  const auto group =
      MakeRendezvous(TestTransport::kTcp, PatientOptions(3, 100));
  const std::vector<std::string> endpoints = EndpointsOf(group);
  const std::string good = HelloBytes(endpoints, 1, 0);
  ASSERT_EQ(good.size(), 64u);
  std::vector<FileDescriptor> strangers;
  // One wrong bit in magic, protocol, size, ranks, epoch or a nonce.
  for (size_t byte = 0; byte < good.size(); byte += 3) {
    std::string bad = good;
    bad[byte] ^= 1;
    strangers.push_back(Call(endpoints[0]));
    Say(strangers.back(), bad);
  }
  // A rank that says it is the listener itself, or a lower one.
  strangers.push_back(Call(endpoints[1]));
  Say(strangers.back(), HelloBytes(endpoints, 1, 1));
  strangers.push_back(Call(endpoints[1]));
  Say(strangers.back(), HelloBytes(endpoints, 0, 1));
  ExpectConnects(group, endpoints);
  for (const FileDescriptor& stranger : strangers) {
    char byte;
    EXPECT_LE(recv(stranger.get(), &byte, 1, 0), 0) << "an answer";
  }
}

TEST(TcpRendezvousTest, ListensOnlyWhereItIsTold) {
  CommunicatorOptions options = PatientOptions(2, 100);
  for (const char* host : {"", "0.0.0.0", "::", "localhost", "no such host",
                           "127.0.0.1:80", "1.2.3.4.5"}) {
    const auto half = MakeTcpRendezvous(options, host);
    EXPECT_EQ(half.status().code(), absl::StatusCode::kInvalidArgument)
        << host << ": " << half.status().ToString();
  }
  // An address that is not of this host (of the range for documentation).
  EXPECT_EQ(MakeTcpRendezvous(options, "192.0.2.1").status().code(),
            absl::StatusCode::kUnavailable);
  const auto half = MakeTcpRendezvous(options, "127.0.0.1");
  ASSERT_TRUE(half.ok());
  EXPECT_THAT((*half)->endpoint(), HasSubstr(" at=127.0.0.1:"));
}

TEST(TcpRendezvousTest, ARankThatLeftIsNamed) {
  auto group = MakeRendezvous(TestTransport::kTcp, PatientOptions(2, 100));
  const std::vector<std::string> endpoints = EndpointsOf(group);
  group[0].reset();
  const absl::Status status =
      group[1]->Connect(endpoints, kPatienceMs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 0"));
}

TEST(TcpRendezvousTest, AForgedAddressIsRefused) {
  const auto group =
      MakeRendezvous(TestTransport::kTcp, PatientOptions(2, 100));
  std::vector<std::string> endpoints = EndpointsOf(group);
  for (const char* address : {"", "127.0.0.1", "127.0.0.1:http", "host:1"}) {
    const auto half = MakeTcpRendezvous({.rank = 1,
                                         .size = 2,
                                         .epoch = 7,
                                         .max_send_bytes = 100,
                                         .timeout_ms = kPatienceMs},
                                        "127.0.0.1");
    Endpoint forged = *ParseEndpoint("tcp", endpoints[0]);
    forged.address = address;
    const std::vector<std::string> of_group = {EncodeEndpoint("tcp", forged),
                                               (*half)->endpoint()};
    EXPECT_EQ((*half)->Connect(of_group, kPatienceMs).status().code(),
              absl::StatusCode::kInvalidArgument)
        << address;
  }
}

// Rank 0 of 2, and the test itself as rank 1 at the other end of the wire.
class TcpWireTest : public ::testing::Test {
 protected:
  void SetUp() override {
    int ends[2];
    ASSERT_EQ(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    wire_ = FileDescriptor(ends[1]);
    std::vector<FileDescriptor> sockets(2);
    sockets[1] = FileDescriptor(ends[0]);
    CommunicatorOptions options = PatientOptions(2, 1000);
    auto communicator = TcpCommunicator::Create(options, std::move(sockets));
    ASSERT_TRUE(communicator.ok()) << communicator.status().ToString();
    communicator_ = *std::move(communicator);
    // The frame of Connect, which is read back from what rank 0 says.
    std::thread peer([this] { Answer(ReadFrame()); });
    EXPECT_TRUE(communicator_->Connect(kPatienceMs).ok());
    peer.join();
  }

  // The header of the next frame that rank 0 sends; its payload is dropped.
  FrameHeader ReadFrame() {
    FrameHeader header;
    EXPECT_EQ(recv(wire_.get(), &header, sizeof(header), MSG_WAITALL),
              static_cast<ssize_t>(sizeof(header)));
    std::string payload(header.payload_bytes, ' ');
    if (!payload.empty()) {
      EXPECT_EQ(recv(wire_.get(), payload.data(), payload.size(), MSG_WAITALL),
                static_cast<ssize_t>(payload.size()));
    }
    return header;
  }
  void Answer(const FrameHeader& header, const std::string& payload = "") {
    Say(wire_,
        std::string(reinterpret_cast<const char*>(&header), sizeof(header)) +
            payload);
  }
  // The status of AllGather of 8 bytes when rank 1's right answer is changed
  // by `change` before it is sent.
  absl::Status AllGatherWith(const std::function<void(FrameHeader&)>& change,
                             const std::string& payload = "12345678") {
    std::thread peer([&] {
      FrameHeader header = ReadFrame();
      change(header);
      Answer(header, payload);
    });
    const std::vector<size_t> bytes = {8, 8};
    const absl::Status status = communicator_->AllGather(bytes).status();
    peer.join();
    return status;
  }

  FileDescriptor wire_;
  std::unique_ptr<TcpCommunicator> communicator_;
};

TEST_F(TcpWireTest, TakesAFrameInPieces) {
  std::thread peer([this] {
    const FrameHeader header = ReadFrame();
    const std::string frame(reinterpret_cast<const char*>(&header),
                            sizeof(header));
    for (const char c : frame + "12345678") Say(wire_, std::string(1, c));
  });
  const std::vector<size_t> bytes = {8, 8};
  const auto views = communicator_->AllGather(bytes);
  peer.join();
  ASSERT_TRUE(views.ok()) << views.status().ToString();
  EXPECT_EQ(std::memcmp((*views)[1].data(), "12345678", 8), 0);
}

TEST_F(TcpWireTest, TakesTheNextFrameEarly) {
  std::thread peer([this] {
    FrameHeader header = ReadFrame();
    Answer(header, "12345678");
    ++header.number;
    Answer(header, "abcdefgh");
    ReadFrame();
  });
  const std::vector<size_t> bytes = {8, 8};
  for (const char* expected : {"12345678", "abcdefgh"}) {
    const auto views = communicator_->AllGather(bytes);
    ASSERT_TRUE(views.ok()) << views.status().ToString();
    EXPECT_EQ(std::memcmp((*views)[1].data(), expected, 8), 0);
  }
  peer.join();
}

TEST_F(TcpWireTest, RefusesBytesThatAreNoFrame) {
  EXPECT_EQ(AllGatherWith([](FrameHeader& h) { h.magic ^= 1; }).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TcpWireTest, RefusesAnotherOperationNumber) {
  const absl::Status status =
      AllGatherWith([](FrameHeader& h) { h.number += 5; });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 1 is at operation 6"));
}

TEST_F(TcpWireTest, RefusesAPayloadLargerThanExpected) {
  const absl::Status status = AllGatherWith([](FrameHeader& h) {
    h.call.bytes = uint64_t{1} << 60;
    h.payload_bytes = uint64_t{1} << 60;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("AllGather of 8 bytes"));
  EXPECT_THAT(status.ToString(), HasSubstr("AllGather of 1152921504606846976"));
}

TEST_F(TcpWireTest, RefusesAPayloadThatDoesNotFitItsCall) {
  EXPECT_EQ(AllGatherWith([](FrameHeader& h) { h.payload_bytes = 7; }).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(TcpWireTest, RefusesAnUnknownOperation) {
  const absl::Status status = AllGatherWith(
      [](FrameHeader& h) { h.call.operation = static_cast<Operation>(200); });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.ToString(), HasSubstr("an unknown operation"));
}

TEST_F(TcpWireTest, RefusesAPoisonTooLongToBeOne) {
  const absl::Status status = AllGatherWith([](FrameHeader& h) {
    h.is_poison = 1;
    h.payload_bytes = kMaxAbortReasonBytes + 1;
  });
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
}

TEST_F(TcpWireTest, MakesAPoisonsReasonFitForALog) {
  const absl::Status status = AllGatherWith(
      [](FrameHeader& h) {
        h.is_poison = 1;
        h.number = 12345;
        h.payload_bytes = 8;
      },
      "a\xff\n\x01 bcd");
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_EQ(status.message(), "a??? bcd");
}

TEST_F(TcpWireTest, TellsThePeerWhyItGivesUp) {
  communicator_->Abort("enough");
  const FrameHeader header = [&] {
    FrameHeader h;
    EXPECT_EQ(recv(wire_.get(), &h, sizeof(h), MSG_WAITALL),
              static_cast<ssize_t>(sizeof(h)));
    return h;
  }();
  EXPECT_EQ(header.is_poison, 1u);
  ASSERT_LE(header.payload_bytes, kMaxAbortReasonBytes);
  std::string reason(header.payload_bytes, ' ');
  recv(wire_.get(), reason.data(), reason.size(), MSG_WAITALL);
  EXPECT_THAT(reason, HasSubstr("enough"));
}

TEST_F(TcpWireTest, NamesAPeerThatClosesInTheMiddleOfAFrame) {
  std::thread peer([this] {
    const FrameHeader header = ReadFrame();
    Answer(header, "1234");
    wire_.Reset();
  });
  const std::vector<size_t> bytes = {8, 8};
  const absl::Status status = communicator_->AllGather(bytes).status();
  peer.join();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 1 went away"));
}

}  // namespace
}  // namespace witan
