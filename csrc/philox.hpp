// Philox4x32-10 (Salmon et al., SC 2011). Static: kernels of every instruction set have a copy of their own.
#pragma once
#include <cstdint>
#include <cstring>

namespace kpg {

struct Words {
    std::uint32_t word[4];
};

// Four uniform words under ``key`` for the counter (row, stream, low half of step, high half of step).
[[maybe_unused]] static inline Words philox(std::uint64_t key, std::uint32_t row, std::uint32_t stream,
                                            std::uint64_t step) {
    Words c{{row, stream, std::uint32_t(step), std::uint32_t(step >> 32)}};
    std::uint32_t k0 = std::uint32_t(key), k1 = std::uint32_t(key >> 32);
    for (int round = 0; round < 10; ++round) {
        std::uint64_t p0 = std::uint64_t(0xD2511F53u) * c.word[0], p1 = std::uint64_t(0xCD9E8D57u) * c.word[2];
        c = {{std::uint32_t(p1 >> 32) ^ c.word[1] ^ k0, std::uint32_t(p1), std::uint32_t(p0 >> 32) ^ c.word[3] ^ k1,
              std::uint32_t(p0)}};
        k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
    }
    return c;
}

}  // namespace kpg
