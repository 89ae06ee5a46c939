// The matrix products everything here is made of: packing, and a blocked product on one thread.
//
// A product C[M, N] += A[M, K] B[K, N] runs over the tiles of Tiles<P>. B is packed once into panels as wide as a tile,
// so that a panel's rows follow each other; A is read in place (row by row) or, for the gradient of weights where K
// counts samples, packed into strips of columns. C is summed over kDepth of K, so that a panel (kDepth x tile width)
// stays in the first-level cache.
#pragma once

namespace kpg::KPG_ISA {

constexpr std::int64_t kDepth = 256;

template <class P>
struct TilesOf {
    using type = RegisterTiles<P>;
};
#ifdef KPG_AMX
template <>
struct TilesOf<Bf16> {
    using type = AmxTiles;
};
#endif
template <class P>
using Tiles = typename TilesOf<P>::type;

// Floats of a packed B with `depth` packs along K and `columns` columns.
KPG_INLINE std::int64_t packed_size(std::int64_t depth, std::int64_t columns) {
    return depth * vectors(columns) * kLanes;
}

template <class P, class F>
KPG_INLINE void for_each_panel(std::int64_t vecs, F&& visit) {
    for (std::int64_t first = 0; first < vecs;) {
        int width = Tiles<P>::panel_width(vecs - first);
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
    for_each_panel<P>(vecs, [&](std::int64_t first, int width) {
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

// Write `source` (rows are samples) as strips whose columns are rows of packs: [column][capacity], from pack `at` on.
template <class P>
static void pack_strips_of_rows(const Source& source, std::int64_t capacity, std::int64_t at, float* strips) {
    const std::int64_t packs = (source.rows + P::kPack - 1) / P::kPack;
    for (std::int64_t column = 0; column < source.columns; column += kLanes) {
        const std::int64_t left = std::min<std::int64_t>(round_up(source.columns - column, kTileRows), kLanes);
        for (std::int64_t k = 0; k < packs; k += kLanes) {
            Vec square[kLanes];
            for (int i = 0; i < kLanes; ++i) square[i] = packed_lanes<P>(source, k + i, column);
            Tiles<P>::transpose(square);
            for (int i = 0; i < left; ++i) store_first(strips + (column + i) * capacity + at + k, square[i], packs - k);
        }
    }
}

// Write `source` (rows are samples) as strips of kTileRows columns: [strip][capacity][kTileRows], from pack `at` on.
template <class P>
static void pack_strips(const Source& source, std::int64_t capacity, std::int64_t at, float* strips) {
    if constexpr (Tiles<P>::kStripsOfRows) return pack_strips_of_rows<P>(source, capacity, at, strips);
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
    Tiles<P> tile;
    for_each_panel<P>(vectors(columns), [&](std::int64_t first, int width) {
        std::int64_t left = columns - first * kLanes;
        bool detour = !padded && left < width * kLanes;
        float buffer[Tiles<P>::kRows * Tiles<P>::kVecs * kLanes];
        const float* panel = packed + first * kLanes * depth;
        for (std::int64_t k = 0; k < depth || k == 0; k += kDepth) {
            std::int64_t part = depth - k < kDepth ? depth - k : kDepth;
            Epilogue now = how;
            now.add = how.add || k > 0;
            now.row = how.row && k == 0 ? how.row + first * kLanes : nullptr;
            now.relu = how.relu && k + part == depth;
            for (std::int64_t i = 0; i < m; i += Tiles<P>::kRows) {
                const std::int64_t rows = std::min<std::int64_t>(m - i, Tiles<P>::kRows);
                float* to = c + i * c_stride + first * kLanes;
                const float* from = a.data + i * a.stride + k;
                if (!detour) {
                    tile(rows, width, part, from, a.stride, panel + k * width * kLanes, to, c_stride, now);
                    continue;
                }
                for (std::int64_t r = 0; now.add && r < rows; ++r) {
                    std::memcpy(buffer + r * width * kLanes, to + r * c_stride, left * sizeof(float));
                }
                tile(rows, width, part, from, a.stride, panel + k * width * kLanes, buffer, width * kLanes, now);
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
    Tiles<P> tile;
    Epilogue how;
    how.add = add;
    for_each_panel<P>(vecs, [&](std::int64_t first, int width) {
        for (std::int64_t i = 0; i < strip_columns; i += Tiles<P>::kRows) {
            const std::int64_t rows = std::min<std::int64_t>(strip_columns - i, Tiles<P>::kRows);
            tile.strip(rows, width, depth, strips + i * capacity, capacity, packed + first * kLanes * capacity,
                       c + i * c_stride + first * kLanes, c_stride, how);
        }
    });
}

}  // namespace kpg::KPG_ISA
