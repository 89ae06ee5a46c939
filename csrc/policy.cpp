// Bindings of the categorical policy and the surrogate; the arithmetic is in policy_kernels.hpp, policy_surrogate.hpp.
#include "policy.hpp"

#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

using Flags = py::array_t<bool>;
using Indices = py::array_t<std::int32_t>;
using Counters = py::array_t<std::int64_t>;

Logits rows_of(const Floats& logits, const std::optional<Flags>& available) {
    require(logits.ndim() == 2, "logits must be [rows, A]; got " + describe(logits));
    const std::int64_t rows = logits.shape(0), actions = logits.shape(1);
    return {rows, actions, read("logits", logits, {rows, actions}), read("avail", available, {rows, actions})};
}

// The kernels index with them: an action out of range would read other memory.
const std::int32_t* actions_of(const Indices& action, std::initializer_list<std::int64_t> shape, std::int64_t actions) {
    require_shape("action", action, shape);
    const char* data = static_cast<const char*>(static_cast<const void*>(action.data()));
    bool inside = true;
    const std::int64_t outer = action.ndim() > 1 ? action.shape(0) * action.shape(1) : 1;
    const std::int64_t inner = action.shape(action.ndim() - 1), step = action.strides(action.ndim() - 1);
    for (std::int64_t i = 0; i < outer; ++i) {
        const char* row = data;
        if (action.ndim() > 1) row += i / action.shape(1) * action.strides(0) + i % action.shape(1) * action.strides(1);
        for (std::int64_t j = 0; j < inner; ++j) {
            auto a = *reinterpret_cast<const std::int32_t*>(row + j * step);
            inside &= a >= 0 && a < actions;
        }
    }
    require(inside, "actions must lie in 0 .. " + std::to_string(actions - 1));
    return action.data();
}

void log_prob_entropy(const Floats& logits, const std::optional<Flags>& available, const Indices& action,
                      Floats& log_prob, Floats& entropy) {
    const Logits in = rows_of(logits, available);
    const std::int32_t* chosen = actions_of(action, {in.rows}, in.actions);
    require_contiguous("action", action);
    float *lp = write("log_prob", log_prob, {in.rows}), *h = write("entropy", entropy, {in.rows});
    py::gil_scoped_release nogil;
    kernels().log_prob_entropy(in, chosen, lp, h);
}

void log_prob_entropy_backward(const Floats& logits, const std::optional<Flags>& available, const Indices& action,
                               const Floats& dlog_prob, const Floats& dentropy, Floats& dlogits) {
    const Logits in = rows_of(logits, available);
    const std::int32_t* chosen = actions_of(action, {in.rows}, in.actions);
    require_contiguous("action", action);
    PolicyGradient grad{read("dlog_prob", dlog_prob, {in.rows}), read("dentropy", dentropy, {in.rows}),
                        write("dlogits", dlogits, {in.rows, in.actions})};
    py::gil_scoped_release nogil;
    kernels().log_prob_entropy_backward(in, chosen, grad);
}

void log_prob_difference(const Floats& logits, const std::optional<Flags>& available, const Indices& action,
                         const Floats& dlogits, Floats& change) {
    const Logits in = rows_of(logits, available);
    const std::int32_t* chosen = actions_of(action, {in.rows}, in.actions);
    require_contiguous("action", action);
    const float* d = read("dlogits", dlogits, {in.rows, in.actions});
    float* out = write("change", change, {in.rows});
    py::gil_scoped_release nogil;
    kernels().log_prob_difference(in, d, chosen, out);
}

void sample(const Floats& logits, const std::optional<Flags>& available, const Counters& seed, const Counters& row,
            const Counters& step, std::uint32_t stream, bool greedy, Indices& action, Floats& log_prob) {
    const Logits in = rows_of(logits, available);
    Draws draws{read("seed", seed, {in.rows}), read("row", row, {in.rows}), read("step", step, {in.rows}), stream, greedy};
    std::int32_t* chosen = write("action", action, {in.rows});
    float* lp = write("log_prob", log_prob, {in.rows});
    py::gil_scoped_release nogil;
    kernels().sample(in, draws, chosen, lp);
}

template <class T, class Array>
Strided<T> strided(const char* name, Array& array, std::initializer_list<std::int64_t> shape) {
    require_shape(name, array, shape);
    const std::int64_t size = array.itemsize();
    require(shape.size() < 4 || array.shape(3) <= 1 || array.strides(3) == size,
            std::string("the last axis of ") + name + " must be contiguous");
    Strided<T> s;
    if constexpr (std::is_const_v<T>) {
        s.data = array.data();
    } else {
        s.data = array.mutable_data();
    }
    for (int axis = 0; axis < 3; ++axis) s.strides[axis] = array.strides(axis) / size;
    return s;
}

ClipMode clip_mode(const std::string& name) {
    if (name == "product") return ClipMode::kProduct;
    if (name == "own") return ClipMode::kOwn;
    require(name == "double", "unknown clip mode " + name);
    return ClipMode::kDouble;
}

void k_level_surrogate(const Floats& logits, const std::optional<Flags>& available, const Indices& action,
                       const Floats& log_prob_old, const Floats& advantage, const Floats& weight,
                       const std::optional<Floats>& log_m, float clip_eps, float ent_coef, const std::string& mode,
                       float others_clip_eps, Floats& loss, Floats& dlogits, Floats& log_prob, Floats& stats) {
    require(logits.ndim() == 4, "logits must be [T, E, N, A]; got " + describe(logits));
    Surrogate s{};
    s.steps = logits.shape(0), s.envs = logits.shape(1), s.agents = logits.shape(2), s.actions = logits.shape(3);
    const auto rows = {s.steps, s.envs, s.agents}, all = {s.steps, s.envs, s.agents, s.actions};
    actions_of(action, rows, s.actions);
    s.logits = strided<const float>("logits", logits, all);
    if (available) s.available = strided<const bool>("avail", *available, all);
    s.action = strided<const std::int32_t>("action", action, rows);
    s.log_prob_old = strided<const float>("log_prob_old", log_prob_old, rows);
    s.advantage = strided<const float>("advantage", advantage, rows);
    s.weight = strided<const float>("mask", weight, rows);
    if (log_m) s.log_m = strided<const float>("log_m", *log_m, rows);
    s.clip_eps = clip_eps, s.ent_coef = ent_coef, s.others_clip_eps = others_clip_eps, s.mode = clip_mode(mode);
    SurrogateOutputs out{write("loss", loss, {}), strided<float>("dlogits", dlogits, all),
                         strided<float>("log_prob", log_prob, rows), write("stats", stats, {kSurrogateStats})};
    py::gil_scoped_release nogil;
    kernels().surrogate(s, out);
}

// log M_i: the sum over all agents less the own term, summed in double so that little is lost by the subtraction.
void others_log_ratio(const Floats& log_prob, const Floats& log_prob_old, const std::optional<Flags>& alive, Floats& log_m) {
    require(log_prob.ndim() == 3, "log_prob must be [T, E, N]; got " + describe(log_prob));
    const std::int64_t steps = log_prob.shape(0), envs = log_prob.shape(1), agents = log_prob.shape(2);
    const auto shape = {steps, envs, agents};
    auto now = strided<const float>("log_prob", log_prob, shape), old = strided<const float>("log_prob_old", log_prob_old, shape);
    Strided<const bool> lives;
    if (alive) lives = strided<const bool>("alive", *alive, shape);
    float* out = write("log_m", log_m, shape);
    py::gil_scoped_release nogil;
#pragma omp parallel for schedule(static) num_threads(threads_for(20.0 * steps * envs * agents))
    for (std::int64_t row = 0; row < steps * envs; ++row) {
        const std::int64_t t = row / envs, e = row % envs;
        auto log_rho = [&](std::int64_t n) {
            return lives && !*lives.at(t, e, n) ? 0.0 : double(*now.at(t, e, n)) - *old.at(t, e, n);
        };
        double total = 0;
        for (std::int64_t n = 0; n < agents; ++n) total += log_rho(n);
        for (std::int64_t n = 0; n < agents; ++n) out[row * agents + n] = float(total - log_rho(n));
    }
}

}  // namespace
}  // namespace kpg

void bind_policy(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("log_prob_entropy", &kpg::log_prob_entropy, raw("logits"), raw("avail").none(true), raw("action"),
          raw("log_prob"), raw("entropy"), "Of the given actions, for rows of logits [rows, A].");
    m.def("log_prob_entropy_backward", &kpg::log_prob_entropy_backward, raw("logits"), raw("avail").none(true),
          raw("action"), raw("dlog_prob"), raw("dentropy"), raw("dlogits"), "The gradient of log_prob_entropy.");
    m.def("log_prob_difference", &kpg::log_prob_difference, raw("logits"), raw("avail").none(true), raw("action"),
          raw("dlogits"), raw("change"), "How the log-probabilities change when the logits change by dlogits.");
    m.def("sample", &kpg::sample, raw("logits"), raw("avail").none(true), raw("seed"), raw("row"), raw("step"),
          py::arg("stream"), py::arg("greedy"), raw("action"), raw("log_prob"), "Draw an action for each row.");
    m.def("k_level_surrogate", &kpg::k_level_surrogate, raw("logits"), raw("avail").none(true), raw("action"),
          raw("log_prob_old"), raw("advantage"), raw("mask"), raw("log_m").none(true), py::arg("clip_eps"),
          py::arg("ent_coef"), py::arg("clip_mode"), py::arg("others_clip_eps"), raw("loss"), raw("dlogits"),
          raw("log_prob"), raw("stats"), "PPO's surrogate with the others' ratios, and its gradient.");
    m.def("others_log_ratio", &kpg::others_log_ratio, raw("log_prob"), raw("log_prob_old"), raw("alive").none(true),
          raw("log_m"), "log M_i [T, E, N].");
}
