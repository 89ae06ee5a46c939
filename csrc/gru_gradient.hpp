// The GRU over time, backward: a thread takes a block of rows through the steps from the last to the first. Gradients
// of weights are products over samples; a block collects the samples of a few steps before it adds such a product.
//
// Rows without any gradient, and steps of a block before any has reached them, are left out: a lookahead level may take
// its gradient from a part of a minibatch, and then pays for that part.
#pragma once

namespace kpg::KPG_ISA {

// Rows are cut into groups by their number alone, each worked on by one thread in a fixed order, so that sums over
// rows do not depend on the number of threads. A power of two shares evenly among the usual numbers of threads.
KPG_INLINE std::int64_t gru_groups(std::int64_t rows) {
    std::int64_t groups = rows >= 4 ? 2 : 1;
    while (groups < 16 && rows / (2 * groups) >= 24) groups *= 2;
    return groups;
}

template <class P>
class GruBackward {
  public:
    GruBackward(const Gru& gru, const GruGradient& grad)
        : gru(gru),
          grad(grad),
          s(gru, P::kPack),
          groups(gru_groups(gru.rows)),
          group_rows((gru.rows + groups - 1) / groups),
          block(std::min(kGruRows, round_up(group_rows, kTileRows))),
          window(grad.window > 0 ? grad.window : gru.steps),
          depth_gates(3 * s.padded / P::kPack),
          in_strips(round_up(gru.in, kTileRows)),
          hidden_strips(round_up(gru.hidden, kTileRows)),
          transposed_floats(depth_gates * (s.padded + vectors(gru.in) * kLanes)),
          sum_floats((in_strips + hidden_strips) * 3 * s.padded + 4 * s.padded) {}

    void run() {
        const double flops = 12.0 * gru.sets * gru.steps * gru.rows * (gru.in + gru.hidden) * gru.hidden;
        float* const transposed = workspace(0, gru.sets * (transposed_floats + groups * sum_floats));
        float* const sums = transposed + gru.sets * transposed_floats;
#pragma omp parallel num_threads(threads_for(flops))
        {
#pragma omp for schedule(static)
            for (std::int64_t g = 0; g < gru.sets; ++g) pack_transposed(g, transposed + g * transposed_floats);
#pragma omp for schedule(dynamic) collapse(2)
            for (std::int64_t g = 0; g < gru.sets; ++g) {
                for (std::int64_t group = 0; group < groups; ++group) {
                    sweep_group(g, group, transposed + g * transposed_floats, sums + (g * groups + group) * sum_floats);
                }
            }
#pragma omp for schedule(static)
            for (std::int64_t g = 0; g < gru.sets; ++g) reduce(g, sums + g * groups * sum_floats);
        }
    }

  private:
    const Gru& gru;
    const GruGradient& grad;
    const GruSizes s;
    const std::int64_t groups, group_rows, block, window, depth_gates, in_strips, hidden_strips, transposed_floats,
        sum_floats;

    // A thread's scratch for one block of rows.
    struct Scratch {
        float *dh, *previous, *d, *bias, *halves, *x_strips, *h_strips, *input_panels, *recurrent_panels, *inputs;
        std::int64_t filled = 0;  // packs of samples collected and not yet multiplied
    };

    // Up to kGruRows rows that are worked on together, in ascending order.
    struct Block {
        std::int64_t rows[kGruRows];
        std::int64_t count = 0;

        bool consecutive() const { return rows[count - 1] - rows[0] == count - 1; }
    };

    Scratch scratch() const {
        const std::int64_t sizes[] = {kGruRows * s.padded,     kGruRows * s.padded, kGruRows * 4 * s.padded,
                                      4 * s.padded,            kGruRows * 4 * s.padded, kDepth * in_strips,
                                      kDepth * hidden_strips,  kDepth * 3 * s.padded,   kDepth * 3 * s.padded,
                                      kGruRows * gru.in};
        std::int64_t total = 0;
        for (std::int64_t size : sizes) total += size;
        float* at = workspace(1, total);
        Scratch to{};
        float** parts[] = {&to.dh,       &to.previous, &to.d,            &to.bias,           &to.halves,
                           &to.x_strips, &to.h_strips, &to.input_panels, &to.recurrent_panels, &to.inputs};
        for (int i = 0; i < 10; ++i) {
            *parts[i] = at;
            at += sizes[i];
        }
        return to;
    }

    // [W_h^T | W_x^T] with rows in the order of the sections; rows of padding are zero.
    void pack_transposed(std::int64_t g, float* to) const {
        const std::int64_t hidden = gru.hidden;
        std::fill_n(to, transposed_floats, 0.0f);
        for (int section = 0; section < 3; ++section) {
            const std::int64_t at = section * s.padded / P::kPack;
            pack_panels<P>({gru.w_h[g] + kRecurrentGates[section] * hidden, hidden, hidden, 1, 3 * hidden}, s.vecs, 0,
                           depth_gates, at, to);
            pack_panels<P>({gru.w_x[g] + kInputGates[section] * hidden, hidden, gru.in, 1, 3 * hidden}, vectors(gru.in),
                           0, depth_gates, at, to + depth_gates * s.padded);
        }
    }

    void sweep_group(std::int64_t g, std::int64_t group, const float* transposed, float* sums) const {
        std::fill_n(sums, sum_floats, 0.0f);
        const std::int64_t end = std::min((group + 1) * group_rows, gru.rows);
        Block rows;
        for (std::int64_t row = group * group_rows; row < end; ++row) {
            if (has_gradient(g, row)) {
                rows.rows[rows.count++] = row;
            } else {
                clear(g, row);
            }
            if (rows.count == block || (row + 1 == end && rows.count > 0)) {
                sweep_block(g, rows, transposed, sums);
                rows.count = 0;
            }
        }
    }

    std::int64_t sample(std::int64_t g, std::int64_t t, std::int64_t row) const {
        return (g * gru.steps + t) * gru.rows + row;
    }

    bool any(std::int64_t sample) const { return any_nonzero(grad.dh + sample * gru.hidden, gru.hidden); }

    bool has_gradient(std::int64_t g, std::int64_t row) const {
        for (std::int64_t t = gru.steps - 1; t >= 0; --t) {
            if (any(sample(g, t, row))) return true;
        }
        return false;
    }

    void clear(std::int64_t g, std::int64_t row) const {
        std::fill_n(grad.dh0 + (g * gru.rows + row) * gru.hidden, gru.hidden, 0.0f);
        for (std::int64_t t = 0; grad.dx && t < gru.steps; ++t) std::fill_n(dx(g, t, row), gru.in, 0.0f);
    }

    float* dx(std::int64_t g, std::int64_t t, std::int64_t row) const { return grad.dx + sample(g, t, row) * gru.in; }

    void sweep_block(std::int64_t g, const Block& rows, const float* transposed, float* sums) const {
        Scratch to = scratch();
        std::fill_n(to.dh, rows.count * s.padded, 0.0f);
        bool reached = false;  // whether anything of later steps is in to.dh
        for (std::int64_t t = gru.steps - 1; t >= 0; --t) {
            for (std::int64_t i = 0; i < rows.count && !reached; ++i) reached = any(sample(g, t, rows.rows[i]));
            if (reached) {
                back_through_step(g, t, rows, transposed, to, sums);
            } else {
                for (std::int64_t i = 0; grad.dx && i < rows.count; ++i) std::fill_n(dx(g, t, rows.rows[i]), gru.in, 0.0f);
            }
            if (t % window == 0 && t > 0) {
                std::fill_n(to.dh, rows.count * s.padded, 0.0f);
                reached = false;
            }
        }
        multiply_samples(to, sums);
        for (std::int64_t i = 0; i < rows.count; ++i) {
            std::memcpy(grad.dh0 + (g * gru.rows + rows.rows[i]) * gru.hidden, to.dh + i * s.padded,
                        gru.hidden * sizeof(float));
        }
    }

    void back_through_step(std::int64_t g, std::int64_t t, const Block& rows, const float* transposed, Scratch& to,
                           float* sums) const {
        const std::int64_t padded = s.padded, count = rows.count, packs = (count + P::kPack - 1) / P::kPack;
        const bool* reset = gru.reset + g * gru.reset_set_stride + t * gru.rows;
        std::fill_n(to.bias, 4 * padded, 0.0f);
        for (std::int64_t i = 0; i < count; ++i) {
            const std::int64_t row = rows.rows[i];
            const float* previous = t > 0 ? grad.h + sample(g, t - 1, row) * gru.hidden : gru.h0[g] + row * gru.hidden;
            gates(sample(g, t, row), reset[row] ? nullptr : previous, to, i);
        }
        add_bias(to.bias, sums + (in_strips + hidden_strips) * 3 * padded);
        Rows d = rows_for_tiles<P>(to.d, 4 * padded, count, 4 * padded, to.halves);
        Epilogue onto;
        onto.add = true;
        product<P>(count, depth_gates, {d.data + padded / P::kPack, d.stride}, transposed, padded, true, to.dh, padded, onto);
        if (grad.dx) gradient_of_input(g, t, rows, d, transposed + depth_gates * padded, to);
        for (std::int64_t i = 0; i < count; ++i) {
            if (reset[rows.rows[i]]) std::fill_n(to.dh + i * padded, padded, 0.0f);
        }
        if (to.filled + packs > kDepth) multiply_samples(to, sums);
        collect_samples(inputs_of(g, t, rows, to), count, to);
        to.filled += packs;
    }

    void gradient_of_input(std::int64_t g, std::int64_t t, const Block& rows, Rows d, const float* weights,
                           const Scratch& to) const {
        const bool direct = rows.consecutive();
        float* out = direct ? dx(g, t, rows.rows[0]) : to.inputs;
        product<P>(rows.count, depth_gates, d, weights, gru.in, false, out, gru.in, Epilogue{});
        for (std::int64_t i = 0; i < rows.count && !direct; ++i) {
            std::memcpy(dx(g, t, rows.rows[i]), out + i * gru.in, gru.in * sizeof(float));
        }
    }

    // The inputs of a step's rows, one after another.
    const float* inputs_of(std::int64_t g, std::int64_t t, const Block& rows, const Scratch& to) const {
        const float* x = gru.x[g] + t * gru.rows * gru.in;
        if (rows.consecutive()) return x + rows.rows[0] * gru.in;
        for (std::int64_t i = 0; i < rows.count; ++i) {
            std::memcpy(to.inputs + i * gru.in, x + rows.rows[i] * gru.in, gru.in * sizeof(float));
        }
        return to.inputs;
    }

    // In two stages, rows and then steps: a sum of thousands one by one would lose digits.
    void add_bias(const float* of_step, float* sums) const {
        for (std::int64_t v = 0; v < 4 * s.padded; v += kLanes) store(sums + v, load(sums + v) + load(of_step + v));
    }

    // Through one row's gates: d gets the gradients of the four sections, dh what reaches the state before by z alone.
    void gates(std::int64_t at, const float* previous, const Scratch& to, std::int64_t i) const {
        const std::int64_t hidden = gru.hidden, padded = s.padded;
        const float* saved = grad.gates + at * 4 * hidden;
        float *dh = to.dh + i * padded, *h = to.previous + i * padded, *d = to.d + i * 4 * padded;
        for (std::int64_t v = 0; v < hidden; v += kLanes) {
            const std::int64_t left = hidden - v;
            Vec r = load_first(saved + v, left), z = load_first(saved + hidden + v, left);
            Vec n = load_first(saved + 2 * hidden + v, left), hn = load_first(saved + 3 * hidden + v, left);
            Vec before = previous ? load_first(previous + v, left) : Vec{};
            Vec dnext = load(dh + v) + load_first(grad.dh + at * hidden + v, left);
            Vec dn = dnext * (1.0f - z) * (1.0f - n * n);
            Vec dr = dn * hn * r * (1.0f - r);
            Vec dz = dnext * (before - n) * z * (1.0f - z);
            Vec dhn = dn * r;
            store(h + v, before);
            store(dh + v, dnext * z);
            const Vec sections[4] = {dn, dr, dz, dhn};
            for (int section = 0; section < 4; ++section) {
                store(d + section * padded + v, sections[section]);
                float* sum = to.bias + section * padded + v;
                store(sum, load(sum) + sections[section]);
            }
        }
    }

    void collect_samples(const float* x, std::int64_t rows, const Scratch& to) const {
        const std::int64_t three = 3 * s.padded;
        pack_strips<P>({x, rows, gru.in, gru.in, 1}, kDepth, to.filled, to.x_strips);
        pack_strips<P>({to.previous, rows, gru.hidden, s.padded, 1}, kDepth, to.filled, to.h_strips);
        pack_panels<P>({to.d, rows, three, 4 * s.padded, 1}, 3 * s.vecs, 0, kDepth, to.filled, to.input_panels);
        pack_panels<P>({to.d + s.padded, rows, three, 4 * s.padded, 1}, 3 * s.vecs, 0, kDepth, to.filled,
                       to.recurrent_panels);
    }

    void multiply_samples(Scratch& to, float* sums) const {
        const std::int64_t three = 3 * s.padded;
        add_transposed_product<P>(to.filled, to.x_strips, in_strips, to.input_panels, 3 * s.vecs, kDepth, sums, three);
        add_transposed_product<P>(to.filled, to.h_strips, hidden_strips, to.recurrent_panels, 3 * s.vecs, kDepth,
                                  sums + in_strips * three, three);
        to.filled = 0;
    }

    // Add the groups' sums [rows, 3 sections] into a gradient [rows, 3 hidden] whose gates are ordered r, z, n.
    void reduce_matrix(const float* sums, std::int64_t rows, const int (&gates_of)[3], float* to) const {
        for (std::int64_t row = 0; row < rows; ++row) {
            for (int section = 0; section < 3; ++section) {
                const float* from = sums + (3 * row + section) * s.padded;
                reduce_row(from, to + (3 * row + gates_of[section]) * gru.hidden);
            }
        }
    }

    void reduce_row(const float* from, float* to) const {
        for (std::int64_t v = 0; v < gru.hidden; v += kLanes) {
            Vec sum = load(from + v);
            for (std::int64_t group = 1; group < groups; ++group) sum += load(from + group * sum_floats + v);
            store_first(to + v, sum, gru.hidden - v);
        }
    }

    void reduce(std::int64_t g, const float* sums) const {
        const std::int64_t three = 3 * gru.hidden;
        const float* recurrent = sums + in_strips * 3 * s.padded;
        const float* bias = recurrent + hidden_strips * 3 * s.padded;
        reduce_matrix(sums, gru.in, kInputGates, grad.dw_x + g * gru.in * three);
        reduce_matrix(recurrent, gru.hidden, kRecurrentGates, grad.dw_h + g * gru.hidden * three);
        reduce_matrix(bias, 1, kInputGates, grad.db_x + g * three);
        reduce_row(bias + 3 * s.padded, grad.db_n + g * gru.hidden);
    }
};

static void gru_backward(const Gru& gru, const GruGradient& grad) {
    gru.bf16 ? GruBackward<Bf16>(gru, grad).run() : GruBackward<Fp32>(gru, grad).run();
}

}  // namespace kpg::KPG_ISA
