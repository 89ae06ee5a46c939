// PPO's surrogate with the ratios of the other agents; formula in k_level_surrogate/__init__.py.
#pragma once

namespace kpg::KPG_ISA {

// A row's part of the loss and its derivative in the own log-probability, both before weighting.
struct SurrogateRow {
    float objective, slope, ratio, m;
    bool clipped;

    SurrogateRow(const Surrogate& s, float log_rho, float log_m, float advantage) {
        m = std::exp(log_m);
        float scale = s.mode == ClipMode::kOwn ? m * advantage : advantage;
        if (s.mode == ClipMode::kProduct) {
            ratio = std::exp(log_rho + log_m);
        } else {
            ratio = std::exp(log_rho);
            if (s.mode == ClipMode::kDouble) {
                ratio *= std::min(std::max(m, 1 - s.others_clip_eps), 1 + s.others_clip_eps);
            }
        }
        // both sides are rounded products of the same kind: equal ratios compare as equal
        float free = ratio * scale;
        float bounded = std::min(std::max(ratio, 1 - s.clip_eps), 1 + s.clip_eps) * scale;
        clipped = free > bounded;
        objective = clipped ? bounded : free;
        slope = clipped ? 0 : free;
    }
};

class SurrogatePass {
  public:
    SurrogatePass(const Surrogate& s, const SurrogateOutputs& out)
        : s(s), out(out), rows(s.steps * s.envs * s.agents), chunks((rows + kPolicyChunk - 1) / kPolicyChunk) {}

    void run() {
        auto* sums = reinterpret_cast<double*>(workspace(0, 2 * kSurrogateStats * chunks));
        const int threads = threads_for(200.0 * rows * s.actions);
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            double total = 0;
            each_row(chunk, [&](std::int64_t t, std::int64_t e, std::int64_t n) { total += *s.weight.at(t, e, n); });
            sums[chunk] = total;
        }
        double total = 0;
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) total += sums[chunk];
        const double share = total > 0 ? 1 / total : 0;
#pragma omp parallel for schedule(static) num_threads(threads)
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            PolicyRow row(s.actions);
            double* sum = sums + chunk * kSurrogateStats;
            std::fill_n(sum, kSurrogateStats, 0.0);
            each_row(chunk, [&](std::int64_t t, std::int64_t e, std::int64_t n) { one(t, e, n, share, row, sum); });
        }
        double means[kSurrogateStats] = {};
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
            for (int i = 0; i < kSurrogateStats; ++i) means[i] += sums[chunk * kSurrogateStats + i] * share;
        }
        means[kSurrogateStats - 1] = total;
        for (int i = 0; i < kSurrogateStats; ++i) out.stats[i] = float(means[i]);
        *out.loss = float(means[0] - double(s.ent_coef) * means[1]);
    }

  private:
    const Surrogate& s;
    const SurrogateOutputs& out;
    const std::int64_t rows, chunks;

    template <class F>
    void each_row(std::int64_t chunk, F&& visit) const {
        const std::int64_t end = std::min(rows, (chunk + 1) * kPolicyChunk);
        for (std::int64_t i = chunk * kPolicyChunk; i < end; ++i) {
            visit(i / (s.envs * s.agents), i / s.agents % s.envs, i % s.agents);
        }
    }

    void one(std::int64_t t, std::int64_t e, std::int64_t n, double share, PolicyRow& row, double* sum) const {
        const float weight = *s.weight.at(t, e, n);
        const std::int32_t action = *s.action.at(t, e, n);
        float* dlogits = out.dlogits.at(t, e, n);
        const bool any = row.compute(s.logits.at(t, e, n), s.available ? s.available.at(t, e, n) : nullptr, s.actions);
        const float log_prob = any ? row.log_p[action] : 0;
        *out.log_prob.at(t, e, n) = log_prob;
        if (!any || weight == 0) std::fill_n(dlogits, s.actions, 0.0f);
        if (weight == 0) return;
        const float log_rho = log_prob - *s.log_prob_old.at(t, e, n), log_m = s.log_m ? *s.log_m.at(t, e, n) : 0;
        const SurrogateRow r(s, log_rho, log_m, *s.advantage.at(t, e, n));
        const float entropy = any ? row.entropy : 0, scale = float(weight * share);
        if (any) policy_row_gradient(row, s.actions, action, -scale * r.slope, -scale * s.ent_coef, dlogits);
        const double values[kSurrogateStats - 1] = {-double(r.objective), entropy, double(r.clipped),
                                                    std::expm1(double(log_rho)) - log_rho, r.ratio, r.m};
        for (int i = 0; i < kSurrogateStats - 1; ++i) sum[i] += weight * values[i];
    }
};

static void surrogate(const Surrogate& s, const SurrogateOutputs& out) { SurrogatePass(s, out).run(); }

}  // namespace kpg::KPG_ISA
