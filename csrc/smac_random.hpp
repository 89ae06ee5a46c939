// Python's `random.shuffle` and numpy's `np.random.rand` (both on a Mersenne twister), so that smacv2's random choices
// can be repeated draw by draw from the same seeds.
#pragma once
#include <cstdint>
#include <random>
#include <sstream>
#include <utility>
#include <vector>

namespace kpg::smac {

class Twister {
  public:
    // The 624 words and the position that `getstate()` of either library reports.
    void load(const std::uint32_t* words, std::uint32_t position) {
        std::stringstream text;
        for (int i = 0; i < 624; ++i) text << words[i] << ' ';
        text << position;
        text >> engine_;
    }

    // random.shuffle of 0 .. n-1 (CPython 3.11 and 3.12).
    std::vector<int> permutation(int n) {
        std::vector<int> order(n);
        for (int i = 0; i < n; ++i) order[i] = i;
        for (int i = n - 1; i > 0; --i) std::swap(order[i], order[below(static_cast<std::uint32_t>(i) + 1)]);
        return order;
    }

    // random._randbelow: numbers of as many bits as the bound, until one is below it.
    std::uint32_t below(std::uint32_t bound) {
        int bits = 0;
        while (bound >> bits) ++bits;
        std::uint32_t value;
        do {
            value = static_cast<std::uint32_t>(engine_()) >> (32 - bits);
        } while (value >= bound);
        return value;
    }

    // numpy.random.rand: 53 bits from two words.
    double uniform() {
        double high = static_cast<double>(static_cast<std::uint32_t>(engine_()) >> 5);
        double low = static_cast<double>(static_cast<std::uint32_t>(engine_()) >> 6);
        return (high * 67108864.0 + low) / 9007199254740992.0;
    }

  private:
    std::mt19937 engine_;
};

}  // namespace kpg::smac
