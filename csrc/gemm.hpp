// What gemm_<isa>.cpp offer, one table each, and the choice among them at run time.
#pragma once
#include <cstdint>

namespace kpg {

// One array for each parameter set, so many floats apart: sets are often columns of one flat [G, P].
struct Sets {
    const float* data = nullptr;
    std::int64_t stride = 0;

    const float* operator[](std::int64_t set) const { return data + set * stride; }
    explicit operator bool() const { return data != nullptr; }
};

// G independent layers y = act(x w + b): x [G, M, in], w [G, in, out], b [G, out] or none, y [G, M, out].
struct Linear {
    std::int64_t sets, rows, in, out;
    Sets x;
    std::int64_t x_row_stride;
    Sets w, b;
    bool relu, bf16;
};

// Gradients for dy [G, M, out]; y is read only for the ReLU's mask; dx [G, M, in] and db [G, out] may be null.
struct LinearGradient {
    const float* dy;
    const float* y;
    float* dx;
    float* dw;
    float* db;
};

// G independent GRUs over time: x [G, T, R, in], h0 [G, R, hidden], reset [G, T, R], w_x [G, in, 3 hidden],
// b_x [G, 3 hidden], w_h [G, hidden, 3 hidden], b_n [G, hidden]; gates in the order r, z, n.
struct Gru {
    std::int64_t sets, steps, rows, in, hidden;
    Sets x, h0, w_x, b_x, w_h, b_n;
    const bool* reset;
    std::int64_t reset_set_stride;
    bool bf16;
};

// What the backward pass reads: h [G, T, R, hidden], and gates [G, T, R, 4 hidden] as r, z, n, hn = h w_n + b_n.
struct GruOutputs {
    float* h;
    float* gates;  // null where no gradient is wanted
};

// Gradients for dh [G, T, R, hidden]; dx may be null, the others are contiguous and of their input's shape.
struct GruGradient {
    const float* dh;
    const float* h;
    const float* gates;
    float *dx, *dh0, *dw_x, *db_x, *dw_h, *db_n;
};

struct Kernels {
    void (*linear_forward)(const Linear&, float* y);
    void (*linear_backward)(const Linear&, const LinearGradient&);
    void (*gru_forward)(const Gru&, const GruOutputs&);
    void (*gru_backward)(const Gru&, const GruGradient&);
};

extern const Kernels kernels_generic, kernels_avx2, kernels_avx512, kernels_avx512_bf16;

// The widest table this CPU supports, unless another was chosen from Python.
const Kernels& kernels();

// Aligned memory of the calling thread, kept from call to call and grown; what it held before is lost.
float* workspace(int slot, std::int64_t floats);

// Threads worth starting for this much arithmetic; as many as torch uses at most.
int threads_for(double flops);

}  // namespace kpg
