// The matrix products everything here is made of: register tiles, packing, and a blocked product on one thread.
//
// A product C[M, N] += A[M, K] B[K, N] runs over tiles of kTileRows x up to kTileVecs registers. B is packed once into
// panels as wide as a tile, so that a panel's rows follow each other; A is read in place (row by row) or, for the
// gradient of weights where K counts samples, packed into strips of kTileRows columns. C is summed in registers over
// kDepth of K, so that a panel (kDepth x tile width) stays in the first-level cache.
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
constexpr std::int64_t kDepth = 256;

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

// How many registers wide the next panel is when `left` remain: never a single one beside a full one if avoidable.
KPG_INLINE int panel_width(std::int64_t left) { return left == 4 ? 2 : left < kTileVecs ? int(left) : kTileVecs; }

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

// Floats of a packed B with `depth` packs along K and `columns` columns.
KPG_INLINE std::int64_t packed_size(std::int64_t depth, std::int64_t columns) {
    return depth * vectors(columns) * kLanes;
}

template <class F>
KPG_INLINE void for_each_panel(std::int64_t vecs, F&& visit) {
    for (std::int64_t first = 0; first < vecs;) {
        int width = panel_width(vecs - first);
        visit(first, width);
        first += width;
    }
}

// A matrix to be packed: element (k, j) of `rows` x `columns` is data[k * row_stride + j * column_stride], less the same
// of another matrix where there is one (then column_stride is 1).
struct Source {
    const float* data;
    std::int64_t rows, columns, row_stride, column_stride;
    const float* subtrahend = nullptr;

    Source less(const float* other) const {
        Source s = *this;
        s.subtrahend = other;
        return s;
    }

    KPG_INLINE Vec lanes_of(const Source& s, std::int64_t k, std::int64_t j) {
        if (k >= s.rows) return Vec{};
        const std::int64_t at = k * s.row_stride + j * s.column_stride;
        const std::int64_t n = s.columns - j < kLanes ? s.columns - j : kLanes;
        if (s.subtrahend) return load_first(s.data + at, n) - load_first(s.subtrahend + at, n);
        if (s.column_stride == 1) return load_first(s.data + at, n);
        Vec v{};
        for (std::int64_t lane = 0; lane < n; ++lane) v[lane] = s.data[at + lane * s.column_stride];
        return v;
    }
};

// Pack k = k_first.. of the register `vec` of columns: 1 row a lane (Fp32) or two rows as bfloat16 (Bf16).
template <class P>
KPG_INLINE Vec packed_lanes(const Source& s, std::int64_t pack, std::int64_t column) {
    if constexpr (P::kPack == 1) return Source::lanes_of(s, pack, column);
    UVec low = to_bf16(Source::lanes_of(s, 2 * pack, column));
    UVec high = to_bf16(Source::lanes_of(s, 2 * pack + 1, column));
    return reinterpret_cast<Vec>(low | (high << 16));
}

// Rows in the form in which a tile reads A: as they are (Fp32), or as bfloat16 in `buffer` (Bf16).
struct Rows {
    const float* data;
    std::int64_t stride;  // in packs
};

template <class P>
KPG_INLINE Rows rows_for_tiles(const float* a, std::int64_t stride, std::int64_t rows, std::int64_t columns,
                               float* buffer) {
    if constexpr (P::kPack == 1) return {a, stride};
    std::int64_t packs = (columns + 1) / 2;
    for (std::int64_t i = 0; i < rows; ++i) {
        auto* to = reinterpret_cast<std::uint16_t*>(buffer + i * packs);
        for (std::int64_t j = 0; j < columns; j += kLanes) {
            HalfVec half = to_halves(load_first(a + i * stride + j, columns - j));
            if (columns - j >= kLanes) {
                *reinterpret_cast<LooseHalfVec*>(to + j) = half;
            } else {
                std::memcpy(to + j, &half, 4 * ((columns - j + 1) / 2));
            }
        }
    }
    return {buffer, packs};
}

// The registers `vec` of a transposed source (row_stride 1): a column's numbers follow each other in memory, so they are
// read in order and written a lane apart, few enough at a time to stay in the first-level cache.
template <class P>
static void pack_transposed(const Source& source, std::int64_t first_column, int width, float* to) {
    constexpr std::int64_t kPart = 64;
    const std::int64_t columns = std::min<std::int64_t>(kLanes, source.columns - first_column);
    float buffer[kPart];
    for (std::int64_t k = 0; k < source.rows; k += kPart) {
        const std::int64_t part = std::min(kPart, source.rows - k), packs = (part + P::kPack - 1) / P::kPack;
        float* at = to + k / P::kPack * width * kLanes;
        for (std::int64_t i = 0; columns < kLanes && i < packs; ++i) store(at + i * width * kLanes, Vec{});
        for (std::int64_t lane = 0; lane < columns; ++lane) {
            const float* from = source.data + (first_column + lane) * source.column_stride + k;
            from = rows_for_tiles<P>(from, 0, 1, part, buffer).data;
            for (std::int64_t i = 0; i < packs; ++i) at[i * width * kLanes + lane] = from[i];
        }
    }
}

// Write a source into the columns that begin at register `first_vec` of a packed B of `vecs` registers, from pack `at`
// on; `capacity` is the depth the panels are laid out for.
template <class P>
static void pack_panels(const Source& source, std::int64_t vecs, std::int64_t first_vec, std::int64_t capacity,
                        std::int64_t at, float* packed) {
    std::int64_t packs = (source.rows + P::kPack - 1) / P::kPack, last_vec = first_vec + vectors(source.columns);
    for_each_panel(vecs, [&](std::int64_t first, int width) {
        for (std::int64_t vec = first < first_vec ? first_vec : first; vec < first + width && vec < last_vec; ++vec) {
            float* to = packed + first * kLanes * capacity + (at * width + vec - first) * kLanes;
            if (source.row_stride == 1 && source.column_stride != 1 && !source.subtrahend) {
                pack_transposed<P>(source, (vec - first_vec) * kLanes, width, to);
                continue;
            }
            for (std::int64_t k = 0; k < packs; ++k) {
                store(to + k * width * kLanes, packed_lanes<P>(source, k, (vec - first_vec) * kLanes));
            }
        }
    });
}

// Write `source` (rows are samples) as strips of kTileRows columns: [strip][capacity][kTileRows], from pack `at` on.
template <class P>
static void pack_strips(const Source& source, std::int64_t capacity, std::int64_t at, float* strips) {
    std::int64_t packs = (source.rows + P::kPack - 1) / P::kPack;
    for (std::int64_t column = 0; column < source.columns; column += kLanes) {
        for (std::int64_t k = 0; k < packs; ++k) {
            Vec v = packed_lanes<P>(source, k, column);
            std::int64_t left = round_up(source.columns - column, kTileRows);
            for (int part = 0; part < kLanes && part < left; part += kTileRows) {
                float* to = strips + ((column + part) * capacity + (at + k) * kTileRows);
                std::memcpy(to, reinterpret_cast<const float*>(&v) + part, kTileRows * sizeof(float));
            }
        }
    }
}

// C[m, columns] = A B on this thread; B packed in panels of full depth, C of exactly `columns` columns (or padded to
// whole registers where `padded`, which saves the detour of the last panel).
template <class P>
static void product(std::int64_t m, std::int64_t depth, Rows a, const float* packed, std::int64_t columns, bool padded,
                    float* c, std::int64_t c_stride, const Epilogue& how) {
    for_each_panel(vectors(columns), [&](std::int64_t first, int width) {
        std::int64_t left = columns - first * kLanes;
        bool detour = !padded && left < width * kLanes;
        float buffer[kTileRows * kTileVecs * kLanes];
        const float* panel = packed + first * kLanes * depth;
        for (std::int64_t k = 0; k < depth || k == 0; k += kDepth) {
            std::int64_t part = depth - k < kDepth ? depth - k : kDepth;
            Epilogue now = how;
            now.add = how.add || k > 0;
            now.row = how.row && k == 0 ? how.row + first * kLanes : nullptr;
            now.relu = how.relu && k + part == depth;
            for (std::int64_t i = 0; i < m; i += kTileRows) {
                std::int64_t rows = m - i < kTileRows ? m - i : kTileRows;
                float* to = c + i * c_stride + first * kLanes;
                const float* from = a.data + i * a.stride + k;
                if (!detour) {
                    tile_of<P>(rows, width, part, from, a.stride, panel + k * width * kLanes, to, c_stride, now);
                    continue;
                }
                for (std::int64_t r = 0; now.add && r < rows; ++r) {
                    std::memcpy(buffer + r * width * kLanes, to + r * c_stride, left * sizeof(float));
                }
                tile_of<P>(rows, width, part, from, a.stride, panel + k * width * kLanes, buffer, width * kLanes, now);
                for (std::int64_t r = 0; r < rows; ++r) {
                    std::memcpy(to + r * c_stride, buffer + r * width * kLanes, left * sizeof(float));
                }
            }
        }
    });
}

// C[columns of strips, vecs registers] = (C +) strips^T B over `depth` packs; C's rows and columns are padded to tiles.
template <class P>
static void add_transposed_product(std::int64_t depth, const float* strips, std::int64_t strip_columns,
                                   const float* packed, std::int64_t vecs, std::int64_t capacity, float* c,
                                   std::int64_t c_stride, bool add = true) {
    Epilogue how;
    how.add = add;
    for_each_panel(vecs, [&](std::int64_t first, int width) {
        for (std::int64_t i = 0; i < strip_columns; i += kTileRows) {
            tile_of_rows<P, kTileRows, true>(width, depth, strips + i * capacity, 0, packed + first * kLanes * capacity,
                                             c + i * c_stride + first * kLanes, c_stride, how);
        }
    });
}

}  // namespace kpg::KPG_ISA
