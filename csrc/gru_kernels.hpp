// The GRU over time, forward. A thread takes a block of rows through all the steps: rows are independent, so nothing
// waits, and the block's states and the weights stay in its caches.
//
// Pre-activations of a row lie in four sections of whole registers, in the order n, r, z, hn: then the input product
// fills sections 0..2 and the recurrent product sections 1..3, each a single product of three sections.
#pragma once

namespace kpg::KPG_ISA {

constexpr std::int64_t kGruRows = 48;

// Where gate `section` of the three that a product fills starts in a weight matrix, whose order is r, z, n.
constexpr int kInputGates[3] = {2, 0, 1};
constexpr int kRecurrentGates[3] = {0, 1, 2};

struct GruSizes {
    std::int64_t vecs, padded, depth_in, depth_hidden;

    GruSizes(const Gru& gru, int pack)
        : vecs(vectors(gru.hidden)),
          padded(vecs * kLanes),
          depth_in((gru.in + pack - 1) / pack),
          depth_hidden((gru.hidden + pack - 1) / pack) {}

    std::int64_t packed_floats() const { return (depth_in + depth_hidden) * 3 * padded + 4 * padded; }
};

// Weights packed for the forward pass: input product, recurrent product, and what the four sections start from.
struct GruWeights {
    float *input, *recurrent, *bias;

    GruWeights(float* memory, const GruSizes& s)
        : input(memory), recurrent(input + s.depth_in * 3 * s.padded), bias(recurrent + s.depth_hidden * 3 * s.padded) {}

    template <class P>
    void pack(const Gru& gru, const GruSizes& s, std::int64_t g) const {
        const std::int64_t hidden = gru.hidden;
        for (int section = 0; section < 3; ++section) {
            pack_panels<P>({gru.w_x[g] + kInputGates[section] * hidden, gru.in, hidden, 3 * hidden, 1}, 3 * s.vecs,
                           section * s.vecs, s.depth_in, 0, input);
            pack_panels<P>({gru.w_h[g] + kRecurrentGates[section] * hidden, hidden, hidden, 3 * hidden, 1}, 3 * s.vecs,
                           section * s.vecs, s.depth_hidden, 0, recurrent);
        }
        for (std::int64_t v = 0; v < s.padded; v += kLanes) {
            for (int section = 0; section < 3; ++section) {
                store(bias + section * s.padded + v,
                      load_first(gru.b_x[g] + kInputGates[section] * hidden + v, hidden - v));
            }
            store(bias + 3 * s.padded + v, load_first(gru.b_n[g] + v, hidden - v));
        }
    }
};

// One row's gates from its pre-activations; updates its state and writes it out.
KPG_INLINE void gru_gates(const float* pre, std::int64_t hidden, std::int64_t padded, float* state, float* h,
                          float* gates) {
    for (std::int64_t v = 0; v < hidden; v += kLanes) {
        Vec r = sigmoid(load(pre + padded + v)), z = sigmoid(load(pre + 2 * padded + v));
        Vec hn = load(pre + 3 * padded + v);
        Vec n = tanh(load(pre + v) + r * hn);
        Vec next = n + z * (load(state + v) - n);
        store(state + v, next);
        store_first(h + v, next, hidden - v);
        if (!gates) continue;
        store_first(gates + v, r, hidden - v);
        store_first(gates + hidden + v, z, hidden - v);
        store_first(gates + 2 * hidden + v, n, hidden - v);
        store_first(gates + 3 * hidden + v, hn, hidden - v);
    }
}

template <class P>
static void gru_forward_block(const Gru& gru, const GruSizes& s, const GruWeights& weights, const GruOutputs& out,
                              std::int64_t g, std::int64_t first, std::int64_t rows) {
    const std::int64_t hidden = gru.hidden, padded = s.padded;
    float* state = workspace(1, kGruRows * (5 * padded + s.depth_in + s.depth_hidden));
    float* pre = state + kGruRows * padded;
    float* x_halves = pre + kGruRows * 4 * padded;
    float* state_halves = x_halves + kGruRows * s.depth_in;
    std::fill_n(state, rows * padded, 0.0f);
    for (std::int64_t i = 0; i < rows; ++i) {
        std::memcpy(state + i * padded, gru.h0[g] + (first + i) * hidden, hidden * sizeof(float));
    }
    Epilogue from_bias, onto;
    from_bias.row = weights.bias;
    onto.add = true;
    for (std::int64_t t = 0; t < gru.steps; ++t) {
        const std::int64_t at = t * gru.rows + first, out_at = g * gru.steps * gru.rows + at;
        const bool* reset = gru.reset + g * gru.reset_set_stride + at;
        for (std::int64_t i = 0; i < rows; ++i) {
            if (reset[i]) std::fill_n(state + i * padded, padded, 0.0f);
            std::memcpy(pre + (4 * i + 3) * padded, weights.bias + 3 * padded, padded * sizeof(float));
        }
        product<P>(rows, s.depth_in, rows_for_tiles<P>(gru.x[g] + at * gru.in, gru.in, rows, gru.in, x_halves),
                   weights.input, 3 * padded, true, pre, 4 * padded, from_bias);
        product<P>(rows, s.depth_hidden, rows_for_tiles<P>(state, padded, rows, hidden, state_halves),
                   weights.recurrent, 3 * padded, true, pre + padded, 4 * padded, onto);
        for (std::int64_t i = 0; i < rows; ++i) {
            gru_gates(pre + 4 * i * padded, hidden, padded, state + i * padded, out.h + (out_at + i) * hidden,
                      out.gates ? out.gates + (out_at + i) * 4 * hidden : nullptr);
        }
    }
}

// Rows of a block: as many as the caches like, but enough blocks for every thread; no result depends on it.
KPG_INLINE std::int64_t gru_block(const Gru& gru, int threads) {
    const std::int64_t share = (gru.rows * gru.sets + threads - 1) / threads;
    return std::min(kGruRows, std::max<std::int64_t>(round_up(share, kTileRows), kTileRows));
}

template <class P>
static void gru_forward_as(const Gru& gru, const GruOutputs& out) {
    const GruSizes s(gru, P::kPack);
    const int threads = threads_for(6.0 * gru.sets * gru.steps * gru.rows * (gru.in + gru.hidden) * gru.hidden);
    const std::int64_t block = gru_block(gru, threads), blocks = (gru.rows + block - 1) / block;
    float* const packed = workspace(0, gru.sets * s.packed_floats());
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < gru.sets; ++g) {
            GruWeights(packed + g * s.packed_floats(), s).pack<P>(gru, s, g);
        }
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < gru.sets; ++g) {
            for (std::int64_t b = 0; b < blocks; ++b) {
                gru_forward_block<P>(gru, s, GruWeights(packed + g * s.packed_floats(), s), out, g, b * block,
                                     std::min(block, gru.rows - b * block));
            }
        }
    }
}

static void gru_forward(const Gru& gru, const GruOutputs& out) {
    gru.bf16 ? gru_forward_as<Bf16>(gru, out) : gru_forward_as<Fp32>(gru, out);
}

}  // namespace kpg::KPG_ISA
