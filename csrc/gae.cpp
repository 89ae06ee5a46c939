// Advantages backwards in time, and the clipped value loss with its gradient.
#include <vector>

#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

using Flags = py::array_t<bool>;

struct Episodes {
    const bool *terminated, *truncated, *valid;  // [T, E]; valid may be null
};

struct Gae {
    std::int64_t steps, envs, agents;
    const float *reward, *value, *bootstrap, *last_value;  // [T, E], [T, E, N], [E, N], [T, E, N] or null
    Episodes at;
    float gamma, decay;
    float *advantage, *returns;
};

// One environment, from its last step to its first.
void backwards(const Gae& g, std::int64_t e) {
    for (std::int64_t n = 0; n < g.agents; ++n) {
        float following = g.bootstrap[e * g.agents + n], carry = 0;
        for (std::int64_t t = g.steps - 1; t >= 0; --t) {
            const std::int64_t step = t * g.envs + e, i = step * g.agents + n;
            if (g.at.truncated[step] && g.last_value) following = g.last_value[i];
            if (g.at.terminated[step]) following = 0;
            if (g.at.terminated[step] || g.at.truncated[step]) carry = 0;
            carry = g.reward[step] + g.gamma * following - g.value[i] + g.gamma * g.decay * carry;
            if (g.at.valid && !g.at.valid[step]) carry = 0;
            g.advantage[i] = carry;
            g.returns[i] = carry + g.value[i];
            following = g.value[i];
        }
    }
}

void gae(const Floats& reward, const Floats& value, const Floats& bootstrap, const Flags& terminated,
         const Flags& truncated, const std::optional<Floats>& last_value, const std::optional<Flags>& valid, float gamma,
         float gae_lambda, Floats& advantage, Floats& returns) {
    require(value.ndim() == 3, "value must be [T, E, N]; got " + describe(value));
    Gae g{};
    g.steps = value.shape(0), g.envs = value.shape(1), g.agents = value.shape(2);
    const auto all = {g.steps, g.envs, g.agents}, steps = {g.steps, g.envs};
    g.reward = read("reward", reward, steps);
    g.value = read("value", value, all);
    g.bootstrap = read("bootstrap_value", bootstrap, {g.envs, g.agents});
    g.last_value = read("last_value", last_value, all);
    g.at = {read("terminated", terminated, steps), read("truncated", truncated, steps), read("valid", valid, steps)};
    g.gamma = gamma, g.decay = gae_lambda;
    g.advantage = write("advantage", advantage, all), g.returns = write("returns", returns, all);
    py::gil_scoped_release nogil;
#pragma omp parallel for schedule(static) num_threads(threads_for(30.0 * g.steps * g.envs * g.agents))
    for (std::int64_t e = 0; e < g.envs; ++e) backwards(g, e);
}

constexpr std::int64_t kChunk = 4096;  // rows summed by one thread in order, so that sums are reproducible

// Half the weighted mean of the larger square, and its gradient in `value`.
void value_loss(const Floats& value, const Floats& value_old, const Floats& returns, const Floats& weight,
                std::optional<float> clip_eps, Floats& loss, Floats& dvalue) {
    require(value.ndim() == 1, "value must be [rows]; got " + describe(value));
    const std::int64_t rows = value.shape(0), chunks = (rows + kChunk - 1) / kChunk;
    const float *v = read("value", value, {rows}), *old = read("value_old", value_old, {rows});
    const float *target = read("returns", returns, {rows}), *w = read("mask", weight, {rows});
    float *out = write("loss", loss, {}), *d = write("dvalue", dvalue, {rows});
    py::gil_scoped_release nogil;
    double total = 0;
    for (std::int64_t i = 0; i < rows; ++i) total += w[i];
    const double share = total > 0 ? 1 / total : 0;
    std::vector<double> sums(chunks);
#pragma omp parallel for schedule(static) num_threads(threads_for(20.0 * rows))
    for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
        double sum = 0;
        for (std::int64_t i = chunk * kChunk; i < std::min(rows, (chunk + 1) * kChunk); ++i) {
            d[i] = 0;
            if (w[i] == 0) continue;
            float error = v[i] - target[i], slope = error;
            if (clip_eps) {
                const float moved = v[i] - old[i];
                const float bounded = std::min(std::max(moved, -*clip_eps), *clip_eps);
                const float clipped = old[i] + bounded - target[i];
                // of equal squares half of each counts, as in torch.maximum; the clipped one moves only inside
                const float inside = bounded == moved ? clipped : 0;
                const float a = error * error, b = clipped * clipped;
                slope = a > b ? error : a < b ? inside : 0.5f * (error + inside);
                error = a < b ? clipped : error;
            }
            sum += double(w[i]) * error * error;
            d[i] = float(w[i] * share * slope);
        }
        sums[chunk] = sum;
    }
    double sum = 0;
    for (double part : sums) sum += part;
    *out = float(0.5 * sum * share);
}

}  // namespace
}  // namespace kpg

void bind_gae(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("gae", &kpg::gae, raw("reward"), raw("value"), raw("bootstrap_value"), raw("terminated"), raw("truncated"),
          raw("last_value").none(true), raw("valid").none(true), py::arg("gamma"), py::arg("gae_lambda"),
          raw("advantage"), raw("returns"), "Generalised advantage estimation.");
    m.def("value_loss", &kpg::value_loss, raw("value"), raw("value_old"), raw("returns"), raw("mask"),
          py::arg("clip_eps"), raw("loss"), raw("dvalue"), "The clipped value loss and its gradient.");
}
