// A 64-bit checksum of memory at memory bandwidth: does a slot still hold what it held?
//
// Every step xor -> rotate -> multiply by an odd number is a bijection of the running value, so a change of one word
// always changes the sum; other changes are missed once in 2^64. It is not meant to withstand an adversary.
#include <omp.h>

#include <cstring>

#include "store_array.hpp"

namespace kpg {
namespace {

constexpr int kLanes = 8;  // independent chains hide the latency of the multiplication
constexpr std::int64_t kBlock = 1 << 16;
constexpr std::uint64_t kOdd[3] = {0x9E3779B97F4A7C15u, 0xC2B2AE3D27D4EB4Fu, 0xD6E8FEB86659FD93u};

inline std::uint64_t absorb(std::uint64_t value, std::uint64_t word) {
    value ^= word;
    return ((value << 29) | (value >> 35)) * kOdd[0];
}

inline std::uint64_t finish(std::uint64_t value) {
    value = (value ^ (value >> 32)) * kOdd[1];
    value = (value ^ (value >> 29)) * kOdd[2];
    return value ^ (value >> 32);
}

std::uint64_t block_checksum(const std::uint8_t* data, std::int64_t nbytes, std::uint64_t seed) {
    std::uint64_t lanes[kLanes];
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = seed + kOdd[1] * (lane + 1);
    std::int64_t stripe = kLanes * sizeof(std::uint64_t), whole = nbytes / stripe * stripe;
    for (std::int64_t at = 0; at < whole; at += stripe) {
        std::uint64_t words[kLanes];
        std::memcpy(words, data + at, stripe);
        for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = absorb(lanes[lane], words[lane]);
    }
    std::uint64_t tail[kLanes] = {};
    std::memcpy(tail, data + whole, nbytes - whole);
    std::uint64_t value = static_cast<std::uint64_t>(nbytes);
    for (int lane = 0; lane < kLanes; ++lane) value = finish(absorb(value, absorb(lanes[lane], tail[lane])));
    return value;
}

// Blocks are cut by size alone and joined in order, so the sum does not depend on the number of threads.
std::uint64_t checksum(const py::array& array, int num_threads) {
    const std::uint8_t* data = read_bytes("array", array);
    std::int64_t nbytes = array.nbytes(), blocks = (nbytes + kBlock - 1) / kBlock;
    std::vector<std::uint64_t> sums(blocks);
    py::gil_scoped_release release;
#pragma omp parallel for schedule(static) num_threads(team_size(num_threads, nbytes))
    for (std::int64_t block = 0; block < blocks; ++block) {
        std::int64_t begin = block * kBlock;
        sums[block] = block_checksum(data + begin, std::min(kBlock, nbytes - begin), static_cast<std::uint64_t>(block));
    }
    std::uint64_t value = static_cast<std::uint64_t>(nbytes);
    for (std::uint64_t sum : sums) value = finish(absorb(value, sum));
    return value;
}

}  // namespace
}  // namespace kpg

void bind_checksum(py::module_& m) {
    m.def("checksum", &kpg::checksum, py::arg("array").noconvert(), py::arg("num_threads") = 0,
          "A 64-bit checksum of the bytes of a contiguous array, the same for any number of threads.");
}
