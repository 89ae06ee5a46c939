// Tiles of a product, summed in vector registers: kTileRows rows of up to kTileVecs registers.
//
// The arithmetic is a template parameter: Fp32, or Bf16, where a lane holds two bfloat16 neighbours along K and a
// multiplication adds both products to a float32. Packed along K in pairs, the same tiles serve both.
#pragma once

namespace kpg::KPG_ISA {

#if KPG_LANES == 16 || defined(__aarch64__)
constexpr int kTileRows = 8;  // 8 x 3 sums of 32 registers
#else
constexpr int kTileRows = 4;  // 4 x 3 of 16
#endif
constexpr int kTileVecs = 3;

struct Fp32 {
    static constexpr int kPack = 1;
    KPG_INLINE Vec multiply_add(Vec sum, Vec a, Vec b) { return sum + a * b; }
};

struct Bf16 {
    static constexpr int kPack = 2;
    KPG_INLINE Vec multiply_add(Vec sum, Vec a, Vec b) {
#ifdef KPG_BF16_DOT
        return reinterpret_cast<Vec>(_mm512_dpbf16_ps(reinterpret_cast<__m512>(sum), reinterpret_cast<__m512bh>(a),
                                                      reinterpret_cast<__m512bh>(b)));
#else
        UVec a_bits = reinterpret_cast<UVec>(a), b_bits = reinterpret_cast<UVec>(b);
        sum += reinterpret_cast<Vec>(a_bits << 16) * reinterpret_cast<Vec>(b_bits << 16);
        return sum + reinterpret_cast<Vec>(a_bits & 0xffff0000u) * reinterpret_cast<Vec>(b_bits & 0xffff0000u);
#endif
    }
};

constexpr std::int64_t round_up(std::int64_t a, std::int64_t unit) { return (a + unit - 1) / unit * unit; }
constexpr std::int64_t vectors(std::int64_t columns) { return (columns + kLanes - 1) / kLanes; }

// What a tile's sums are added to, and what becomes of them. Sums start from zero and meet what they are added to at
// the end: starting from a large number would round every small product to its last place.
struct Epilogue {
    const float* row = nullptr;  // a bias, the same for every row; not together with add
    bool add = false;            // what C holds
    bool relu = false;
};

// C[Rows, Vecs registers] from A and a packed panel of depth `depth` (in packs). A's element (i, k) is a[i * stride + k]
// or, where kStrip, a[k * kTileRows + i].
template <class P, int Rows, int Vecs, bool Strip>
KPG_INLINE void tile(std::int64_t depth, const float* a, std::int64_t a_stride, const float* b, float* c,
                     std::int64_t c_stride, const Epilogue& how) {
    Vec sum[Rows][Vecs] = {};
#pragma GCC unroll 2
    for (std::int64_t k = 0; k < depth; ++k) {
        Vec row[Vecs];
#pragma GCC unroll 3
        for (int j = 0; j < Vecs; ++j) row[j] = load(b + j * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < Rows; ++i) {
            Vec value = splat(Strip ? a[i] : a[i * a_stride]);
#pragma GCC unroll 3
            for (int j = 0; j < Vecs; ++j) sum[i][j] = P::multiply_add(sum[i][j], value, row[j]);
        }
        b += Vecs * kLanes;
        a += Strip ? kTileRows : 1;
    }
#pragma GCC unroll 8
    for (int i = 0; i < Rows; ++i) {
#pragma GCC unroll 3
        for (int j = 0; j < Vecs; ++j) {
            float* to = c + i * c_stride + j * kLanes;
            Vec total = sum[i][j];
            if (how.add) total += load(to);
            if (how.row) total += load(how.row + j * kLanes);
            store(to, how.relu ? at_least(total, 0.0f) : total);
        }
    }
}

template <class P, int Rows, bool Strip>
KPG_INLINE void tile_of_rows(int vecs, std::int64_t depth, const float* a, std::int64_t a_stride, const float* b,
                             float* c, std::int64_t c_stride, const Epilogue& how) {
    if (vecs == 3) return tile<P, Rows, 3, Strip>(depth, a, a_stride, b, c, c_stride, how);
    if (vecs == 2) return tile<P, Rows, 2, Strip>(depth, a, a_stride, b, c, c_stride, how);
    tile<P, Rows, 1, Strip>(depth, a, a_stride, b, c, c_stride, how);
}

template <class P>
static void tile_of(std::int64_t rows, int vecs, std::int64_t depth, const float* a, std::int64_t a_stride,
                    const float* b, float* c, std::int64_t c_stride, const Epilogue& how) {
    switch (rows) {
#if KPG_LANES == 16 || defined(__aarch64__)
        case 8: return tile_of_rows<P, 8, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        case 7: return tile_of_rows<P, 7, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        case 6: return tile_of_rows<P, 6, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        case 5: return tile_of_rows<P, 5, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
#endif
        case 4: return tile_of_rows<P, 4, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        case 3: return tile_of_rows<P, 3, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        case 2: return tile_of_rows<P, 2, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
        default: return tile_of_rows<P, 1, false>(vecs, depth, a, a_stride, b, c, c_stride, how);
    }
}

// How a product is made of tiles; AMX has another such class (gemm_amx.hpp).
template <class P>
struct RegisterTiles {
    static constexpr int kRows = kTileRows, kVecs = kTileVecs;
    static constexpr bool kStripsOfRows = false;  // a strip is [pack][kTileRows]

    // How many registers wide the next panel is when `left` remain: never a single one beside a full one if avoidable.
    KPG_INLINE int panel_width(std::int64_t left) { return left == 4 ? 2 : left < kVecs ? int(left) : kVecs; }

    // C[rows <= kRows, vecs registers] from `depth` packs of A's rows and of a packed panel.
    void operator()(std::int64_t rows, int vecs, std::int64_t depth, const float* a, std::int64_t a_stride, const float* b,
                    float* c, std::int64_t c_stride, const Epilogue& how) const {
        tile_of<P>(rows, vecs, depth, a, a_stride, b, c, c_stride, how);
    }

    // The same where A is a strip of kTileRows columns.
    void strip(std::int64_t, int vecs, std::int64_t depth, const float* strip, std::int64_t, const float* b, float* c,
               std::int64_t c_stride, const Epilogue& how) const {
        tile_of_rows<P, kTileRows, true>(vecs, depth, strip, 0, b, c, c_stride, how);
    }
};

}  // namespace kpg::KPG_ISA
