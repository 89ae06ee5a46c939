// How the hidden states change when the parameters do: h(theta_k) - h(theta), from what the pass at theta kept.
//
// Subtracting two passes in low precision would leave their rounding errors; here the difference itself is carried:
//     pre(theta_k) - pre(theta) = x (W_k - W) + dx W_k,    x the input at theta, dx its difference
// and the gates' differences follow in closed form from their values at theta,
//     sigmoid(a + d) - sigmoid(a) = s (1 - s) E / (1 + s E),          s = sigmoid(a), E = e^d - 1
//     tanh(a + d)    - tanh(a)    = (1 - t^2) E / (2 + (1 + t) E),    t = tanh(a),    E = e^2d - 1
// so every rounding is relative to the difference, and its products may run in bfloat16.
#pragma once

namespace kpg::KPG_ISA {

// Weights of a difference: W_k - W for the values at theta, and W_k for their differences.
struct DifferenceWeights {
    float *change_in, *next_in, *change_hidden, *next_hidden, *bias;

    DifferenceWeights(float* memory, const GruSizes& s)
        : change_in(memory),
          next_in(change_in + s.depth_in * 3 * s.padded),
          change_hidden(next_in + s.depth_in * 3 * s.padded),
          next_hidden(change_hidden + s.depth_hidden * 3 * s.padded),
          bias(next_hidden + s.depth_hidden * 3 * s.padded) {}

    static std::int64_t floats(const GruSizes& s) { return 2 * s.packed_floats(); }

    template <class P>
    void pack(const GruDifference& d, const GruSizes& s, std::int64_t g) const {
        const Gru& now = d.now;
        const std::int64_t hidden = now.hidden;
        for (int section = 0; section < 3; ++section) {
            const std::int64_t in_at = kInputGates[section] * hidden, hidden_at = kRecurrentGates[section] * hidden;
            const Source in{d.w_x[g] + in_at, now.in, hidden, 3 * hidden, 1};
            const Source recurrent{d.w_h[g] + hidden_at, hidden, hidden, 3 * hidden, 1};
            pack_panels<P>(in.less(now.w_x[g] + in_at), 3 * s.vecs, section * s.vecs, s.depth_in, 0, change_in);
            pack_panels<P>(in, 3 * s.vecs, section * s.vecs, s.depth_in, 0, next_in);
            pack_panels<P>(recurrent.less(now.w_h[g] + hidden_at), 3 * s.vecs, section * s.vecs, s.depth_hidden, 0,
                           change_hidden);
            pack_panels<P>(recurrent, 3 * s.vecs, section * s.vecs, s.depth_hidden, 0, next_hidden);
        }
        for (std::int64_t v = 0; v < s.padded; v += kLanes) {
            for (int section = 0; section < 4; ++section) {
                const bool last = section == 3;
                const float* next = last ? d.b_n[g] : d.b_x[g] + kInputGates[section] * hidden;
                const float* before = last ? now.b_n[g] : now.b_x[g] + kInputGates[section] * hidden;
                store(bias + section * s.padded + v,
                      load_first(next + v, hidden - v) - load_first(before + v, hidden - v));
            }
        }
    }
};

// Where a saturated gate is pulled far back, 0 / 0: what it came from is lost, and nothing is said to change.
constexpr float kLost = 1e-15f;

KPG_INLINE Vec sigmoid_change(Vec s, Vec d) {
    const Vec e = expm1(at_most(d, 80.0f));
    return s * (1.0f - s) * e / at_least(1.0f + s * e, kLost);
}

KPG_INLINE Vec tanh_change(Vec t, Vec d) {
    const Vec e = expm1(2.0f * at_most(d, 40.0f));
    return (1.0f - t * t) * e / at_least(2.0f + (1.0f + t) * e, kLost);
}

// One row: `pre` holds the sections' changes; `change` the state's, which is updated; `before` the state at theta.
KPG_INLINE void gru_gate_changes(const float* pre, const float* gates, const float* before, std::int64_t hidden,
                                 std::int64_t padded, float* change, float* out) {
    for (std::int64_t v = 0; v < hidden; v += kLanes) {
        const std::int64_t left = hidden - v;
        Vec r = load_first(gates + v, left), z = load_first(gates + hidden + v, left);
        Vec n = load_first(gates + 2 * hidden + v, left), hn = load_first(gates + 3 * hidden + v, left);
        Vec h = load(before + v), dh = load(change + v), dhn = load(pre + 3 * padded + v);
        Vec dr = sigmoid_change(r, load(pre + padded + v)), dz = sigmoid_change(z, load(pre + 2 * padded + v));
        Vec dn = tanh_change(n, load(pre + v) + (r + dr) * dhn + dr * hn);
        Vec next = dn + (z + dz) * (dh - dn) + dz * (h - n);
        store(change + v, next);
        store_first(out + v, next, left);
    }
}

template <class P>
static void gru_difference_block(const GruDifference& d, const GruSizes& s, const DifferenceWeights& weights,
                                 std::int64_t g, std::int64_t first, std::int64_t rows) {
    const Gru& now = d.now;
    const std::int64_t hidden = now.hidden, padded = s.padded;
    float* change = workspace(1, kGruRows * (6 * padded + s.depth_in + s.depth_hidden));
    float* before = change + kGruRows * padded;
    float* pre = before + kGruRows * padded;
    float* halves_in = pre + kGruRows * 4 * padded;
    float* halves_hidden = halves_in + kGruRows * s.depth_in;
    std::fill_n(change, rows * padded, 0.0f);
    std::fill_n(before, rows * padded, 0.0f);
    Epilogue from_bias, onto;
    from_bias.row = weights.bias;
    onto.add = true;
    for (std::int64_t t = 0; t < now.steps; ++t) {
        const std::int64_t at = t * now.rows + first, out_at = g * now.steps * now.rows + at;
        const bool* reset = now.reset + g * now.reset_set_stride + at;
        for (std::int64_t i = 0; i < rows; ++i) {
            const float* h = t > 0 ? d.h + (out_at - now.rows + i) * hidden : now.h0[g] + (first + i) * hidden;
            if (reset[i]) {
                std::fill_n(change + i * padded, padded, 0.0f);
                std::fill_n(before + i * padded, padded, 0.0f);
            } else {
                std::memcpy(before + i * padded, h, hidden * sizeof(float));
            }
            std::memcpy(pre + (4 * i + 3) * padded, weights.bias + 3 * padded, padded * sizeof(float));
        }
        const std::int64_t three = 3 * padded, four = 4 * padded;
        const auto in = [&](const float* x) { return rows_for_tiles<P>(x, now.in, rows, now.in, halves_in); };
        const auto state = [&](const float* h) { return rows_for_tiles<P>(h, padded, rows, hidden, halves_hidden); };
        product<P>(rows, s.depth_in, in(now.x[g] + at * now.in), weights.change_in, three, true, pre, four, from_bias);
        product<P>(rows, s.depth_in, in(d.dx[g] + at * now.in), weights.next_in, three, true, pre, four, onto);
        product<P>(rows, s.depth_hidden, state(before), weights.change_hidden, three, true, pre + padded, four, onto);
        product<P>(rows, s.depth_hidden, state(change), weights.next_hidden, three, true, pre + padded, four, onto);
        for (std::int64_t i = 0; i < rows; ++i) {
            gru_gate_changes(pre + i * four, d.gates + (out_at + i) * 4 * hidden, before + i * padded, hidden, padded,
                             change + i * padded, d.dh + (out_at + i) * hidden);
        }
    }
}

template <class P>
static void gru_difference_as(const GruDifference& d) {
    const Gru& now = d.now;
    const GruSizes s(now, P::kPack);
    const std::int64_t set_floats = DifferenceWeights::floats(s);
    const int threads = threads_for(12.0 * now.sets * now.steps * now.rows * (now.in + now.hidden) * now.hidden);
    const std::int64_t block = gru_block(now, threads), blocks = (now.rows + block - 1) / block;
    float* const packed = workspace(0, now.sets * set_floats);
#pragma omp parallel num_threads(threads)
    {
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < now.sets; ++g) DifferenceWeights(packed + g * set_floats, s).pack<P>(d, s, g);
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < now.sets; ++g) {
            for (std::int64_t b = 0; b < blocks; ++b) {
                gru_difference_block<P>(d, s, DifferenceWeights(packed + g * set_floats, s), g, b * block,
                                        std::min(block, now.rows - b * block));
            }
        }
    }
}

static void gru_difference(const GruDifference& d) {
    d.now.bf16 ? gru_difference_as<Bf16>(d) : gru_difference_as<Fp32>(d);
}

}  // namespace kpg::KPG_ISA
