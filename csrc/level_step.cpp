// The out-of-place level step: theta^(k) = theta - step(clipped grad, optimiser state), for G parameter sets at once.
#include "level_step_math.hpp"

#include <omp.h>
#include <pybind11/stl.h>

#include <cmath>
#include <optional>

#include "store_array.hpp"

namespace kpg {
namespace {

constexpr std::int64_t kBlock = 4096;  // numbers; a block of every slot fits the first-level cache or nearly

struct Hyperparameters {
    std::string optimizer;
    double lr, beta1, beta2, alpha, eps, momentum;
    std::optional<double> max_grad_norm;
    std::int64_t step;
};

template <typename T>
StepRule<T> make_rule(const Hyperparameters& h, bool keep_state) {
    StepRule<T> rule{};
    rule.keep_state = keep_state;
    rule.step_size = static_cast<T>(h.lr);
    rule.eps = static_cast<T>(h.eps);
    rule.has_momentum = h.momentum != 0.0;
    rule.decay1 = static_cast<T>(h.momentum);
    if (h.optimizer == "adam") {
        if (h.step < 1) fail("step counts from 1; got " + std::to_string(h.step));
        rule.rule = Rule::kAdam;
        rule.decay1 = static_cast<T>(h.beta1);
        rule.gain1 = static_cast<T>(1.0 - h.beta1);
        rule.decay2 = static_cast<T>(h.beta2);
        rule.gain2 = static_cast<T>(1.0 - h.beta2);
        rule.step_size = static_cast<T>(h.lr / (1.0 - std::pow(h.beta1, h.step)));
        rule.inv_sqrt_correction2 = static_cast<T>(1.0 / std::sqrt(1.0 - std::pow(h.beta2, h.step)));
    } else if (h.optimizer == "rmsprop") {
        rule.rule = Rule::kRmsProp;
        rule.decay2 = static_cast<T>(h.alpha);
        rule.gain2 = static_cast<T>(1.0 - h.alpha);
    } else if (h.optimizer == "sgd") {
        rule.rule = Rule::kSgd;
    } else {
        fail("optimizer must be adam, rmsprop or sgd; got " + h.optimizer);
    }
    return rule;
}

template <typename T>
std::size_t state_size(const StepRule<T>& rule) {
    switch (rule.rule) {
        case Rule::kAdam: return 2;
        case Rule::kRmsProp: return rule.has_momentum ? 2 : 1;
        default: return rule.has_momentum ? 1 : 0;
    }
}

// Block b of all groups' blocks: which group, and which of its numbers.
struct Cut {
    std::int64_t groups, size, per_group;
    Cut(std::int64_t groups, std::int64_t size) : groups(groups), size(size), per_group((size + kBlock - 1) / kBlock) {}
    std::int64_t blocks() const { return groups * per_group; }
    std::int64_t group(std::int64_t block) const { return block / per_group; }
    std::int64_t begin(std::int64_t block) const { return group(block) * size + block % per_group * kBlock; }
    std::int64_t end(std::int64_t block) const { return std::min(begin(block) + kBlock, (group(block) + 1) * size); }
};

// The norm of every group from its blocks' sums in order, and with it the factor that clips: max / max(norm, max).
template <typename T>
void norms_and_scales(const Cut& cut, const double* sums, std::optional<double> max_norm, T* norm, T* scale) {
    for (std::int64_t g = 0; g < cut.groups; ++g) {
        double sum = 0.0;
        for (std::int64_t b = 0; b < cut.per_group; ++b) sum += sums[g * cut.per_group + b];
        double length = std::sqrt(sum);
        norm[g] = static_cast<T>(length);
        // a norm that is not a number must not be clipped into one: std::max keeps its first argument then
        scale[g] = max_norm ? static_cast<T>(*max_norm / std::max(length, *max_norm)) : T{1};
    }
}

template <typename T>
void run(const StepRule<T>& rule, const StepSlots<T>& slots, const Cut& cut, std::optional<double> max_norm, T* norm,
         int num_threads, bool baseline) {
    const StepKernels<T> kernels = step_kernels<T>(baseline);
    thread_local std::vector<double> sum_memory;
    thread_local std::vector<T> scale_memory;
    sum_memory.resize(cut.blocks());
    scale_memory.resize(cut.groups);
    double* sums = sum_memory.data();
    T* scale = scale_memory.data();
    int team = team_size(num_threads, cut.groups * cut.size * sizeof(T), 1 << 14);
#pragma omp parallel num_threads(team)
    {
        if (max_norm) {
#pragma omp for schedule(static)
            for (std::int64_t b = 0; b < cut.blocks(); ++b) {
                sums[b] = kernels.square_sum(slots.grad + cut.begin(b), cut.end(b) - cut.begin(b));
            }
#pragma omp single
            norms_and_scales(cut, sums, max_norm, norm, scale);
#pragma omp for schedule(static)
            for (std::int64_t b = 0; b < cut.blocks(); ++b) {
                kernels.step(rule, slots, scale[cut.group(b)], cut.begin(b), cut.end(b));
            }
        } else {  // nothing waits for the norm: the gradient is read once
#pragma omp for schedule(static)
            for (std::int64_t b = 0; b < cut.blocks(); ++b) {
                sums[b] = kernels.square_sum(slots.grad + cut.begin(b), cut.end(b) - cut.begin(b));
                kernels.step(rule, slots, T{1}, cut.begin(b), cut.end(b));
            }
#pragma omp single
            norms_and_scales(cut, sums, max_norm, norm, scale);
        }
    }
}

template <typename T>
void level_step_of(const py::array& theta, const py::array& grad, const std::vector<py::array>& state_in,
                   py::array& theta_out, std::optional<std::vector<py::array>>& state_out, py::array& grad_norm,
                   const Hyperparameters& h, int num_threads, bool baseline) {
    const StepRule<T> rule = make_rule<T>(h, state_out.has_value());
    std::size_t states = state_size(rule);
    if (state_in.size() != states || (state_out && state_out->size() != states)) {
        fail(h.optimizer + " has " + std::to_string(states) + " state slots; got " + std::to_string(state_in.size()) +
             " in, " + std::to_string(state_out ? state_out->size() : states) + " out");
    }

    std::vector<const void*> inputs, outputs;
    auto input = [&](const char* name, const py::array& array) {
        require_like(name, array, "theta", theta);
        inputs.push_back(read_bytes(name, array));
        return static_cast<const T*>(inputs.back());
    };
    auto output = [&](const char* name, py::array& array) {
        require_like(name, array, "theta", theta);
        T* data = reinterpret_cast<T*>(write_bytes(name, array));
        if (std::find(outputs.begin(), outputs.end(), data) != outputs.end()) {
            fail(std::string(name) + " is an output twice");
        }
        outputs.push_back(data);
        return data;
    };
    StepSlots<T> slots{};
    slots.theta = input("theta", theta);
    slots.grad = input("grad", grad);
    slots.theta_out = output("theta_out", theta_out);
    for (std::size_t i = 0; i < states; ++i) {
        slots.state_in[i] = input("state_in", state_in[i]);
        if (state_out) slots.state_out[i] = output("state_out", (*state_out)[i]);
    }
    for (const void* in : inputs) {
        for (const void* out : outputs) require_no_partial_overlap("an input", in, "an output", out, theta.nbytes());
    }

    Cut cut(theta.shape(0), theta.shape(1));
    if (!has_dtype(grad_norm, theta.dtype()) || grad_norm.ndim() != 1 || grad_norm.shape(0) != cut.groups) {
        fail("grad_norm must be [G] of theta's type; theta is " + describe(theta) + ", grad_norm " + describe(grad_norm));
    }
    T* norm = reinterpret_cast<T*>(write_bytes("grad_norm", grad_norm));
    if (h.max_grad_norm && !(*h.max_grad_norm > 0.0)) fail("max_grad_norm must be positive or None");
    py::gil_scoped_release release;
    run(rule, slots, cut, h.max_grad_norm, norm, num_threads, baseline);
}

void level_step(const py::array& theta, const py::array& grad, const std::vector<py::array>& state_in,
                py::array theta_out, std::optional<std::vector<py::array>> state_out, py::array grad_norm,
                const std::string& optimizer, double lr, std::pair<double, double> betas, double alpha, double eps,
                double momentum, std::optional<double> max_grad_norm, std::int64_t step, int num_threads,
                bool baseline) {
    Hyperparameters h{optimizer, lr, betas.first, betas.second, alpha, eps, momentum, max_grad_norm, step};
    if (theta.ndim() != 2) fail("theta must be [G, P]; got " + describe(theta));
    if (has_dtype(theta, py::dtype::of<float>())) {
        level_step_of<float>(theta, grad, state_in, theta_out, state_out, grad_norm, h, num_threads, baseline);
    } else if (has_dtype(theta, py::dtype::of<double>())) {
        level_step_of<double>(theta, grad, state_in, theta_out, state_out, grad_norm, h, num_threads, baseline);
    } else {
        fail("theta must be float32 or float64; got " + describe(theta));
    }
}

}  // namespace
}  // namespace kpg

void bind_level_step(py::module_& m) {
    m.def("level_step", &kpg::level_step, py::arg("theta").noconvert(), py::arg("grad").noconvert(),
          py::arg("state_in").noconvert(), py::arg("theta_out").noconvert(), py::arg("state_out").noconvert(),
          py::arg("grad_norm").noconvert(), py::arg("optimizer"), py::arg("lr"), py::arg("betas"), py::arg("alpha"),
          py::arg("eps"), py::arg("momentum"), py::arg("max_grad_norm"), py::arg("step"), py::arg("num_threads") = 0,
          py::arg("baseline") = false,
          "One optimiser step on [G, P] slots, out of place; see kpg_fast.kernels.level_step. baseline asks for the "
          "narrowest instruction set, whose result is the same.");
}
