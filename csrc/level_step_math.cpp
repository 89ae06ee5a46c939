// The step is compiled once for every instruction set. No fused multiply-add and a fixed order of sums: the same bits on
// every machine. A step waits for memory, so this costs nothing.
#include "level_step_math.hpp"

#if defined(__clang__)
#pragma STDC FP_CONTRACT OFF
#else
#pragma GCC optimize("fp-contract=off")
#endif

namespace kpg {
namespace {

#define KPG_INLINE inline __attribute__((always_inline))

KPG_INLINE float root(float value) { return __builtin_sqrtf(value); }
KPG_INLINE double root(double value) { return __builtin_sqrt(value); }

template <typename T>
KPG_INLINE double square_sum(const T* values, std::int64_t size) {
    constexpr int kLanes = 16;
    double lanes[kLanes] = {};
    std::int64_t whole = size / kLanes * kLanes;
    for (std::int64_t at = 0; at < whole; at += kLanes) {
#pragma omp simd
        for (int lane = 0; lane < kLanes; ++lane) {
            lanes[lane] += static_cast<double>(values[at + lane]) * static_cast<double>(values[at + lane]);
        }
    }
    for (std::int64_t at = whole; at < size; ++at) {
        lanes[at - whole] += static_cast<double>(values[at]) * static_cast<double>(values[at]);
    }
    double sum = 0.0;
    for (int lane = 0; lane < kLanes; ++lane) sum += lanes[lane];
    return sum;
}

// m = b1 m + (1 - b1) g;  v = b2 v + (1 - b2) g^2;  theta - lr / (1 - b1^t) m / (sqrt(v) / sqrt(1 - b2^t) + eps)
template <bool kKeepState, typename T>
KPG_INLINE void adam(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin, std::int64_t end) {
    const StepRule<T> r = rule;
    const StepSlots<T> s = slots;
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
        T g = s.grad[i] * scale;
        T m = r.decay1 * s.state_in[0][i] + r.gain1 * g;
        T v = r.decay2 * s.state_in[1][i] + r.gain2 * (g * g);
        T theta = s.theta[i] - r.step_size * (m / (root(v) * r.inv_sqrt_correction2 + r.eps));
        s.theta_out[i] = theta;
        if constexpr (kKeepState) {
            s.state_out[0][i] = m;
            s.state_out[1][i] = v;
        }
    }
}

// v = alpha v + (1 - alpha) g^2;  d = g / (sqrt(v) + eps);  d = buffer = momentum buffer + d;  theta - lr d
template <bool kKeepState, bool kMomentum, typename T>
KPG_INLINE void rmsprop(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin,
                        std::int64_t end) {
    const StepRule<T> r = rule;
    const StepSlots<T> s = slots;
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
        T g = s.grad[i] * scale;
        T v = r.decay2 * s.state_in[0][i] + r.gain2 * (g * g);
        T direction = g / (root(v) + r.eps);
        if constexpr (kMomentum) direction = r.decay1 * s.state_in[1][i] + direction;
        T theta = s.theta[i] - r.step_size * direction;
        s.theta_out[i] = theta;
        if constexpr (kKeepState) {
            s.state_out[0][i] = v;
            if constexpr (kMomentum) s.state_out[1][i] = direction;
        }
    }
}

// d = buffer = momentum buffer + g;  theta - lr d
template <bool kKeepState, bool kMomentum, typename T>
KPG_INLINE void sgd(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin, std::int64_t end) {
    const StepRule<T> r = rule;
    const StepSlots<T> s = slots;
#pragma omp simd
    for (std::int64_t i = begin; i < end; ++i) {
        T direction = s.grad[i] * scale;
        if constexpr (kMomentum) direction = r.decay1 * s.state_in[0][i] + direction;
        T theta = s.theta[i] - r.step_size * direction;
        s.theta_out[i] = theta;
        if constexpr (kKeepState && kMomentum) s.state_out[0][i] = direction;
    }
}

template <bool kKeepState, typename T>
KPG_INLINE void step_keeping(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin,
                             std::int64_t end) {
    switch (rule.rule) {
        case Rule::kAdam:
            return adam<kKeepState>(rule, slots, scale, begin, end);
        case Rule::kRmsProp:
            return rule.has_momentum ? rmsprop<kKeepState, true>(rule, slots, scale, begin, end)
                                     : rmsprop<kKeepState, false>(rule, slots, scale, begin, end);
        case Rule::kSgd:
            return rule.has_momentum ? sgd<kKeepState, true>(rule, slots, scale, begin, end)
                                     : sgd<kKeepState, false>(rule, slots, scale, begin, end);
    }
}

template <typename T>
KPG_INLINE void step(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin, std::int64_t end) {
    return rule.keep_state ? step_keeping<true>(rule, slots, scale, begin, end)
                           : step_keeping<false>(rule, slots, scale, begin, end);
}

#define KPG_VERSION(NAME, TARGET)                                                                                   \
    template <typename T>                                                                                          \
    struct NAME {                                                                                                  \
        TARGET static double square_sum_of(const T* values, std::int64_t size) { return square_sum(values, size); } \
        TARGET static void step_of(const StepRule<T>& rule, const StepSlots<T>& slots, T scale, std::int64_t begin, \
                                   std::int64_t end) {                                                             \
            step(rule, slots, scale, begin, end);                                                                  \
        }                                                                                                          \
        static constexpr StepKernels<T> kernels{square_sum_of, step_of};                                           \
    };

KPG_VERSION(Baseline, )
#if defined(__x86_64__)
KPG_VERSION(Avx2, __attribute__((target("avx2"))))
KPG_VERSION(Avx512, __attribute__((target("avx512f,avx512vl,avx512dq"))))
#endif

}  // namespace

template <typename T>
StepKernels<T> step_kernels(bool baseline) {
#if defined(__x86_64__)
    if (!baseline && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl")) return Avx512<T>::kernels;
    if (!baseline && __builtin_cpu_supports("avx2")) return Avx2<T>::kernels;
#endif
    (void)baseline;
    return Baseline<T>::kernels;
}

template StepKernels<float> step_kernels<float>(bool);
template StepKernels<double> step_kernels<double>(bool);

}  // namespace kpg
