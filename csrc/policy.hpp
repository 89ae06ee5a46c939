// Masked categorical policies: what policy_kernels.hpp computes for rows of logits.
#pragma once
#include <cstdint>

namespace kpg {

// Rows of logits [rows, actions] with what is available; available null: every action is.
struct Logits {
    std::int64_t rows, actions;
    const float* logits;
    const bool* available;
};

// Gradients of log_prob and entropy [rows] in the logits.
struct PolicyGradient {
    const float *dlog_prob, *dentropy;
    float* dlogits;
};

// One uniform number a row from Philox4x32-10 under key seed and counter (row, stream, step); see policy/__init__.py.
struct Draws {
    const std::int64_t *seed, *row, *step;
    std::uint32_t stream;
    bool greedy;
};

enum class ClipMode { kProduct, kOwn, kDouble };

// An array [T, E, N] or [T, E, N, A] (the last axis contiguous) with the strides of its first three axes in elements.
template <class T>
struct Strided {
    T* data = nullptr;
    std::int64_t strides[3] = {};

    T* at(std::int64_t t, std::int64_t e, std::int64_t n) const {
        return data + t * strides[0] + e * strides[1] + n * strides[2];
    }
    explicit operator bool() const { return data != nullptr; }
};

struct Surrogate {
    std::int64_t steps, envs, agents, actions;
    Strided<const float> logits;
    Strided<const bool> available;  // or null
    Strided<const std::int32_t> action;
    Strided<const float> log_prob_old, advantage, weight, log_m;  // log_m or null
    float clip_eps, ent_coef, others_clip_eps;
    ClipMode mode;
};

constexpr int kSurrogateStats = 7;  // as STATS in k_level_surrogate/__init__.py names them

struct SurrogateOutputs {
    float* loss;
    Strided<float> dlogits, log_prob;
    float* stats;
};

}  // namespace kpg
