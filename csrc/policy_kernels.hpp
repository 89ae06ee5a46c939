// Masked log-softmax and what is made of it: log-probabilities, entropies, draws, and PPO's surrogate with the ratios
// of the other agents, whose gradient is computed in the same pass.
#pragma once

namespace kpg::KPG_ISA {

typedef std::int8_t ByteVec __attribute__((vector_size(KPG_LANES)));

constexpr float kUnavailable = -1e10f;  // what JaxMARL adds to such a logit; its probability is exactly 0
constexpr std::int64_t kPolicyChunk = 1024;  // rows summed by one thread in order, so that sums are reproducible

// All ones where an action may be taken.
KPG_INLINE IVec usable(const bool* available, std::int64_t at, std::int64_t left) {
    ByteVec flags{};
    std::memcpy(&flags, available + at, left < kLanes ? left : kLanes);
    return __builtin_convertvector(flags != 0, IVec);
}

KPG_INLINE float sum_lanes(Vec v) {
    float sum = 0;
    for (int lane = 0; lane < kLanes; ++lane) sum += v[lane];
    return sum;
}

// One row: log-probabilities and probabilities (padded to whole registers), entropy. False where nothing is available.
struct PolicyRow {
    float *log_p, *p;
    const bool* available = nullptr;
    float entropy = 0;

    static std::int64_t floats(std::int64_t actions) { return 2 * round_up(actions, kLanes); }

    explicit PolicyRow(std::int64_t actions) : log_p(workspace(1, floats(actions))), p(log_p + round_up(actions, kLanes)) {}

    bool may_take(std::int64_t action) const { return !available || available[action]; }

    bool compute(const float* logits, const bool* available_actions, std::int64_t actions) {
        available = available_actions;
        float highest = -INFINITY;
        bool any = false;
        for (std::int64_t j = 0; j < actions; ++j) {
            bool may = may_take(j);
            log_p[j] = may ? logits[j] : kUnavailable;
            any |= may;
            if (may && !(logits[j] <= highest)) highest = logits[j];  // a NaN stays
        }
        if (!any) return false;
        Vec sums{};
        for (std::int64_t j = 0; j < actions; j += kLanes) {
            std::int64_t left = actions - j;
            Vec shifted = load_first(log_p + j, left) - highest, e = exp(shifted);
            if (available) e = usable(available, j, left) ? e : Vec{};
            for (std::int64_t lane = left; lane < kLanes; ++lane) e[lane] = 0;
            sums += e;
            store(log_p + j, shifted);
            store(p + j, e);
        }
        float sum = sum_lanes(sums), log_sum = std::log(sum);
        Vec plogp{};
        for (std::int64_t j = 0; j < actions; j += kLanes) {
            Vec value = load(log_p + j) - log_sum, share = load(p + j) / sum;
            store(log_p + j, value);
            store(p + j, share);
            plogp += share * value;
        }
        entropy = -sum_lanes(plogp);
        return true;
    }
};

static void log_prob_entropy(const Logits& in, const std::int32_t* action, float* log_prob, float* entropy) {
    const std::int64_t a = in.actions;
#pragma omp parallel num_threads(threads_for(100.0 * in.rows * a))
    {
        PolicyRow row(a);
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < in.rows; ++i) {
            bool any = row.compute(in.logits + i * a, in.available ? in.available + i * a : nullptr, a);
            log_prob[i] = any ? row.log_p[action[i]] : 0;
            entropy[i] = any ? row.entropy : 0;
        }
    }
}

// dlogits = coefficient (1[j = action] - p_j) - entropy_coefficient p_j (log p_j + H)
KPG_INLINE void policy_row_gradient(const PolicyRow& row, std::int64_t actions, std::int32_t action, float coefficient,
                                    float entropy_coefficient, float* dlogits) {
    for (std::int64_t j = 0; j < actions; j += kLanes) {
        Vec p = load(row.p + j), log_p = load(row.log_p + j);
        store_first(dlogits + j, -p * (coefficient + entropy_coefficient * (log_p + row.entropy)), actions - j);
    }
    if (row.may_take(action)) dlogits[action] += coefficient;
}

static void log_prob_entropy_backward(const Logits& in, const std::int32_t* action, const PolicyGradient& grad) {
    const std::int64_t a = in.actions;
#pragma omp parallel num_threads(threads_for(100.0 * in.rows * a))
    {
        PolicyRow row(a);
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < in.rows; ++i) {
            float* to = grad.dlogits + i * a;
            if (row.compute(in.logits + i * a, in.available ? in.available + i * a : nullptr, a)) {
                policy_row_gradient(row, a, action[i], grad.dlog_prob[i], grad.dentropy[i], to);
            } else {
                std::fill_n(to, a, 0.0f);
            }
        }
    }
}

// log pi_k(a) - log pi(a) = d_a - log(1 + sum_j p_j (e^d_j - 1)) for logits that change by d: every rounding is relative
// to the change.
static void log_prob_difference(const Logits& in, const float* dlogits, const std::int32_t* action, float* change) {
    const std::int64_t a = in.actions;
#pragma omp parallel num_threads(threads_for(100.0 * in.rows * a))
    {
        PolicyRow row(a);
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < in.rows; ++i) {
            const float* d = dlogits + i * a;
            change[i] = 0;
            if (!row.compute(in.logits + i * a, in.available ? in.available + i * a : nullptr, a)) continue;
            Vec sum{};
            for (std::int64_t j = 0; j < a; j += kLanes) sum += load(row.p + j) * expm1(load_first(d + j, a - j));
            change[i] = (row.may_take(action[i]) ? d[action[i]] : 0) - std::log1p(sum_lanes(sum));
        }
    }
}

// The first action whose cumulated probability exceeds u; the last available one if rounding leaves u at the total.
KPG_INLINE std::int32_t invert(const PolicyRow& row, std::int64_t actions, float u) {
    float total = 0, cumulated = 0;
    for (std::int64_t j = 0; j < actions; ++j) total += row.p[j];
    std::int32_t last = 0;
    for (std::int64_t j = 0; j < actions; ++j) {
        if (!row.may_take(j)) continue;
        cumulated += row.p[j];
        last = std::int32_t(j);
        if (cumulated > u * total) break;
    }
    return last;
}

KPG_INLINE std::int32_t most_probable(const PolicyRow& row, const float* logits, std::int64_t actions) {
    std::int32_t best = -1;
    for (std::int64_t j = 0; j < actions; ++j) {
        if (row.may_take(j) && (best < 0 || logits[j] > logits[best])) best = std::int32_t(j);
    }
    return best;
}

static void sample(const Logits& in, const Draws& draws, std::int32_t* action, float* log_prob) {
    const std::int64_t a = in.actions;
#pragma omp parallel num_threads(threads_for(100.0 * in.rows * a))
    {
        PolicyRow row(a);
#pragma omp for schedule(static)
        for (std::int64_t i = 0; i < in.rows; ++i) {
            const float* logits = in.logits + i * a;
            const bool* available = in.available ? in.available + i * a : nullptr;
            action[i] = 0, log_prob[i] = 0;
            if (!row.compute(logits, available, a)) continue;
            if (draws.greedy) {
                action[i] = most_probable(row, logits, a);
            } else {
                std::uint32_t word = philox(draws.seed[i], std::uint32_t(draws.row[i]), draws.stream, draws.step[i]).word[0];
                action[i] = invert(row, a, float(word >> 8) * 0x1p-24f);
            }
            log_prob[i] = row.log_p[action[i]];
        }
    }
}

}  // namespace kpg::KPG_ISA
