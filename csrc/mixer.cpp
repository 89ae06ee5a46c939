// Bindings of the mixer: shapes are checked here, rows are shared among threads, the arithmetic is in mixer_math.cpp.
#include <omp.h>

#include <vector>

#include "mixer_math.hpp"
#include "store_array.hpp"

namespace kpg {
namespace {

using Floats = py::array_t<float>;

const float* read(const char* name, const Floats& array, const std::vector<std::int64_t>& shape) {
    bool same = array.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                std::equal(shape.begin(), shape.end(), array.shape());
    std::string wanted;
    for (std::int64_t n : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(n);
    require(same, std::string(name) + " must be [" + wanted + "]; got " + describe(array));
    require_contiguous(name, array);
    return array.data();
}

float* write(const char* name, Floats& array, const std::vector<std::int64_t>& shape) {
    read(name, array, shape);
    return reinterpret_cast<float*>(write_bytes(name, array));
}

Mixer mixer_of(const Floats& q, const Floats& w1, const Floats& b1, const Floats& w2, bool monotonic) {
    require(q.ndim() == 2 && b1.ndim() == 2, "q must be [N, R] and b1 [R, M]; got " + describe(q) + ", " + describe(b1));
    Mixer mixer{q.shape(0), q.shape(1), b1.shape(1), monotonic, nullptr, nullptr, nullptr};
    mixer.w1 = read("w1", w1, {mixer.rows, mixer.agents, mixer.hidden});
    mixer.b1 = read("b1", b1, {mixer.rows, mixer.hidden});
    mixer.w2 = read("w2", w2, {mixer.rows, mixer.hidden});
    return mixer;
}

// Call f(begin, end, scratch) on parts of the rows. A row is worked on by one thread, so nothing depends on their number.
template <class F>
void over_rows(const Mixer& mixer, F f) {
    const int threads = team_size(0, mixer.rows * mixer.agents * mixer.hidden * 4);
#pragma omp parallel num_threads(threads)
    {
        const std::int64_t parts = omp_get_num_threads(), part = omp_get_thread_num();
        std::vector<float> scratch(mixer.hidden);
        f(mixer.rows * part / parts, mixer.rows * (part + 1) / parts, scratch.data());
    }
}

void mix(const Floats& q, const Floats& w1, const Floats& b1, const Floats& w2, const Floats& v, bool monotonic,
         Floats& q_tot) {
    const Mixer mixer = mixer_of(q, w1, b1, w2, monotonic);
    const float *q_in = read("q", q, {mixer.agents, mixer.rows}), *v_in = read("v", v, {mixer.rows});
    float* out = write("q_tot", q_tot, {mixer.rows});
    py::gil_scoped_release nogil;
    const MixerKernels kernels = mixer_kernels();
    over_rows(mixer, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        kernels.mix(mixer, q_in, v_in, out, begin, end, scratch);
    });
}

void mix_backward(const Floats& dq_tot, const Floats& q, const Floats& w1, const Floats& b1, const Floats& w2,
                  bool monotonic, Floats& dq, Floats& dw1, Floats& db1, Floats& dw2) {
    const Mixer mixer = mixer_of(q, w1, b1, w2, monotonic);
    const float* q_in = read("q", q, {mixer.agents, mixer.rows});
    MixerGradient grad{};
    grad.dq_tot = read("dq_tot", dq_tot, {mixer.rows});
    grad.dq = write("dq", dq, {mixer.agents, mixer.rows});
    grad.dw1 = write("dw1", dw1, {mixer.rows, mixer.agents, mixer.hidden});
    grad.db1 = write("db1", db1, {mixer.rows, mixer.hidden});
    grad.dw2 = write("dw2", dw2, {mixer.rows, mixer.hidden});
    py::gil_scoped_release nogil;
    const MixerKernels kernels = mixer_kernels();
    over_rows(mixer, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        kernels.backward(mixer, q_in, grad, begin, end, scratch);
    });
}

void mix_one_live(const Floats& q_own, const Floats& q_others, const Floats& w1, const Floats& b1, const Floats& w2,
                  const Floats& v, bool monotonic, Floats& q_tot, Floats& slope) {
    const Mixer mixer = mixer_of(q_own, w1, b1, w2, monotonic);
    const std::vector<std::int64_t> utilities{mixer.agents, mixer.rows};
    const float *own = read("q_own", q_own, utilities), *others = read("q_others", q_others, utilities);
    const float* v_in = read("v", v, {mixer.rows});
    float *out = write("q_tot", q_tot, utilities), *slope_out = write("slope", slope, utilities);
    py::gil_scoped_release nogil;
    const MixerKernels kernels = mixer_kernels();
    over_rows(mixer, [&](std::int64_t begin, std::int64_t end, float* scratch) {
        kernels.one_live(mixer, own, others, v_in, out, slope_out, begin, end, scratch);
    });
}

}  // namespace
}  // namespace kpg

void bind_mixer(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("mix", &kpg::mix, raw("q"), raw("w1"), raw("b1"), raw("w2"), raw("v"), py::arg("monotonic"), raw("q_tot"),
          "q_tot [R] of utilities q [N, R] under weights w1 [R, N, M], b1 and w2 [R, M], v [R].");
    m.def("mix_backward", &kpg::mix_backward, raw("dq_tot"), raw("q"), raw("w1"), raw("b1"), raw("w2"),
          py::arg("monotonic"), raw("dq"), raw("dw1"), raw("db1"), raw("dw2"), "Gradients of mix; v's is dq_tot.");
    m.def("mix_one_live", &kpg::mix_one_live, raw("q_own"), raw("q_others"), raw("w1"), raw("b1"), raw("w2"), raw("v"),
          py::arg("monotonic"), raw("q_tot"), raw("slope"),
          "q_tot and d q_tot / d q_i, both [N, R]: row i with agent i's utility from q_own and the rest from q_others.");
}
