// What gemm_<isa>.cpp offer, one table each, and the choice among them at run time.
#pragma once
#include <cstdint>

#include "policy.hpp"

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

struct LinearOutputs {
    float* y;
    float* sums;  // what the ReLU was applied to, or null
};

// How y changes from `now` to the parameters w, b: dx [G, M, in] is the change of x (none: no change), sums what `now`'s
// ReLU was applied to (null: no activation); writes dy [G, M, out].
struct LinearDifference {
    Linear now;
    Sets w, b;
    const float* sums;
    Sets dx;
    float* dy;
};

// Gradients for dy [G, M, out]; y is read only for the ReLU's mask; dx [G, M, in] and db [G, out] may be null.
struct LinearGradient {
    const float* dy;
    const float* y;
    float* dx;
    float* dw;
    float* db;
};

// The same for results.
struct WritableSets {
    float* data = nullptr;
    std::int64_t stride = 0;

    float* operator[](std::int64_t set) const { return data + set * stride; }
};

// G independent perceptrons: h1 = relu(x w1 + b1), h2 = relu(h1 w2 + b2), y = h2 w3 + b3, with x [G, rows, in].
struct Mlp {
    std::int64_t sets, rows, in, hidden, out;
    Sets x;
    std::int64_t x_row_stride;
    Sets w1, b1, w2, b2, w3, b3;
    bool bf16;
};

struct MlpActivations {
    float *h1, *h2, *y;
};

// From dy to the gradients before the two ReLUs.
struct MlpDeltas {
    const float *h1, *h2, *dy;
    float *d1, *d2;
};

struct MlpGradient {
    const float *h1, *h2, *d1, *d2, *dy;
    WritableSets w1, b1, w2, b2, w3, b3;
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
    std::int64_t window;  // steps: no gradient passes from the first step of a window to the one before; 0: no windows
};

// How h changes from `now` to the parameters w_x .. b_n, given dx [G, T, R, in], and h and gates of the pass at `now`.
struct GruDifference {
    Gru now;
    Sets w_x, b_x, w_h, b_n, dx;
    const float *h, *gates;
    float* dh;
};

struct Kernels {
    void (*linear_forward)(const Linear&, const LinearOutputs&);
    void (*linear_backward)(const Linear&, const LinearGradient&);
    void (*mlp_forward)(const Mlp&, const MlpActivations&);
    void (*mlp_deltas)(const Mlp&, const MlpDeltas&);
    void (*mlp_gradient)(const Mlp&, const MlpGradient&);
    void (*gru_forward)(const Gru&, const GruOutputs&);
    void (*gru_backward)(const Gru&, const GruGradient&);
    void (*linear_difference)(const LinearDifference&);
    void (*gru_difference)(const GruDifference&);
    void (*log_prob_entropy)(const Logits&, const std::int32_t* action, float* log_prob, float* entropy);
    void (*log_prob_entropy_backward)(const Logits&, const std::int32_t* action, const PolicyGradient&);
    void (*log_prob_difference)(const Logits&, const float* dlogits, const std::int32_t* action, float* change);
    void (*sample)(const Logits&, const Draws&, std::int32_t* action, float* log_prob);
    void (*surrogate)(const Surrogate&, const SurrogateOutputs&);
};

extern const Kernels kernels_generic, kernels_avx2, kernels_avx512, kernels_avx512_bf16, kernels_amx,
    kernels_amx_emulated;

// The widest table this CPU supports, unless another was chosen from Python.
const Kernels& kernels();

// Aligned memory of the calling thread, kept from call to call and grown; what it held before is lost.
float* workspace(int slot, std::int64_t floats);

// Threads worth starting for this much arithmetic; as many as torch uses at most.
int threads_for(double flops);

}  // namespace kpg
