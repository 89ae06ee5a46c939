// The mixer is compiled once for every instruction set; the inner loops run over the hidden units.
#include "mixer_math.hpp"

#include <cstring>

namespace kpg {
namespace {

#define KPG_INLINE inline __attribute__((always_inline))

// e^x - 1 and e^x for x <= 0: 2^n (1 + p) with p = e^r - 1, r in +- ln(2)/2. The Taylor series to r^7 is good to 5e-9.
struct Exp {
    float minus_one, value;
};

KPG_INLINE Exp exp_of(float x) {
    x = x < -87.0f ? -87.0f : x;
    float n = (x * 1.44269504f + 12582912.0f) - 12582912.0f;  // to the nearest integer
    float r = x - n * 0.693359375f;                            // ln 2 in two parts: the first product is exact
    r = r + n * 2.12194440e-4f;
    float p = 1.0f / 5040;
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * (r * r) + r;
    std::int32_t bits = (static_cast<std::int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, sizeof scale);
    return {scale * p + (scale - 1.0f), scale * p + scale};
}

struct Elu {
    float value, slope;
};

KPG_INLINE Elu elu(float x) {
    Exp e = exp_of(x > 0.0f ? 0.0f : x);  // a NaN stays one
    return {x > 0.0f ? x : e.minus_one, x > 0.0f ? 1.0f : e.value};
}

template <bool kMonotonic>
KPG_INLINE float weight(float w) {
    return kMonotonic ? __builtin_fabsf(w) : w;
}

// What the weight's gradient is multiplied by; 0 at 0, as torch's abs.
template <bool kMonotonic>
KPG_INLINE float sign(float w) {
    if constexpr (!kMonotonic) return 1.0f;
    return w > 0.0f ? 1.0f : w < 0.0f ? -1.0f : 0.0f;
}

// before = b1 + sum_i q_i w1_i, the hidden units' inputs of one row
template <bool kMonotonic>
KPG_INLINE void hidden_inputs(const Mixer& mixer, const float* q, std::int64_t row, float* before) {
    const std::int64_t hidden = mixer.hidden;
    std::memcpy(before, mixer.b1 + row * hidden, hidden * sizeof(float));
    for (std::int64_t i = 0; i < mixer.agents; ++i) {
        const float q_i = q[i * mixer.rows + row];
        const float* w1 = mixer.w1 + (row * mixer.agents + i) * hidden;
#pragma omp simd
        for (std::int64_t m = 0; m < hidden; ++m) before[m] += q_i * weight<kMonotonic>(w1[m]);
    }
}

template <bool kMonotonic>
KPG_INLINE void mix(const Mixer& mixer, const float* q, const float* v, float* q_tot, std::int64_t begin,
                    std::int64_t end, float* before) {
    for (std::int64_t row = begin; row < end; ++row) {
        hidden_inputs<kMonotonic>(mixer, q, row, before);
        const float* w2 = mixer.w2 + row * mixer.hidden;
        float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
        for (std::int64_t m = 0; m < mixer.hidden; ++m) sum += elu(before[m]).value * weight<kMonotonic>(w2[m]);
        q_tot[row] = sum + v[row];
    }
}

template <bool kMonotonic>
KPG_INLINE void backward(const Mixer& mixer, const float* q, const MixerGradient& grad, std::int64_t begin,
                         std::int64_t end, float* before) {
    const std::int64_t hidden = mixer.hidden;
    for (std::int64_t row = begin; row < end; ++row) {
        hidden_inputs<kMonotonic>(mixer, q, row, before);
        const float* w2 = mixer.w2 + row * hidden;
        float *db1 = grad.db1 + row * hidden, *dw2 = grad.dw2 + row * hidden;
        const float dq_tot = grad.dq_tot[row];
#pragma omp simd
        for (std::int64_t m = 0; m < hidden; ++m) {
            Elu h = elu(before[m]);
            dw2[m] = dq_tot * h.value * sign<kMonotonic>(w2[m]);
            db1[m] = dq_tot * weight<kMonotonic>(w2[m]) * h.slope;
        }
        for (std::int64_t i = 0; i < mixer.agents; ++i) {
            const float q_i = q[i * mixer.rows + row];
            const float* w1 = mixer.w1 + (row * mixer.agents + i) * hidden;
            float* dw1 = grad.dw1 + (row * mixer.agents + i) * hidden;
            float sum = 0.0f;
#pragma omp simd reduction(+ : sum)
            for (std::int64_t m = 0; m < hidden; ++m) {
                dw1[m] = q_i * db1[m] * sign<kMonotonic>(w1[m]);
                sum += db1[m] * weight<kMonotonic>(w1[m]);
            }
            grad.dq[i * mixer.rows + row] = sum;
        }
    }
}

// The others' part of the hidden units' inputs is the same for every live agent: agent i's own change is added to it.
template <bool kMonotonic>
KPG_INLINE void one_live(const Mixer& mixer, const float* q_own, const float* q_others, const float* v, float* q_tot,
                         float* slope, std::int64_t begin, std::int64_t end, float* before) {
    const std::int64_t hidden = mixer.hidden;
    for (std::int64_t row = begin; row < end; ++row) {
        hidden_inputs<kMonotonic>(mixer, q_others, row, before);
        const float* w2 = mixer.w2 + row * hidden;
        for (std::int64_t i = 0; i < mixer.agents; ++i) {
            const float change = q_own[i * mixer.rows + row] - q_others[i * mixer.rows + row];
            const float* w1 = mixer.w1 + (row * mixer.agents + i) * hidden;
            float total = 0.0f, slopes = 0.0f;
#pragma omp simd reduction(+ : total, slopes)
            for (std::int64_t m = 0; m < hidden; ++m) {
                float own = weight<kMonotonic>(w1[m]), out = weight<kMonotonic>(w2[m]);
                Elu h = elu(before[m] + change * own);
                total += h.value * out;
                slopes += h.slope * out * own;
            }
            q_tot[i * mixer.rows + row] = total + v[row];
            slope[i * mixer.rows + row] = slopes;
        }
    }
}

#define KPG_VERSION(NAME, TARGET)                                                                                     \
    struct NAME {                                                                                                    \
        TARGET static void mix_of(const Mixer& mixer, const float* q, const float* v, float* q_tot,                  \
                                  std::int64_t begin, std::int64_t end, float* scratch) {                            \
            mixer.monotonic ? mix<true>(mixer, q, v, q_tot, begin, end, scratch)                                     \
                            : mix<false>(mixer, q, v, q_tot, begin, end, scratch);                                   \
        }                                                                                                            \
        TARGET static void backward_of(const Mixer& mixer, const float* q, const MixerGradient& grad,                \
                                       std::int64_t begin, std::int64_t end, float* scratch) {                       \
            mixer.monotonic ? backward<true>(mixer, q, grad, begin, end, scratch)                                    \
                            : backward<false>(mixer, q, grad, begin, end, scratch);                                  \
        }                                                                                                            \
        TARGET static void one_live_of(const Mixer& mixer, const float* q_own, const float* q_others, const float* v, \
                                       float* q_tot, float* slope, std::int64_t begin, std::int64_t end,             \
                                       float* scratch) {                                                             \
            mixer.monotonic ? one_live<true>(mixer, q_own, q_others, v, q_tot, slope, begin, end, scratch)           \
                            : one_live<false>(mixer, q_own, q_others, v, q_tot, slope, begin, end, scratch);         \
        }                                                                                                            \
        static constexpr MixerKernels kernels{mix_of, backward_of, one_live_of};                                     \
    };

KPG_VERSION(Baseline, )
#if defined(__x86_64__)
KPG_VERSION(Avx2, __attribute__((target("avx2,fma"))))
KPG_VERSION(Avx512, __attribute__((target("avx512f,avx512vl,avx512dq,fma,prefer-vector-width=512"))))
#endif

}  // namespace

MixerKernels mixer_kernels() {
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return Avx512::kernels;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2::kernels;
#endif
    return Baseline::kernels;
}

}  // namespace kpg
