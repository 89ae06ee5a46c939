// The instructions of amx_instructions.hpp in plain C++, after Intel's Software Developer's Manual, so that what is
// built of them is tested on machines without AMX. What the hardware answers with a fault ends the program.
#pragma once

namespace kpg::KPG_ISA {

class TileRegisters {
  public:
    static void configure(const TileShapes& shapes) {
        for (int t = 0; t < 8; ++t) {
            require(shapes.rows[t] <= 16 && shapes.row_bytes[t] <= 64 && !shapes.rows[t] == !shapes.row_bytes[t]);
            all[t] = {};
            all[t].rows = shapes.rows[t], all[t].columns = shapes.row_bytes[t] / 4;
        }
    }

    static void release() {
        for (Tile& tile : all) tile = {};
    }

    template <int T>
    static void zero() {
        std::memset(used(T).data, 0, sizeof(Tile::data));
    }

    template <int T>
    static void load(const float* from, std::int64_t stride) {
        zero<T>();
        for (int i = 0; i < all[T].rows; ++i) std::memcpy(all[T].data[i], from + i * stride, all[T].columns * 4);
    }

    template <int T>
    static void store(float* to, std::int64_t stride) {
        for (int i = 0; i < used(T).rows; ++i) std::memcpy(to + i * stride, all[T].data[i], all[T].columns * 4);
    }

    // The products of the even and of the odd halves are summed apart and meet at the end.
    template <int Sum, int A, int B>
    static void multiply_add() {
        const Tile &a = used(A), &b = used(B);
        Tile& sum = used(Sum);
        require(sum.rows == a.rows && a.columns == b.rows && sum.columns == b.columns);
        for (int i = 0; i < sum.rows; ++i) {
            Vec even{}, odd{};
            for (int k = 0; k < a.columns; ++k) {
                const std::uint32_t pair = bits(a.data[i][k]);
                const UVec pairs = reinterpret_cast<UVec>(kpg::KPG_ISA::load(b.data[k]));
                even += splat(number(pair << 16)) * reinterpret_cast<Vec>(pairs << 16);
                odd += splat(number(pair & 0xffff0000u)) * reinterpret_cast<Vec>(pairs & 0xffff0000u);
            }
            kpg::KPG_ISA::store(sum.data[i], kpg::KPG_ISA::load(sum.data[i]) + (even + odd));
        }
    }

  private:
    struct Tile {
        int rows, columns;
        float data[16][16];
    };

    static inline thread_local Tile all[8];

    static void require(bool held) {
        if (!held) std::abort();
    }

    static Tile& used(int t) {
        require(all[t].rows > 0);
        return all[t];
    }

    static std::uint32_t bits(float value) {
        std::uint32_t result;
        std::memcpy(&result, &value, sizeof(result));
        return result;
    }

    static float number(std::uint32_t bits) {
        float result;
        std::memcpy(&result, &bits, sizeof(result));
        return result;
    }
};

}  // namespace kpg::KPG_ISA
