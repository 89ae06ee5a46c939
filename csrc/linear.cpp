// Bindings of the batched linear layer; the arithmetic is in linear_kernels.hpp.
#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

Linear layer(const Floats& x, const Floats& w, const std::optional<Floats>& b, bool relu, bool bf16) {
    require(x.ndim() == 3 && w.ndim() == 3, "x must be [G, M, in] and w [G, in, out]; got " + describe(x) + ", " + describe(w));
    Linear l{};
    l.sets = w.shape(0), l.rows = x.shape(1), l.in = w.shape(1), l.out = w.shape(2);
    require_shape("x", x, {l.sets, l.rows, l.in});
    require(l.in <= 1 || x.strides(2) == 4, "the last axis of x must be contiguous; got strided " + describe(x));
    l.x = {x.data(), x.strides(0) / 4}, l.x_row_stride = x.strides(1) / 4;
    l.w = read_sets("w", w, {l.sets, l.in, l.out});
    if (b) l.b = read_sets("b", *b, {l.sets, l.out});
    l.relu = relu, l.bf16 = bf16;
    return l;
}

void linear_forward(const Floats& x, const Floats& w, const std::optional<Floats>& b, bool relu, bool bf16, Floats& y,
                    std::optional<Floats>& sums) {
    Linear l = layer(x, w, b, relu, bf16);
    require(relu || !sums, "sums are kept for the ReLU alone");
    LinearOutputs out{write("y", y, {l.sets, l.rows, l.out}), write("sums", sums, {l.sets, l.rows, l.out})};
    py::gil_scoped_release nogil;
    kernels().linear_forward(l, out);
}

void linear_backward(const Floats& dy, const Floats& y, const Floats& x, const Floats& w, bool relu, bool bf16,
                     std::optional<Floats>& dx, Floats& dw, std::optional<Floats>& db) {
    Linear l = layer(x, w, std::nullopt, relu, bf16);
    LinearGradient grad{};
    grad.dy = read("dy", dy, {l.sets, l.rows, l.out});
    if (relu) grad.y = read("y", y, {l.sets, l.rows, l.out});
    grad.dx = write("dx", dx, {l.sets, l.rows, l.in});
    grad.dw = write("dw", dw, {l.sets, l.in, l.out});
    grad.db = write("db", db, {l.sets, l.out});
    py::gil_scoped_release nogil;
    kernels().linear_backward(l, grad);
}

void linear_difference(const Floats& x, const std::optional<Floats>& dx, const Floats& w, const Floats& w_k,
                       const std::optional<Floats>& b, const std::optional<Floats>& b_k,
                       const std::optional<Floats>& sums, bool bf16, Floats& dy) {
    LinearDifference d{};
    d.now = layer(x, w, b, false, bf16);
    const Linear& l = d.now;
    require(b.has_value() == b_k.has_value(), "b and b_k must both be given or both be None");
    d.w = read_sets("w_k", w_k, {l.sets, l.in, l.out});
    if (b_k) d.b = read_sets("b_k", *b_k, {l.sets, l.out});
    if (dx) d.dx = read_sets("dx", *dx, {l.sets, l.rows, l.in});
    d.sums = read("sums", sums, {l.sets, l.rows, l.out});
    d.dy = write("dy", dy, {l.sets, l.rows, l.out});
    py::gil_scoped_release nogil;
    kernels().linear_difference(d);
}

}  // namespace
}  // namespace kpg

void bind_linear(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("linear_forward", &kpg::linear_forward, raw("x"), raw("w"), raw("b").none(true), py::arg("relu"),
          py::arg("bf16"), raw("y"), raw("sums").none(true) = py::none(),
          "y = act(x w + b) [G, M, out]; sums is x w + b, or None where it is not wanted.");
    m.def("linear_backward", &kpg::linear_backward, raw("dy"), raw("y"), raw("x"), raw("w"), py::arg("relu"),
          py::arg("bf16"), raw("dx").none(true), raw("dw"), raw("db").none(true),
          "Gradients of linear_forward; dx and db may be None.");
    m.def("linear_difference", &kpg::linear_difference, raw("x"), raw("dx").none(true), raw("w"), raw("w_k"),
          raw("b").none(true), raw("b_k").none(true), raw("sums").none(true), py::arg("bf16"), raw("dy"),
          "How the layer's result changes with its parameters and input.");
}
