// y(theta_k) - y(theta) of a layer, from its input at theta and the input's difference; see gru_difference.hpp.
#pragma once

namespace kpg::KPG_ISA {

// max(a + d, 0) - max(a, 0), in the place of d.
KPG_INLINE void relu_change(const float* sums, std::int64_t count, float* change) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        Vec a = load_first(sums + i, count - i), d = load_first(change + i, count - i);
        // where neither crosses zero the difference is d itself: it must not be rounded to a's last place
        Vec both = a > 0.0f ? d : Vec{};
        Vec crossed = at_least(a + d, 0.0f) - at_least(a, 0.0f);
        store_first(change + i, (a > 0.0f) == (a + d > 0.0f) ? both : crossed, count - i);
    }
}

template <class P>
static void linear_difference_as(const LinearDifference& d) {
    const Linear& now = d.now;
    const std::int64_t depth = (now.in + P::kPack - 1) / P::kPack, vecs = vectors(now.out);
    const std::int64_t panel_floats = packed_size(depth, now.out), set_floats = 2 * panel_floats + vecs * kLanes;
    const std::int64_t blocks = (now.rows + kRowBlock - 1) / kRowBlock;
    float* const packed = workspace(0, now.sets * set_floats);
#pragma omp parallel num_threads(threads_for(4.0 * now.sets * now.rows * now.in * now.out))
    {
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < now.sets; ++g) {
            float *change = packed + g * set_floats, *bias = change + 2 * panel_floats;
            const Source next{d.w[g], now.in, now.out, now.out, 1};
            pack_panels<P>(next.less(now.w[g]), vecs, 0, depth, 0, change);
            pack_panels<P>(next, vecs, 0, depth, 0, change + panel_floats);
            for (std::int64_t v = 0; v < vecs * kLanes; v += kLanes) {
                const std::int64_t left = now.out - v;
                store(bias + v, now.b ? load_first(d.b[g] + v, left) - load_first(now.b[g] + v, left) : Vec{});
            }
        }
        float* const halves = workspace(1, kRowBlock * depth);
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < now.sets; ++g) {
            for (std::int64_t block = 0; block < blocks; ++block) {
                const std::int64_t first = block * kRowBlock, rows = std::min(kRowBlock, now.rows - first);
                const std::int64_t out_at = (g * now.rows + first) * now.out;
                const float* change = packed + g * set_floats;
                Epilogue how;
                how.row = change + 2 * panel_floats;
                product<P>(rows, depth,
                           rows_for_tiles<P>(now.x[g] + first * now.x_row_stride, now.x_row_stride, rows, now.in, halves),
                           change, now.out, false, d.dy + out_at, now.out, how);
                if (d.dx) {
                    Epilogue onto;
                    onto.add = true;
                    product<P>(rows, depth, rows_for_tiles<P>(d.dx[g] + first * now.in, now.in, rows, now.in, halves),
                               change + panel_floats, now.out, false, d.dy + out_at, now.out, onto);
                }
                if (d.sums) relu_change(d.sums + out_at, rows * now.out, d.dy + out_at);
            }
        }
    }
}

static void linear_difference(const LinearDifference& d) {
    d.now.bf16 ? linear_difference_as<Bf16>(d) : linear_difference_as<Fp32>(d);
}

}  // namespace kpg::KPG_ISA
