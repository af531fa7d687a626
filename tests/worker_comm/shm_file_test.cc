// The file behind ranks of different processes: where it is, who may use it,
// and that nothing of it stays.

#include <dirent.h>
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>
#include <thread>

#include "tests/testing/temp_directory.h"
#include "tests/worker_comm/group.h"
#include "worker/comm/endpoint.h"
#include "worker/comm/shm_region.h"

namespace witan {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;

CommunicatorOptions OptionsOf(int rank, int size = 2) {
  CommunicatorOptions options = PatientOptions(size, 1000);
  options.rank = rank;
  return options;
}

class ShmFileTest : public ::testing::Test {
 protected:
  std::set<std::string> Files() const {
    std::set<std::string> files;
    for (const auto& entry : std::filesystem::directory_iterator(directory_)) {
      files.insert(entry.path().filename());
    }
    return files;
  }
  std::unique_ptr<Rendezvous> Make(int rank, int size = 2) const {
    auto half = MakeShmRendezvous(OptionsOf(rank, size), directory_);
    EXPECT_TRUE(half.ok()) << half.status().ToString();
    return half.ok() ? *std::move(half) : nullptr;
  }
  void MakeOld(const std::string& file) const {
    const timespec long_ago[2] = {{.tv_sec = 1, .tv_nsec = 0},
                                  {.tv_sec = 1, .tv_nsec = 0}};
    const std::string path = directory_ + "/" + file;
    ASSERT_EQ(utimensat(AT_FDCWD, path.c_str(), long_ago, 0), 0);
  }

  const TempDirectory temp_directory_;
  const std::string& directory_ = temp_directory_.path();
};

size_t NumOpenFiles() {
  const std::filesystem::directory_iterator files("/proc/self/fd");
  return std::distance(begin(files), end(files));
}

TEST_F(ShmFileTest, HasNoNameOnceAllAreConnected) {
  std::unique_ptr<Rendezvous> halves[] = {Make(0), Make(1)};
  EXPECT_EQ(Files().size(), 1u);
  const std::vector<std::string> endpoints = {halves[0]->endpoint(),
                                              halves[1]->endpoint()};
  Group group(2);
  OnRanks(2, [&](int rank) {
    group[rank] = *halves[rank]->Connect(endpoints, kPatienceMs);
    EXPECT_TRUE(group[rank]->Barrier().ok());
  });
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(ShmFileTest, GoesWithARendezvousThatWasNeverConnected) {
  const auto other = Make(1);
  const std::string path = ParseEndpoint("shm", Make(0)->endpoint())->address;
  EXPECT_FALSE(std::filesystem::exists(path));
  EXPECT_THAT(Files(), IsEmpty());
}

TEST_F(ShmFileTest, OfARankThatLeftFailsTheOthers) {
  auto first = Make(0);
  const auto second = Make(1);
  const std::vector<std::string> endpoints = {first->endpoint(),
                                              second->endpoint()};
  first.reset();
  const absl::Status status = second->Connect(endpoints, kPatienceMs).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(status.ToString(), HasSubstr("rank 0"));
}

TEST_F(ShmFileTest, LeavesNoDescriptorBehind) {
  const size_t before = NumOpenFiles();
  for (int i = 0; i < 3; ++i) {
    for (const TestTransport transport :
         {TestTransport::kLocal, TestTransport::kSharedMemory,
          TestTransport::kTcp}) {
      Group group = ConnectGroup(transport, PatientOptions(3, 100));
      ASSERT_EQ(group.size(), 3u);
      // And half-made ones.
      EXPECT_EQ(MakeRendezvous(transport, PatientOptions(3, 100)).size(), 3u);
    }
  }
  EXPECT_EQ(NumOpenFiles(), before);
}

TEST_F(ShmFileTest, IsNeitherMadeNorOpenedForOneRank) {
  const auto alone = Make(0, 1);
  EXPECT_THAT(Files(), IsEmpty());
  const std::string endpoint = alone->endpoint();
  const auto communicator = alone->Connect({&endpoint, 1}, kPatienceMs);
  ASSERT_TRUE(communicator.ok()) << communicator.status().ToString();
  EXPECT_TRUE((*communicator)->Barrier().ok());
}

TEST_F(ShmFileTest, OfADeadGroupIsRemovedWhenItIsOld) {
  std::string dead;
  {
    // What a killed process leaves: the file, held by nobody.
    auto region = ShmRegion::CreateFile(OptionsOf(0), DrawNonce(), directory_);
    ASSERT_TRUE(region.ok()) << region.status().ToString();
    dead = *Files().begin();
    std::filesystem::copy_file((*region)->path(), directory_ + "/copy");
  }
  std::filesystem::rename(directory_ + "/copy", directory_ + "/" + dead);
  EXPECT_EQ(Files().count(dead), 1u);
  {
    const auto young_stays = Make(0);
    EXPECT_EQ(Files().count(dead), 1u);
  }
  MakeOld(dead);
  const auto removes_it = Make(0);
  EXPECT_EQ(Files().count(dead), 0u);
}

TEST_F(ShmFileTest, OfALivingGroupIsNeverRemoved) {
  const auto living = Make(0);
  const std::string file = *Files().begin();
  MakeOld(file);
  const auto other = Make(0);
  EXPECT_EQ(Files().count(file), 1u);
}

TEST_F(ShmFileTest, OfSomebodyElseIsNeverRemoved) {
  std::ofstream(directory_ + "/witan-notes") << "not a region of shared memory";
  MakeOld("witan-notes");
  const auto half = Make(0);
  EXPECT_EQ(Files().count("witan-notes"), 1u);
}

TEST_F(ShmFileTest, ThatCannotBeMadeIsAnErrorThatNamesTheDirectory) {
  const auto half = MakeShmRendezvous(OptionsOf(0), directory_ + "/missing");
  EXPECT_EQ(half.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(half.status().ToString(), HasSubstr(directory_ + "/missing"));
}

TEST_F(ShmFileTest, LargerThanTheFileSystemIsAnErrorThatNamesTheBytes) {
  CommunicatorOptions options = OptionsOf(0);
  options.max_send_bytes = size_t{1} << 50;
  const auto half = MakeShmRendezvous(options, directory_);
  EXPECT_EQ(half.status().code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(half.status().ToString(), HasSubstr("no 4503599627"));
  EXPECT_THAT(Files(), IsEmpty());
}

// Rank 1's Connect when rank 0's endpoint says `address` and `nonce`.
absl::Status OpenForged(const std::string& address, const Nonce& nonce) {
  auto half = MakeShmRendezvous(OptionsOf(1));
  const Endpoint forged{.epoch = 7,
                        .rank = 0,
                        .size = 2,
                        .max_send_bytes = 1000,
                        .nonce = nonce,
                        .address = address};
  const std::vector<std::string> endpoints = {EncodeEndpoint("shm", forged),
                                              (*half)->endpoint()};
  return (*half)->Connect(endpoints, kPatienceMs).status();
}

TEST_F(ShmFileTest, ThatIsNoRegionIsRefusedAndNotTouched) {
  const std::string path = directory_ + "/letters";
  const std::string text(1 << 20, 'a');
  std::ofstream(path) << text;
  EXPECT_EQ(OpenForged(path, Nonce{}).code(),
            absl::StatusCode::kFailedPrecondition);
  std::ifstream file(path);
  EXPECT_EQ(std::string(std::istreambuf_iterator<char>(file), {}), text);
  EXPECT_EQ(OpenForged(directory_, Nonce{}).code(),
            absl::StatusCode::kUnavailable);
  EXPECT_EQ(OpenForged("/dev/zero", Nonce{}).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(OpenForged("", Nonce{}).code(), absl::StatusCode::kUnavailable);
}

TEST_F(ShmFileTest, OfAnotherNonceIsRefused) {
  const auto half = Make(0);
  Endpoint endpoint = *ParseEndpoint("shm", half->endpoint());
  endpoint.nonce[3] ^= std::byte{1};
  EXPECT_EQ(OpenForged(endpoint.address, endpoint.nonce).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(Files().size(), 1u);
}

TEST_F(ShmFileTest, ThatWasCutShortIsRefused) {
  const auto half = Make(0);
  const Endpoint endpoint = *ParseEndpoint("shm", half->endpoint());
  ASSERT_EQ(truncate(endpoint.address.c_str(), 4096), 0);
  EXPECT_EQ(OpenForged(endpoint.address, endpoint.nonce).code(),
            absl::StatusCode::kFailedPrecondition);
}

TEST_F(ShmFileTest, HasOnePlaceForEachRank) {
  const auto half = Make(0);
  const auto twin = Make(1);
  const Endpoint endpoint = *ParseEndpoint("shm", half->endpoint());
  auto first =
      ShmRegion::OpenFile(OptionsOf(1), endpoint.nonce, endpoint.address);
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  const auto second =
      ShmRegion::OpenFile(OptionsOf(1), endpoint.nonce, endpoint.address);
  EXPECT_EQ(second.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE((*first)->IsHeld(0));
}

TEST(EndpointTextTest, ReadsBackWhatItWrote) {
  const Endpoint endpoint{.epoch = ~uint64_t{0},
                          .rank = 63,
                          .size = 64,
                          .max_send_bytes = size_t{1} << 40,
                          .nonce = DrawNonce(),
                          .address = "/a directory/with = and spaces"};
  const auto read = ParseEndpoint("shm", EncodeEndpoint("shm", endpoint));
  ASSERT_TRUE(read.ok()) << read.status().ToString();
  EXPECT_EQ(*read, endpoint);
  EXPECT_FALSE(ParseEndpoint("tcp", EncodeEndpoint("shm", endpoint)).ok());
}

TEST(RegionOfTwoTest, IsHeldByLivingRanksOnly) {
  const TempDirectory directory;
  const CommunicatorOptions options = PatientOptions(2, 100);
  auto first = ShmRegion::CreateFile(options, Nonce{}, directory.path());
  ASSERT_TRUE(first.ok()) << first.status().ToString();
  EXPECT_FALSE((*first)->IsHeld(1));
  CommunicatorOptions of_second = options;
  of_second.rank = 1;
  auto second = ShmRegion::OpenFile(of_second, Nonce{}, (*first)->path());
  ASSERT_TRUE(second.ok()) << second.status().ToString();
  EXPECT_TRUE((*first)->IsHeld(1));
  EXPECT_TRUE((*second)->IsHeld(0));
  second->reset();
  EXPECT_FALSE((*first)->IsHeld(1));
}

}  // namespace
}  // namespace witan
