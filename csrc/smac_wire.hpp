// Protocol buffers on the wire (https://protobuf.dev/programming-guides/encoding/): read and write just the fields that
// StarCraft II's raw interface needs. Every read is bounds-checked; a malformed message throws WireError.
#pragma once
#include <cstdint>
#include <cstring>
#include <stdexcept>
#include <string>

namespace kpg::smac {

struct WireError : std::runtime_error {
    using std::runtime_error::runtime_error;
};

enum Wire : std::uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

class Reader {
  public:
    Reader(const std::uint8_t* begin, const std::uint8_t* end) : at_(begin), end_(end) {}

    // The next field's number and wire type; false at the end of the message.
    bool next() {
        if (at_ == end_) return false;
        std::uint64_t key = varint();
        field = static_cast<std::uint32_t>(key >> 3);
        wire = static_cast<std::uint32_t>(key & 7);
        return true;
    }

    std::uint64_t varint() {
        std::uint64_t value = 0;
        for (int shift = 0; shift < 64; shift += 7) {
            if (at_ == end_) throw WireError("a number is cut off");
            std::uint8_t byte = *at_++;
            value |= static_cast<std::uint64_t>(byte & 127) << shift;
            if (byte < 128) return value;
        }
        throw WireError("a number is too long");
    }

    float fixed32() {
        need(4);
        std::uint32_t bits = at_[0] | at_[1] << 8 | at_[2] << 16 | static_cast<std::uint32_t>(at_[3]) << 24;
        at_ += 4;
        float value;
        std::memcpy(&value, &bits, 4);
        return value;
    }

    Reader message() {
        if (wire != kBytes) throw WireError("a message was expected");
        std::uint64_t size = varint();
        need(size);
        Reader inner(at_, at_ + size);
        at_ += size;
        return inner;
    }

    std::string text() {
        Reader inner = message();
        return std::string(inner.at_, inner.end_);
    }

    void skip() {
        switch (wire) {
            case kVarint: varint(); return;
            case kBytes: message(); return;
            case kFixed32: need(4), at_ += 4; return;
            case kFixed64: need(8), at_ += 8; return;
            default: throw WireError("an unknown kind of field");
        }
    }

    std::uint32_t field = 0;
    std::uint32_t wire = 0;

  private:
    void need(std::uint64_t size) const {
        if (size > static_cast<std::uint64_t>(end_ - at_)) throw WireError("a field is cut off");
    }

    const std::uint8_t* at_;
    const std::uint8_t* end_;
};

class Writer {
  public:
    void number(std::uint32_t field, std::uint64_t value) {
        key(field, kVarint);
        varint(value);
    }

    void real(std::uint32_t field, float value) {
        key(field, kFixed32);
        std::uint32_t bits;
        std::memcpy(&bits, &value, 4);
        for (int shift = 0; shift < 32; shift += 8) bytes.push_back(static_cast<char>(bits >> shift));
    }

    void message(std::uint32_t field, const std::string& inner) {
        key(field, kBytes);
        varint(inner.size());
        bytes += inner;
    }

    void varint(std::uint64_t value) {
        for (; value >= 128; value >>= 7) bytes.push_back(static_cast<char>(value | 128));
        bytes.push_back(static_cast<char>(value));
    }

    std::string bytes;

  private:
    void key(std::uint32_t field, std::uint32_t wire) { varint(field << 3 | wire); }
};

// Field numbers of s2clientprotocol (sc2api.proto, raw.proto, debug.proto, common.proto).
namespace field {
enum Envelope : std::uint32_t { kObservation = 10, kAction = 11, kStep = 12, kDebug = 20, kId = 97, kError = 98, kStatus = 99 };
enum Observation : std::uint32_t { kInner = 3, kRaw = 5, kLoop = 9, kUnits = 2 };
enum Unit : std::uint32_t {
    kTag = 3, kType = 4, kOwner = 5, kPos = 6, kHealth = 14, kHealthMax = 15, kShield = 16, kEnergy = 17, kCooldown = 30, kShieldMax = 36
};
enum Command : std::uint32_t { kAbility = 1, kTargetPos = 2, kTargetTag = 3, kUnitTags = 4 };
enum Debug : std::uint32_t { kCreate = 3, kKill = 4 };
}  // namespace field

constexpr std::uint64_t kStatusInGame = 3;

}  // namespace kpg::smac
