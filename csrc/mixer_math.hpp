// QMIX's mixer on consecutive rows; mixer.cpp cuts rows among threads and calls it. Formulas in kpg_fast/kernels/mixer.
#pragma once
#include <cstdint>

namespace kpg {

// Sizes: agents N, rows R, hidden M. q-like arrays are [N, R], w1 [R, N, M], b1 and w2 [R, M].
struct Mixer {
    std::int64_t agents, rows, hidden;
    bool monotonic;
    const float *w1, *b1, *w2;
};

struct MixerGradient {
    const float* dq_tot;  // [R]
    float *dq, *dw1, *db1, *dw2;
};

// Each works on rows [begin, end); scratch is M floats of the calling thread.
struct MixerKernels {
    void (*mix)(const Mixer&, const float* q, const float* v, float* q_tot, std::int64_t begin, std::int64_t end,
                float* scratch);
    void (*backward)(const Mixer&, const float* q, const MixerGradient&, std::int64_t begin, std::int64_t end,
                     float* scratch);
    void (*one_live)(const Mixer&, const float* q_own, const float* q_others, const float* v, float* q_tot,
                     float* slope, std::int64_t begin, std::int64_t end, float* scratch);
};

// The widest version this machine runs.
MixerKernels mixer_kernels();

}  // namespace kpg
