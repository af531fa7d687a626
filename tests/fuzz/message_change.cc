#include "tests/fuzz/message_change.h"

#include <google/protobuf/descriptor.h>

#include <iterator>
#include <limits>
#include <random>
#include <string>
#include <vector>

namespace witan::fuzz {
namespace {

using google::protobuf::FieldDescriptor;
using google::protobuf::Message;
using google::protobuf::Reflection;

class Changer {
 public:
  explicit Changer(uint64_t seed) : random_(seed) {}

  void Change(Message* root) {
    std::vector<Message*> places;
    Collect(root, &places);
    Message* const message = places[Below(places.size())];
    const int num_fields = message->GetDescriptor()->field_count();
    if (num_fields == 0) return;
    const FieldDescriptor* const field = message->GetDescriptor()->field(
        static_cast<int>(Below(static_cast<size_t>(num_fields))));
    if (field->is_repeated()) {
      ChangeList(message, field);
    } else if (Below(6) == 0) {
      message->GetReflection()->ClearField(message, field);
    } else {
      Set(message, field);
    }
  }

 private:
  size_t Below(size_t bound) { return random_() % bound; }

  static void Collect(Message* message, std::vector<Message*>* places) {
    places->push_back(message);
    const Reflection& reflection = *message->GetReflection();
    std::vector<const FieldDescriptor*> fields;
    reflection.ListFields(*message, &fields);
    for (const FieldDescriptor* field : fields) {
      if (field->cpp_type() != FieldDescriptor::CPPTYPE_MESSAGE) continue;
      if (!field->is_repeated()) {
        Collect(reflection.MutableMessage(message, field), places);
        continue;
      }
      for (int i = 0; i < reflection.FieldSize(*message, field); ++i) {
        Collect(reflection.MutableRepeatedMessage(message, field, i), places);
      }
    }
  }

  void ChangeList(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, field);
    if (size == 0 || Below(3) == 0) {
      Add(message, field);
      return;
    }
    const int at = static_cast<int>(Below(static_cast<size_t>(size)));
    switch (Below(3)) {
      case 0:
        reflection.SwapElements(message, field, at, size - 1);
        reflection.RemoveLast(message, field);
        break;
      case 1:
        reflection.SwapElements(message, field, at,
                                static_cast<int>(Below(at + size_t{1})));
        break;
      default:  // the last entry is replaced
        reflection.SwapElements(message, field, at, size - 1);
        reflection.RemoveLast(message, field);
        Add(message, field);
    }
  }

  int64_t Integer() {
    static constexpr int64_t kIntegers[] = {0,
                                            1,
                                            -1,
                                            2,
                                            3,
                                            4,
                                            7,
                                            8,
                                            9,
                                            31,
                                            32,
                                            33,
                                            63,
                                            64,
                                            100,
                                            319,
                                            320,
                                            512,
                                            1024,
                                            16384,
                                            65536,
                                            (1 << 22) - 1,
                                            1 << 22,
                                            1 << 24,
                                            INT32_MAX,
                                            INT32_MIN,
                                            int64_t{1} << 50,
                                            INT64_MAX,
                                            INT64_MIN};
    return kIntegers[Below(std::size(kIntegers))];
  }
  float Real() {
    constexpr float kInfinity = std::numeric_limits<float>::infinity();
    static constexpr float kReals[] = {
        0,         -0.0f,      1,
        -1,        0.5f,       0.7f,
        1e-3f,     1e-4f,      1e-6f,
        2,         99,         100,
        101,       -100,       1000,
        -1000,     1e38f,      1e-45f,
        kInfinity, -kInfinity, std::numeric_limits<float>::quiet_NaN()};
    return kReals[Below(std::size(kReals))];
  }
  // UTF-8, since a `string` field must be.
  std::string Text() {
    static constexpr const char* kTexts[] = {
        "",     "a",   "user",      "\xC3\xA9",    "a\nb", "toy",
        "\x01", "[1]", "{\"a\":1}", "127.0.0.1:1", "../x"};
    if (Below(16) == 0) return std::string(1 + Below(5000), 'x');
    return kTexts[Below(std::size(kTexts))];
  }

  void Set(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.SetInt32(message, field, static_cast<int32_t>(Integer()));
        break;
      case FieldDescriptor::CPPTYPE_INT64:
        reflection.SetInt64(message, field, Integer());
        break;
      case FieldDescriptor::CPPTYPE_UINT32:
        reflection.SetUInt32(message, field, static_cast<uint32_t>(Integer()));
        break;
      case FieldDescriptor::CPPTYPE_UINT64:
        reflection.SetUInt64(message, field, static_cast<uint64_t>(Integer()));
        break;
      case FieldDescriptor::CPPTYPE_DOUBLE:
        reflection.SetDouble(message, field, Real());
        break;
      case FieldDescriptor::CPPTYPE_FLOAT:
        reflection.SetFloat(message, field, Real());
        break;
      case FieldDescriptor::CPPTYPE_BOOL:
        reflection.SetBool(message, field, Below(2) == 0);
        break;
      case FieldDescriptor::CPPTYPE_ENUM:
        reflection.SetEnumValue(message, field, static_cast<int>(Below(5)));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.SetString(message, field, Text());
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE:
        reflection.MutableMessage(message, field);
        break;
    }
  }

  void Add(Message* message, const FieldDescriptor* field) {
    const Reflection& reflection = *message->GetReflection();
    const int size = reflection.FieldSize(*message, field);
    switch (field->cpp_type()) {
      case FieldDescriptor::CPPTYPE_INT32:
        reflection.AddInt32(message, field, static_cast<int32_t>(Integer()));
        break;
      case FieldDescriptor::CPPTYPE_STRING:
        reflection.AddString(message, field, Text());
        break;
      case FieldDescriptor::CPPTYPE_MESSAGE: {
        Message* const added = reflection.AddMessage(message, field);
        if (size > 0 && Below(2) == 0) {
          added->CopyFrom(reflection.GetRepeatedMessage(
              *message, field,
              static_cast<int>(Below(static_cast<size_t>(size)))));
        }
        break;
      }
      default:  // no list of our messages has another type
        break;
    }
  }

  std::mt19937_64 random_;
};

}  // namespace

void ChangeMessage(Message* message, uint64_t seed) {
  Changer(seed).Change(message);
}

}  // namespace witan::fuzz
