// Bindings of the perceptrons; the arithmetic is in mlp_kernels.hpp.
#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

// in.w, in.b, mid.w, mid.b, out.w, out.b, each [G, ...]
using Six = std::array<Floats, 6>;

Mlp network(const Floats& x, const Six& p, bool bf16) {
    if (x.ndim() != 3 || p[0].ndim() != 3 || p[4].ndim() != 3) fail("x, in.w and out.w must have three axes");
    Mlp m{};
    m.sets = p[0].shape(0), m.rows = x.shape(1), m.in = x.shape(2), m.hidden = p[0].shape(2), m.out = p[4].shape(2);
    m.bf16 = bf16;
    if (x.shape(0) != m.sets && x.shape(0) != 1) fail("x must be for one set or for all; got " + describe(x));
    if (m.in > 1 && x.strides(2) != 4) fail("the last axis of x must be contiguous; got strided " + describe(x));
    m.x = {x.data(), x.shape(0) == 1 ? 0 : x.strides(0) / 4}, m.x_row_stride = x.strides(1) / 4;
    m.w1 = read_sets("in.w", p[0], {m.sets, m.in, m.hidden}), m.b1 = read_sets("in.b", p[1], {m.sets, m.hidden});
    m.w2 = read_sets("mid.w", p[2], {m.sets, m.hidden, m.hidden}), m.b2 = read_sets("mid.b", p[3], {m.sets, m.hidden});
    m.w3 = read_sets("out.w", p[4], {m.sets, m.hidden, m.out}), m.b3 = read_sets("out.b", p[5], {m.sets, m.out});
    return m;
}

WritableSets write_sets(const char* name, Floats& array, std::initializer_list<std::int64_t> shape) {
    const Sets sets = read_sets(name, array, shape);
    if (!array.writeable()) fail(std::string(name) + " must be writable");
    return {array.mutable_data(), sets.stride};
}

void mlp_forward(const Floats& x, const Six& p, bool bf16, Floats& h1, Floats& h2, Floats& y) {
    const Mlp m = network(x, p, bf16);
    MlpActivations out{write("h1", h1, {m.sets, m.rows, m.hidden}), write("h2", h2, {m.sets, m.rows, m.hidden}),
                       write("y", y, {m.sets, m.rows, m.out})};
    py::gil_scoped_release nogil;
    kernels().mlp_forward(m, out);
}

void mlp_deltas(const Floats& x, const Six& p, bool bf16, const Floats& h1, const Floats& h2, const Floats& dy,
                Floats& d1, Floats& d2) {
    const Mlp m = network(x, p, bf16);
    const std::initializer_list<std::int64_t> hidden{m.sets, m.rows, m.hidden};
    MlpDeltas d{read("h1", h1, hidden), read("h2", h2, hidden), read("dy", dy, {m.sets, m.rows, m.out}),
                write("d1", d1, hidden), write("d2", d2, hidden)};
    py::gil_scoped_release nogil;
    kernels().mlp_deltas(m, d);
}

void mlp_gradient(const Floats& x, const Floats& h1, const Floats& h2, const Floats& d1, const Floats& d2,
                  const Floats& dy, bool bf16, Six into) {
    const Mlp m = network(x, into, bf16);
    const std::initializer_list<std::int64_t> hidden{m.sets, m.rows, m.hidden};
    MlpGradient d{read("h1", h1, hidden), read("h2", h2, hidden), read("d1", d1, hidden), read("d2", d2, hidden),
                  read("dy", dy, {m.sets, m.rows, m.out}),
                  write_sets("in.w", into[0], {m.sets, m.in, m.hidden}), write_sets("in.b", into[1], {m.sets, m.hidden}),
                  write_sets("mid.w", into[2], {m.sets, m.hidden, m.hidden}),
                  write_sets("mid.b", into[3], {m.sets, m.hidden}),
                  write_sets("out.w", into[4], {m.sets, m.hidden, m.out}),
                  write_sets("out.b", into[5], {m.sets, m.out})};
    py::gil_scoped_release nogil;
    kernels().mlp_gradient(m, d);
}

}  // namespace
}  // namespace kpg

void bind_mlp(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("mlp_forward", &kpg::mlp_forward, raw("x"), raw("p"), py::arg("bf16"), raw("h1"), raw("h2"), raw("y"),
          "Three layers, the first two with ReLU: h1 and h2 [G, R, H], y [G, R, out] of x [G, R, in] (or [1, R, in]).");
    m.def("mlp_deltas", &kpg::mlp_deltas, raw("x"), raw("p"), py::arg("bf16"), raw("h1"), raw("h2"), raw("dy"),
          raw("d1"), raw("d2"), "Gradients d1 and d2 [G, R, H] before the two ReLUs for dy [G, R, out].");
    m.def("mlp_gradient", &kpg::mlp_gradient, raw("x"), raw("h1"), raw("h2"), raw("d1"), raw("d2"), raw("dy"),
          py::arg("bf16"), raw("into"), "The parameters' gradients, summed over rows.");
}
