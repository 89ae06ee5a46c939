// y = act(x w + b) and its gradients for G sets of parameters.
#pragma once

namespace kpg::KPG_ISA {

constexpr std::int64_t kRowBlock = 64;
constexpr std::int64_t kSummedAtOnce = 16;  // a bias' gradient is summed in stages, or thousands of rows cost digits

KPG_INLINE void relu(const float* sums, std::int64_t count, float* y) {
    for (std::int64_t i = 0; i < count; i += kLanes) {
        store_first(y + i, at_least(load_first(sums + i, count - i), 0.0f), count - i);
    }
}

template <class P>
static void linear_forward_as(const Linear& l, const LinearOutputs& out) {
    const std::int64_t depth = (l.in + P::kPack - 1) / P::kPack, vecs = vectors(l.out);
    const std::int64_t panel_floats = packed_size(depth, l.out), set_floats = panel_floats + vecs * kLanes;
    const std::int64_t blocks = (l.rows + kRowBlock - 1) / kRowBlock;
    float* const packed = workspace(0, l.sets * set_floats);
#pragma omp parallel num_threads(threads_for(2.0 * l.sets * l.rows * l.in * l.out))
    {
#pragma omp for schedule(static)
        for (std::int64_t g = 0; g < l.sets; ++g) {
            float* to = packed + g * set_floats;
            pack_panels<P>({l.w[g], l.in, l.out, l.out, 1}, vecs, 0, depth, 0, to);
            for (std::int64_t v = 0; v < vecs; ++v) {
                Vec bias = l.b ? load_first(l.b[g] + v * kLanes, l.out - v * kLanes) : Vec{};
                store(to + panel_floats + v * kLanes, bias);
            }
        }
        float* const buffer = workspace(1, kRowBlock * depth);
#pragma omp for schedule(dynamic) collapse(2)
        for (std::int64_t g = 0; g < l.sets; ++g) {
            for (std::int64_t block = 0; block < blocks; ++block) {
                std::int64_t first = block * kRowBlock, rows = std::min(kRowBlock, l.rows - first);
                const float* x = l.x[g] + first * l.x_row_stride;
                Epilogue how;
                how.row = packed + g * set_floats + panel_floats;
                how.relu = l.relu && !out.sums;
                const std::int64_t at = (g * l.rows + first) * l.out;
                product<P>(rows, depth, rows_for_tiles<P>(x, l.x_row_stride, rows, l.in, buffer),
                           packed + g * set_floats, l.out, false, (out.sums ? out.sums : out.y) + at, l.out, how);
                if (out.sums) relu(out.sums + at, rows * l.out, out.y + at);
            }
        }
    }
}

// Rows are cut into parts by their number alone, each summed by one thread in order, so that the weight gradient does
// not depend on the number of threads.
struct Parts {
    std::int64_t count, rows;

    explicit Parts(std::int64_t total) {
        std::int64_t wanted = std::min<std::int64_t>(std::max<std::int64_t>(total / 512, 1), 16);
        rows = round_up((total + wanted - 1) / wanted, kDepth);
        count = (total + rows - 1) / rows;
    }
};

template <class P>
struct LinearBackward {
    const Linear& l;
    const LinearGradient& grad;
    const Parts parts{l.rows};
    const std::int64_t in_padded = round_up(l.in, kTileRows), out_padded = vectors(l.out) * kLanes;
    const std::int64_t depth_out = (l.out + P::kPack - 1) / P::kPack, depth_rows = kDepth;
    const std::int64_t transposed_floats = grad.dx ? packed_size(depth_out, l.in) : 0;
    const std::int64_t part_floats = (in_padded + 1) * out_padded;  // the last row is the bias'

    // Rows of a chunk that have a gradient; a lookahead level may take its own from a part of a minibatch.
    struct Chunk {
        std::int64_t rows[kDepth];
        std::int64_t count = 0, size;

        bool whole() const { return count == size; }
    };

    void find_rows(std::int64_t at, Chunk& chunk) const {
        for (std::int64_t i = 0; i < chunk.size; ++i) {
            if (any_nonzero(grad.dy + (at + i) * l.out, l.out)) chunk.rows[chunk.count++] = i;
        }
    }

    // dz = dy where the activation let through, zeros in the padding; adds its column sums to db.
    void mask_rows(std::int64_t at, const Chunk& chunk, float* dz, float* db) const {
        for (std::int64_t column = 0; column < l.out; column += kLanes) {
            for (std::int64_t some = 0; some < chunk.count; some += kSummedAtOnce) {
                Vec sum{};
                for (std::int64_t i = some; i < std::min(chunk.count, some + kSummedAtOnce); ++i) {
                    const std::int64_t from = (at + chunk.rows[i]) * l.out + column;
                    Vec v = load_first(grad.dy + from, l.out - column);
                    if (l.relu) v = load_first(grad.y + from, l.out - column) > 0 ? v : Vec{};
                    sum += v;
                    store(dz + i * out_padded + column, v);
                }
                store(db + column, load(db + column) + sum);
            }
        }
    }

    void part(std::int64_t g, std::int64_t p, const float* transposed, float* partial) const {
        const std::int64_t first = p * parts.rows, last = std::min(first + parts.rows, l.rows);
        float* dz = workspace(1, kDepth * (3 * out_padded + 2 * in_padded));
        float* panels = dz + kDepth * out_padded;
        float* halves = panels + kDepth * out_padded;
        float* strips = halves + kDepth * out_padded;
        float* gathered = strips + kDepth * in_padded;
        std::fill_n(partial, part_floats, 0.0f);
        for (std::int64_t at = first; at < last; at += kDepth) {
            Chunk chunk{};
            chunk.size = std::min(kDepth, last - at);
            find_rows(g * l.rows + at, chunk);
            const std::int64_t rows = chunk.count, packs = (rows + P::kPack - 1) / P::kPack;
            mask_rows(g * l.rows + at, chunk, dz, partial + in_padded * out_padded);
            pack_panels<P>({dz, rows, out_padded, out_padded, 1}, vectors(l.out), 0, depth_rows, 0, panels);
            pack_strips<P>(inputs_of(g, at, chunk, gathered), depth_rows, 0, strips);
            add_transposed_product<P>(packs, strips, in_padded, panels, vectors(l.out), depth_rows, partial, out_padded);
            if (!grad.dx) continue;
            float* dx = grad.dx + (g * l.rows + at) * l.in;
            product<P>(rows, depth_out, rows_for_tiles<P>(dz, out_padded, rows, l.out, halves), transposed, l.in, false,
                       chunk.whole() ? dx : gathered, l.in, Epilogue{});
            if (!chunk.whole()) scatter(chunk, gathered, dx);
        }
    }

    Source inputs_of(std::int64_t g, std::int64_t at, const Chunk& chunk, float* gathered) const {
        const float* x = l.x[g] + at * l.x_row_stride;
        if (chunk.whole()) return {x, chunk.count, l.in, l.x_row_stride, 1};
        for (std::int64_t i = 0; i < chunk.count; ++i) {
            std::memcpy(gathered + i * l.in, x + chunk.rows[i] * l.x_row_stride, l.in * sizeof(float));
        }
        return {gathered, chunk.count, l.in, l.in, 1};
    }

    void scatter(const Chunk& chunk, const float* gathered, float* dx) const {
        std::fill_n(dx, chunk.size * l.in, 0.0f);
        for (std::int64_t i = 0; i < chunk.count; ++i) {
            std::memcpy(dx + chunk.rows[i] * l.in, gathered + i * l.in, l.in * sizeof(float));
        }
    }

    void reduce(std::int64_t g, std::int64_t row, const float* partials) const {
        float* to = row < l.in ? grad.dw + (g * l.in + row) * l.out : grad.db + g * l.out;
        const float* from = partials + (row < l.in ? row : in_padded) * out_padded;
        for (std::int64_t column = 0; column < l.out; column += kLanes) {
            Vec sum = load(from + column);
            for (std::int64_t p = 1; p < parts.count; ++p) sum += load(from + p * part_floats + column);
            store_first(to + column, sum, l.out - column);
        }
    }

    void run() const {
        float* const transposed = workspace(0, l.sets * (transposed_floats + parts.count * part_floats));
        float* const partials = transposed + l.sets * transposed_floats;
        const double flops = (grad.dx ? 4.0 : 2.0) * l.sets * l.rows * l.in * l.out;
#pragma omp parallel num_threads(threads_for(flops))
        {
#pragma omp for schedule(static)
            for (std::int64_t g = 0; g < (grad.dx ? l.sets : 0); ++g) {
                pack_panels<P>({l.w[g], l.out, l.in, 1, l.out}, vectors(l.in), 0, depth_out, 0,
                               transposed + g * transposed_floats);
            }
#pragma omp for schedule(dynamic) collapse(2)
            for (std::int64_t g = 0; g < l.sets; ++g) {
                for (std::int64_t p = 0; p < parts.count; ++p) {
                    part(g, p, transposed + g * transposed_floats, partials + (g * parts.count + p) * part_floats);
                }
            }
#pragma omp for schedule(static) collapse(2)
            for (std::int64_t g = 0; g < l.sets; ++g) {
                for (std::int64_t row = 0; row < l.in + (grad.db ? 1 : 0); ++row) {
                    reduce(g, row, partials + g * parts.count * part_floats);
                }
            }
        }
    }
};

static void linear_forward(const Linear& l, const LinearOutputs& out) {
    l.bf16 ? linear_forward_as<Bf16>(l, out) : linear_forward_as<Fp32>(l, out);
}

static void linear_backward(const Linear& l, const LinearGradient& grad) {
    l.bf16 ? LinearBackward<Bf16>{l, grad}.run() : LinearBackward<Fp32>{l, grad}.run();
}

}  // namespace kpg::KPG_ISA
