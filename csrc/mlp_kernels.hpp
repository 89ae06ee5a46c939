// Perceptrons of three layers, G sets of parameters at once: a thread takes a block of rows through all the layers, so
// that nothing waits between them. The products of the middle layer, most of the work, may have bfloat16 factors; those
// of the outer layers, whose inputs and outputs are observations, actions and values, are float32.
#pragma once

namespace kpg::KPG_ISA {

// A layer's weights, or their transpose, packed for products on their left, and its bias in whole registers.
struct PackedLayer {
    std::int64_t depth, columns, floats;

    template <class P>
    static PackedLayer of(std::int64_t in, std::int64_t out) {
        std::int64_t depth = (in + P::kPack - 1) / P::kPack;
        return {depth, out, packed_size(depth, out) + vectors(out) * kLanes};
    }

    float* bias(float* packed) const { return packed + packed_size(depth, columns); }
};

template <class P>
static void pack_layer(const PackedLayer& layer, const Source& w, const float* b, float* packed) {
    pack_panels<P>(w, vectors(layer.columns), 0, layer.depth, 0, packed);
    for (std::int64_t v = 0; b && v < layer.columns; v += kLanes) {
        store(layer.bias(packed) + v, load_first(b + v, layer.columns - v));
    }
}

// Zero `delta` where the activation was zero.
KPG_INLINE void through_relu(const float* activation, std::int64_t count, float* delta) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        Vec d = load_first(delta + i, count - i);
        store_first(delta + i, load_first(activation + i, count - i) > 0 ? d : Vec{}, count - i);
    }
}

// Blocks of rows: as large as the second-level cache likes them, and at least one a thread.
struct RowBlocks {
    std::int64_t rows, size, count;

    RowBlocks(const Mlp& m, int threads) : rows(m.rows) {
        std::int64_t wanted = (threads + m.sets - 1) / m.sets;
        size = std::min(round_up((m.rows + wanted - 1) / wanted, kTileRows), round_up(kRowBlock, kTileRows));
        count = (m.rows + size - 1) / size;
    }
    std::int64_t first(std::int64_t block) const { return block * size; }
    std::int64_t of(std::int64_t block) const { return std::min(size, rows - block * size); }
};

template <class P>
static void mlp_forward_as(const Mlp& m, const MlpActivations& out) {
    const PackedLayer l1 = PackedLayer::of<Fp32>(m.in, m.hidden), l2 = PackedLayer::of<P>(m.hidden, m.hidden),
                      l3 = PackedLayer::of<Fp32>(m.hidden, m.out);
    const std::int64_t set_floats = l1.floats + l2.floats + l3.floats;
    const int threads = threads_for(2.0 * m.sets * m.rows * m.hidden * (m.in + m.hidden + m.out));
    const RowBlocks blocks(m, threads);
    float* const packed = workspace(0, m.sets * set_floats);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < m.sets; ++g) {
            for (int layer = 0; layer < 3; ++layer) {
                float* to = packed + g * set_floats;
                if (layer == 0) pack_layer<P>(l2, {m.w2[g], m.hidden, m.hidden, m.hidden, 1}, m.b2[g], to + l1.floats);
                if (layer == 1) pack_layer<Fp32>(l1, {m.w1[g], m.in, m.hidden, m.hidden, 1}, m.b1[g], to);
                if (layer == 2) {
                    pack_layer<Fp32>(l3, {m.w3[g], m.hidden, m.out, m.out, 1}, m.b3[g], to + l1.floats + l2.floats);
                }
            }
        }
        float* const buffer = workspace(1, blocks.size * m.hidden);
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < m.sets; ++g) {
            for (std::int64_t block = 0; block < blocks.count; ++block) {
                const std::int64_t first = blocks.first(block), rows = blocks.of(block), at = g * m.rows + first;
                float *h1 = out.h1 + at * m.hidden, *h2 = out.h2 + at * m.hidden;
                float *p1 = packed + g * set_floats, *p2 = p1 + l1.floats, *p3 = p2 + l2.floats;
                Epilogue how;
                how.relu = true, how.row = l1.bias(p1);
                product<Fp32>(rows, l1.depth, {m.x[g] + first * m.x_row_stride, m.x_row_stride}, p1, m.hidden, false, h1,
                              m.hidden, how);
                how.row = l2.bias(p2);
                product<P>(rows, l2.depth, rows_for_tiles<P>(h1, m.hidden, rows, m.hidden, buffer), p2, m.hidden, false,
                           h2, m.hidden, how);
                how.relu = false, how.row = l3.bias(p3);
                product<Fp32>(rows, l3.depth, {h2, m.hidden}, p3, m.out, false, out.y + at * m.out, m.out, how);
            }
        }
    }
}

template <class P>
static void mlp_deltas_as(const Mlp& m, const MlpDeltas& d) {
    const PackedLayer l2 = PackedLayer::of<P>(m.hidden, m.hidden), l3 = PackedLayer::of<Fp32>(m.out, m.hidden);
    const std::int64_t set_floats = l2.floats + l3.floats;
    const int threads = threads_for(2.0 * m.sets * m.rows * m.hidden * (m.hidden + m.out));
    const RowBlocks blocks(m, threads);
    float* const packed = workspace(0, m.sets * set_floats);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < m.sets; ++g) {
            float* to = packed + g * set_floats;
            pack_layer<P>(l2, {m.w2[g], m.hidden, m.hidden, 1, m.hidden}, nullptr, to);
            pack_layer<Fp32>(l3, {m.w3[g], m.out, m.hidden, 1, m.out}, nullptr, to + l2.floats);
        }
        float* const buffer = workspace(1, blocks.size * m.hidden);
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < m.sets; ++g) {
            for (std::int64_t block = 0; block < blocks.count; ++block) {
                const std::int64_t rows = blocks.of(block), at = g * m.rows + blocks.first(block);
                float *d1 = d.d1 + at * m.hidden, *d2 = d.d2 + at * m.hidden;
                const float* p2 = packed + g * set_floats;
                product<Fp32>(rows, l3.depth, {d.dy + at * m.out, m.out}, p2 + l2.floats, m.hidden, false, d2, m.hidden,
                              Epilogue{});
                through_relu(d.h2 + at * m.hidden, rows * m.hidden, d2);
                product<P>(rows, l2.depth, rows_for_tiles<P>(d2, m.hidden, rows, m.hidden, buffer), p2, m.hidden, false,
                           d1, m.hidden, Epilogue{});
                through_relu(d.h1 + at * m.hidden, rows * m.hidden, d1);
            }
        }
    }
}

// dw [in, out] = x^T delta and db = the sum of delta's rows, for one set: threads share dw's rows, the panels are packed
// once for all, and no result depends on the number of threads.
template <class P>
struct WeightGradient {
    // so that a panel of samples fits the first-level cache
    static constexpr std::int64_t kPacks = 128, kSampleDepth = kPacks * P::kPack;

    std::int64_t rows, in, out;
    const float *x, *delta;
    std::int64_t x_row_stride;
    float *dw, *db;
    const std::int64_t vecs = vectors(out), out_padded = vecs * kLanes, strips = (in + kTileRows - 1) / kTileRows;
    const std::int64_t chunks = (rows + kSampleDepth - 1) / kSampleDepth, chunk_floats = packed_size(kPacks, out);

    std::int64_t rows_of(std::int64_t chunk) const { return std::min(kSampleDepth, rows - chunk * kSampleDepth); }

    void pack(std::int64_t chunk, float* panels) const {
        pack_panels<P>({delta + chunk * kSampleDepth * out, rows_of(chunk), out, out, 1}, vecs, 0, kPacks, 0,
                       panels + chunk * chunk_floats);
    }

    // Sums in stages, or thousands of rows cost digits.
    void sum_bias() const {
        for (std::int64_t column = 0; column < out; column += kLanes) {
            Vec total{};
            for (std::int64_t some = 0; some < rows; some += kSummedAtOnce) {
                Vec sum{};
                for (std::int64_t r = some; r < std::min(rows, some + kSummedAtOnce); ++r) {
                    sum += load_first(delta + r * out + column, out - column);
                }
                total += sum;
            }
            store_first(db + column, total, out - column);
        }
    }

    // Rows of dw from strip `begin` to `end`.
    void part(std::int64_t begin, std::int64_t end, const float* panels) const {
        const std::int64_t first = begin * kTileRows, last = std::min(end * kTileRows, in);
        if (first >= last) return;
        const std::int64_t columns = last - first, padded = (end - begin) * kTileRows;
        float* const packed = workspace(1, padded * kPacks + padded * out_padded);
        const bool direct = columns == padded && out == out_padded;
        float* const sums = direct ? dw + first * out : packed + padded * kPacks;
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            pack_strips<P>({x + chunk * kSampleDepth * x_row_stride + first, rows_of(chunk), columns, x_row_stride, 1},
                           kPacks, 0, packed);
            add_transposed_product<P>((rows_of(chunk) + P::kPack - 1) / P::kPack, packed, padded,
                                      panels + chunk * chunk_floats, vecs, kPacks, sums, out_padded, chunk > 0);
        }
        for (std::int64_t i = 0; !direct && i < columns; ++i) {
            std::memcpy(dw + (first + i) * out, sums + i * out_padded, out * sizeof(float));
        }
    }
};

template <class P>
static void weight_gradient(const WeightGradient<P>& gradient, float* panels) {
#pragma omp for schedule(static) nowait
    for (std::int64_t chunk = 0; chunk < gradient.chunks; ++chunk) gradient.pack(chunk, panels);
#pragma omp single
    gradient.sum_bias();
    const std::int64_t parts = 2 * ((gradient.strips + 31) / 32);
#pragma omp for schedule(dynamic)
    for (std::int64_t part = 0; part < parts; ++part) {
        gradient.part(gradient.strips * part / parts, gradient.strips * (part + 1) / parts, panels);
    }
}

template <class P>
static void mlp_gradient_as(const Mlp& m, const MlpGradient& d) {
    const int threads = threads_for(2.0 * m.sets * m.rows * m.hidden * (m.in + m.hidden + m.out));
    const std::int64_t panel_floats = packed_size(round_up(m.rows, kDepth), std::max(m.hidden, m.out));
    float* const panels = workspace(0, panel_floats);
#pragma omp parallel num_threads(threads)
    for (std::int64_t g = 0; g < m.sets; ++g) {
        const std::int64_t at = g * m.rows;
        weight_gradient(WeightGradient<Fp32>{m.rows, m.in, m.hidden, m.x[g], d.d1 + at * m.hidden, m.x_row_stride,
                                             d.w1[g], d.b1[g]}, panels);
        weight_gradient(WeightGradient<P>{m.rows, m.hidden, m.hidden, d.h1 + at * m.hidden, d.d2 + at * m.hidden,
                                          m.hidden, d.w2[g], d.b2[g]}, panels);
        weight_gradient(WeightGradient<Fp32>{m.rows, m.hidden, m.out, d.h2 + at * m.hidden, d.dy + at * m.out, m.hidden,
                                             d.w3[g], d.b3[g]}, panels);
    }
}

static void mlp_forward(const Mlp& m, const MlpActivations& out) {
    m.bf16 ? mlp_forward_as<Bf16>(m, out) : mlp_forward_as<Fp32>(m, out);
}

static void mlp_deltas(const Mlp& m, const MlpDeltas& d) { m.bf16 ? mlp_deltas_as<Bf16>(m, d) : mlp_deltas_as<Fp32>(m, d); }

static void mlp_gradient(const Mlp& m, const MlpGradient& d) {
    m.bf16 ? mlp_gradient_as<Bf16>(m, d) : mlp_gradient_as<Fp32>(m, d);
}

}  // namespace kpg::KPG_ISA
