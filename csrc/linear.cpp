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

void linear_forward(const Floats& x, const Floats& w, const std::optional<Floats>& b, bool relu, bool bf16, Floats& y) {
    Linear l = layer(x, w, b, relu, bf16);
    float* out = write("y", y, {l.sets, l.rows, l.out});
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

}  // namespace
}  // namespace kpg

void bind_linear(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("linear_forward", &kpg::linear_forward, raw("x"), raw("w"), raw("b").none(true), py::arg("relu"),
          py::arg("bf16"), raw("y"), "y = act(x w + b) [G, M, out].");
    m.def("linear_backward", &kpg::linear_backward, raw("dy"), raw("y"), raw("x"), raw("w"), py::arg("relu"),
          py::arg("bf16"), raw("dx").none(true), raw("dw"), raw("db").none(true),
          "Gradients of linear_forward; dx and db may be None.");
}
