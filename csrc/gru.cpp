// Bindings of the GRU over time; the arithmetic is in gru_kernels.hpp and gru_gradient.hpp.
#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

using Flags = py::array_t<bool>;

Gru unrolled(const Floats& x, const Floats& h0, const Flags& reset, const Floats& w_x, const Floats& b_x,
             const Floats& w_h, const Floats& b_n, bool bf16) {
    require(x.ndim() == 4 && h0.ndim() == 3, "x must be [G, T, R, I] and h0 [G, R, H]; got " + describe(x) + ", " + describe(h0));
    Gru gru{};
    gru.sets = x.shape(0), gru.steps = x.shape(1), gru.rows = x.shape(2), gru.in = x.shape(3), gru.hidden = h0.shape(2);
    const std::int64_t g = gru.sets, three = 3 * gru.hidden;
    gru.x = read_sets("x", x, {g, gru.steps, gru.rows, gru.in});
    gru.h0 = read_sets("h0", h0, {g, gru.rows, gru.hidden});
    gru.w_x = read_sets("w_x", w_x, {g, gru.in, three});
    gru.b_x = read_sets("b_x", b_x, {g, three});
    gru.w_h = read_sets("w_h", w_h, {g, gru.hidden, three});
    gru.b_n = read_sets("b_n", b_n, {g, gru.hidden});
    require_shape("reset", reset, {g, gru.steps, gru.rows});
    require(gru.rows <= 1 || reset.strides(2) == 1, "the last axis of reset must be contiguous");
    require(gru.steps <= 1 || reset.strides(1) == gru.rows, "the last two axes of reset must be contiguous");
    gru.reset = reset.data(), gru.reset_set_stride = reset.strides(0);
    gru.bf16 = bf16;
    return gru;
}

void gru_forward(const Floats& x, const Floats& h0, const Flags& reset, const Floats& w_x, const Floats& b_x,
                 const Floats& w_h, const Floats& b_n, bool bf16, Floats& h, std::optional<Floats>& gates) {
    Gru gru = unrolled(x, h0, reset, w_x, b_x, w_h, b_n, bf16);
    GruOutputs out{};
    out.h = write("h", h, {gru.sets, gru.steps, gru.rows, gru.hidden});
    out.gates = write("gates", gates, {gru.sets, gru.steps, gru.rows, 4 * gru.hidden});
    py::gil_scoped_release nogil;
    kernels().gru_forward(gru, out);
}

void gru_backward(const Floats& dh, const Floats& h, const Floats& gates, const Floats& x, const Floats& h0,
                  const Flags& reset, const Floats& w_x, const Floats& b_x, const Floats& w_h, const Floats& b_n,
                  bool bf16, std::int64_t window, std::optional<Floats>& dx, Floats& dh0, Floats& dw_x, Floats& db_x,
                  Floats& dw_h, Floats& db_n) {
    Gru gru = unrolled(x, h0, reset, w_x, b_x, w_h, b_n, bf16);
    const std::int64_t g = gru.sets, three = 3 * gru.hidden;
    GruGradient grad{};
    grad.dh = read("dh", dh, {g, gru.steps, gru.rows, gru.hidden});
    grad.h = read("h", h, {g, gru.steps, gru.rows, gru.hidden});
    grad.gates = read("gates", gates, {g, gru.steps, gru.rows, 4 * gru.hidden});
    grad.dx = write("dx", dx, {g, gru.steps, gru.rows, gru.in});
    grad.dh0 = write("dh0", dh0, {g, gru.rows, gru.hidden});
    grad.dw_x = write("dw_x", dw_x, {g, gru.in, three});
    grad.db_x = write("db_x", db_x, {g, three});
    grad.dw_h = write("dw_h", dw_h, {g, gru.hidden, three});
    grad.db_n = write("db_n", db_n, {g, gru.hidden});
    if (window < 0) fail("window must be 0 (none) or positive; got " + std::to_string(window));
    grad.window = window;
    py::gil_scoped_release nogil;
    kernels().gru_backward(gru, grad);
}

void gru_difference(const Floats& x, const Floats& dx, const Floats& h, const Floats& gates, const Floats& h0,
                    const Flags& reset, const Floats& w_x, const Floats& b_x, const Floats& w_h, const Floats& b_n,
                    const Floats& w_x_k, const Floats& b_x_k, const Floats& w_h_k, const Floats& b_n_k, bool bf16,
                    Floats& dh) {
    GruDifference d{};
    d.now = unrolled(x, h0, reset, w_x, b_x, w_h, b_n, bf16);
    const std::int64_t g = d.now.sets, steps = d.now.steps, rows = d.now.rows, in = d.now.in, hidden = d.now.hidden;
    d.dx = read_sets("dx", dx, {g, steps, rows, in});
    d.w_x = read_sets("w_x_k", w_x_k, {g, in, 3 * hidden}), d.b_x = read_sets("b_x_k", b_x_k, {g, 3 * hidden});
    d.w_h = read_sets("w_h_k", w_h_k, {g, hidden, 3 * hidden}), d.b_n = read_sets("b_n_k", b_n_k, {g, hidden});
    d.h = read("h", h, {g, steps, rows, hidden}), d.gates = read("gates", gates, {g, steps, rows, 4 * hidden});
    d.dh = write("dh", dh, {g, steps, rows, hidden});
    py::gil_scoped_release nogil;
    kernels().gru_difference(d);
}

}  // namespace
}  // namespace kpg

void bind_gru(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("gru_forward", &kpg::gru_forward, raw("x"), raw("h0"), raw("reset"), raw("w_x"), raw("b_x"), raw("w_h"),
          raw("b_n"), py::arg("bf16"), raw("h"), raw("gates").none(true),
          "Hidden states h [G, T, R, H], and gates [G, T, R, 4H] for the backward pass unless None.");
    m.def("gru_backward", &kpg::gru_backward, raw("dh"), raw("h"), raw("gates"), raw("x"), raw("h0"), raw("reset"),
          raw("w_x"), raw("b_x"), raw("w_h"), raw("b_n"), py::arg("bf16"), py::arg("window"), raw("dx").none(true),
          raw("dh0"), raw("dw_x"), raw("db_x"), raw("dw_h"), raw("db_n"),
          "Gradients of gru_forward, cut at windows of so many steps unless 0; dx may be None.");
    m.def("gru_difference", &kpg::gru_difference, raw("x"), raw("dx"), raw("h"), raw("gates"), raw("h0"), raw("reset"),
          raw("w_x"), raw("b_x"), raw("w_h"), raw("b_n"), raw("w_x_k"), raw("b_x_k"), raw("w_h_k"), raw("b_n_k"),
          py::arg("bf16"), raw("dh"), "How the hidden states change with the parameters and the input.");
}
