// Tiles of a product of bfloat16 in AMX's tile registers: two by two of up to 16 rows x 16 floats are summed at once, so
// that four loads feed four multiplications. A panel's packs (pairs of rows of B) lie as the instruction wants them.
#pragma once

namespace kpg::KPG_ISA {

// What LDTILECFG reads: rows and bytes a row of each tile register.
struct alignas(64) TileShapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};

    void set(std::initializer_list<int> tiles, std::int64_t height) {
        for (int t : tiles) {
            rows[t] = static_cast<std::uint8_t>(height);
            row_bytes[t] = height > 0 ? 64 : 0;
        }
    }
};

}  // namespace kpg::KPG_ISA

#ifdef KPG_AMX_EMULATED
#include "amx_emulated.hpp"
#else
#include "amx_instructions.hpp"
#endif

namespace kpg::KPG_ISA {

class AmxTiles {
  public:
    static constexpr int kRows = 32, kVecs = 2;
    static constexpr bool kStripsOfRows = true;  // a strip is [column][pack], as A's rows are

    AmxTiles() = default;
    AmxTiles(const AmxTiles&) = delete;
    ~AmxTiles() {
        if (height > 0) TileRegisters::release();  // or every switch of threads would save them
    }

    KPG_INLINE int panel_width(std::int64_t left) { return left < kVecs ? int(left) : kVecs; }

    // C[rows <= kRows, vecs registers] from `depth` packs of A's rows and of a packed panel.
    void operator()(std::int64_t rows, int vecs, std::int64_t depth, const float* a, std::int64_t a_stride, const float* b,
                    float* c, std::int64_t c_stride, const Epilogue& how) {
        shape(rows);
        if (rows > kHeight) {
            vecs > 1 ? multiply<true, true>(rows, depth, a, a_stride, b, c, c_stride, how)
                     : multiply<true, false>(rows, depth, a, a_stride, b, c, c_stride, how);
        } else {
            vecs > 1 ? multiply<false, true>(rows, depth, a, a_stride, b, c, c_stride, how)
                     : multiply<false, false>(rows, depth, a, a_stride, b, c, c_stride, how);
        }
        for (std::int64_t i = 0; how.relu && i < rows; ++i) {
            for (float* to = c + i * c_stride; to < c + i * c_stride + vecs * kLanes; to += kLanes) {
                kpg::KPG_ISA::store(to, at_least(load(to), 0.0f));
            }
        }
    }

    void strip(std::int64_t rows, int vecs, std::int64_t depth, const float* strip, std::int64_t capacity, const float* b,
               float* c, std::int64_t c_stride, const Epilogue& how) {
        (*this)(rows, vecs, depth, strip, capacity, b, c, c_stride, how);
    }

    // Turned around: what was lane j of register i is lane i of register j.
    KPG_INLINE void transpose(Vec (&square)[kLanes]) {
#pragma GCC unroll 4
        for (int step = 1; step < kLanes; step *= 2) {
            IVec from_low{}, from_high{};  // of registers `step` apart, which change what stands `step` lanes apart
            for (int lane = 0; lane < kLanes; ++lane) {
                from_low[lane] = lane & step ? kLanes + lane - step : lane;
                from_high[lane] = lane & step ? kLanes + lane : lane + step;
            }
#pragma GCC unroll 16
            for (int i = 0; i < kLanes; ++i) {
                if (i & step) continue;
                const Vec low = square[i], high = square[i + step];
                square[i] = __builtin_shuffle(low, high, from_low);
                square[i + step] = __builtin_shuffle(low, high, from_high);
            }
        }
    }

  private:
    static constexpr std::int64_t kHeight = 16, kPacks = 16;
    // tile registers
    static constexpr int kSum = 0 /* .. 3: top left, top right, bottom left, bottom right */, kA = 4 /* and 5 */,
                         kB = 6 /* and 7 */;

    std::int64_t height = 0;  // rows that the registers are configured for

    void shape(std::int64_t rows) {
        if (rows == height) return;
        TileShapes shapes;
        shapes.set({kSum, kSum + 1, kA}, std::min(rows, kHeight));
        shapes.set({kSum + 2, kSum + 3, kA + 1}, std::max<std::int64_t>(rows - kHeight, 0));
        shapes.set({kB, kB + 1}, kPacks);
        TileRegisters::configure(shapes);
        height = rows;
    }

    // What a tile's sums are added to. Unlike a sum in registers, one here may begin with it: an instruction adds up 32
    // products before they meet the sum.
    template <int T>
    KPG_INLINE void begin(const float* c, std::int64_t c_stride, const Epilogue& how, std::int64_t column = 0) {
        if (how.add) return TileRegisters::load<T>(c + column, c_stride);
        if (how.row) return TileRegisters::load<T>(how.row + column, 0);
        TileRegisters::zero<T>();
    }

    // C = A B and what the sums begin with; the packs that do not fill a tile are copied among zeros.
    template <bool Tall, bool Wide>
    static void multiply(std::int64_t rows, std::int64_t depth, const float* a, std::int64_t a_stride, const float* b,
                         float* c, std::int64_t c_stride, const Epilogue& how) {
        constexpr std::int64_t b_stride = (Wide ? 2 : 1) * kLanes;
        float* const below = c + kHeight * c_stride;
        begin<kSum>(c, c_stride, how);
        if constexpr (Wide) begin<kSum + 1>(c, c_stride, how, kLanes);
        if constexpr (Tall) begin<kSum + 2>(below, c_stride, how);
        if constexpr (Tall && Wide) begin<kSum + 3>(below, c_stride, how, kLanes);
        std::int64_t k = 0;
        for (; k + kPacks <= depth; k += kPacks) add<Tall, Wide>(a + k, a_stride, b + k * b_stride);
        if (k < depth) {
            alignas(64) float a_rest[kRows * kPacks], b_rest[kPacks * b_stride] = {};
            for (std::int64_t i = 0; i < rows; ++i) {
                kpg::KPG_ISA::store(a_rest + i * kPacks, load_first(a + i * a_stride + k, depth - k));
            }
            std::memcpy(b_rest, b + k * b_stride, (depth - k) * b_stride * sizeof(float));
            add<Tall, Wide>(a_rest, kPacks, b_rest);
        }
        TileRegisters::store<kSum>(c, c_stride);
        if constexpr (Wide) TileRegisters::store<kSum + 1>(c + kLanes, c_stride);
        if constexpr (Tall) TileRegisters::store<kSum + 2>(below, c_stride);
        if constexpr (Tall && Wide) TileRegisters::store<kSum + 3>(below + kLanes, c_stride);
    }

    template <bool Tall, bool Wide>
    KPG_INLINE void add(const float* a, std::int64_t a_stride, const float* b) {
        constexpr std::int64_t b_stride = (Wide ? 2 : 1) * kLanes;
        TileRegisters::load<kB>(b, b_stride);
        TileRegisters::load<kA>(a, a_stride);
        TileRegisters::multiply_add<kSum, kA, kB>();
        if constexpr (Wide) {
            TileRegisters::load<kB + 1>(b + kLanes, b_stride);
            TileRegisters::multiply_add<kSum + 1, kA, kB + 1>();
        }
        if constexpr (!Tall) return;
        TileRegisters::load<kA + 1>(a + kHeight * a_stride, a_stride);
        TileRegisters::multiply_add<kSum + 2, kA + 1, kB>();
        if constexpr (Wide) TileRegisters::multiply_add<kSum + 3, kA + 1, kB + 1>();
    }
};

}  // namespace kpg::KPG_ISA
