// The networks that turn states into a mixer's weights, forward and backward in one call: eight small layers, whose
// arithmetic is that of linear_kernels.hpp.
#include <pybind11/stl.h>

#include <cstring>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

// state.w, state.b, w1.w, w1.b, w2.w, w2.b, v.w, v.b, each with a leading axis of 1
using Eight = std::array<Floats, 8>;

struct Sizes {
    std::int64_t rows, state, agents_hidden, hidden, inner, first;

    Sizes(const Floats& s, const Eight& p) {
        if (s.ndim() != 2 || p[0].ndim() != 3 || p[2].ndim() != 3 || p[4].ndim() != 3) {
            fail("state must have two axes and every weight three");
        }
        rows = s.shape(0), state = s.shape(1), inner = p[4].shape(1), hidden = p[4].shape(2);
        agents_hidden = p[2].shape(2), first = 2 * inner + 2 * hidden;
        require_contiguous("state", s);
        read("state.w", p[0], {1, state, first}), read("state.b", p[1], {1, first});
        read("w1.w", p[2], {1, inner, agents_hidden}), read("w1.b", p[3], {1, agents_hidden});
        read("w2.w", p[4], {1, inner, hidden}), read("w2.b", p[5], {1, hidden});
        read("v.w", p[6], {1, hidden, 1}), read("v.b", p[7], {1, 1});
    }

    // The second layers: which columns of the first layer's output they take, and how many they give.
    struct Part {
        std::int64_t from, in, out;
    };
    std::array<Part, 3> parts() const {
        return {Part{0, inner, agents_hidden}, Part{inner, inner, hidden}, Part{2 * inner, hidden, 1}};
    }
    std::int64_t rectified() const { return 2 * inner + hidden; }
};

Linear layer(std::int64_t rows, std::int64_t in, std::int64_t out, const float* x, std::int64_t stride, const float* w,
             const float* b) {
    Linear l{};
    l.sets = 1, l.rows = rows, l.in = in, l.out = out, l.x = {x, 0}, l.x_row_stride = stride, l.w = {w, 0}, l.b = {b, 0};
    return l;
}

void forward(const Floats& state, const Eight& p, Floats& first, Floats& w1, Floats& b1, Floats& w2, Floats& v) {
    const Sizes s(state, p);
    float* const into = write("first", first, {1, s.rows, s.first});
    float* const bias = write("b1", b1, {s.rows, s.hidden});
    const std::array<float*, 3> out{write("w1", w1, {s.rows, s.agents_hidden}), write("w2", w2, {s.rows, s.hidden}),
                                    write("v", v, {s.rows, 1})};
    py::gil_scoped_release nogil;
    kernels().linear_forward(layer(s.rows, s.state, s.first, state.data(), s.state, p[0].data(), p[1].data()),
                             {into, nullptr});
    for (std::int64_t row = 0; row < s.rows; ++row) {
        float* at = into + row * s.first;
        for (std::int64_t i = 0; i < s.rectified(); ++i) at[i] = at[i] < 0.0f ? 0.0f : at[i];  // a NaN stays one
        std::memcpy(bias + row * s.hidden, at + s.rectified(), s.hidden * sizeof(float));
    }
    for (int part = 0; part < 3; ++part) {
        const Sizes::Part l = s.parts()[part];
        kernels().linear_forward(layer(s.rows, l.in, l.out, into + l.from, s.first, p[2 + 2 * part].data(),
                                       p[3 + 2 * part].data()),
                                 {out[part], nullptr});
    }
}

void backward(const Floats& state, const Eight& p, const Floats& first, const Floats& dw1, const Floats& db1,
              const Floats& dw2, const Floats& dv, Floats& scratch, Eight into) {
    const Sizes s(state, p), same(state, into);
    const float* const activation = read("first", first, {1, s.rows, s.first});
    const float* const bias = read("db1", db1, {s.rows, s.hidden});
    const std::array<const float*, 3> dy{read("dw1", dw1, {s.rows, s.agents_hidden}),
                                         read("dw2", dw2, {s.rows, s.hidden}), read("dv", dv, {s.rows, 1})};
    float* const dfirst = write("scratch", scratch, {2, s.rows, s.first});
    std::array<float*, 8> grads;
    for (int i = 0; i < 8; ++i) grads[i] = reinterpret_cast<float*>(write_bytes("a gradient", into[i]));
    py::gil_scoped_release nogil;
    float* const dx = dfirst + s.rows * s.first;
    for (int part = 0; part < 3; ++part) {
        const Sizes::Part l = s.parts()[part];
        const Linear of = layer(s.rows, l.in, l.out, activation + l.from, s.first, p[2 + 2 * part].data(), nullptr);
        kernels().linear_backward(of, {dy[part], nullptr, dx, grads[2 + 2 * part], grads[3 + 2 * part]});
        for (std::int64_t row = 0; row < s.rows; ++row) {
            const float* on = activation + row * s.first + l.from;
            float* to = dfirst + row * s.first + l.from;
            for (std::int64_t i = 0; i < l.in; ++i) {
                const float d = dx[row * l.in + i];
                to[i] = on[i] > 0.0f ? d : 0.0f;
            }
        }
    }
    for (std::int64_t row = 0; row < s.rows; ++row) {
        std::memcpy(dfirst + row * s.first + s.rectified(), bias + row * s.hidden, s.hidden * sizeof(float));
    }
    kernels().linear_backward(layer(s.rows, s.state, s.first, state.data(), s.state, p[0].data(), nullptr),
                              {dfirst, nullptr, nullptr, grads[0], grads[1]});
}

}  // namespace
}  // namespace kpg

void bind_hypernetwork(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("hypernetwork_forward", &kpg::forward, raw("state"), raw("p"), raw("first"), raw("w1"), raw("b1"), raw("w2"),
          raw("v"), "The mixer's weights for states [R, S]; first [1, R, 2 Y + 2 M] is the first layer's output.");
    m.def("hypernetwork_backward", &kpg::backward, raw("state"), raw("p"), raw("first"), raw("dw1"), raw("db1"),
          raw("dw2"), raw("dv"), raw("scratch"), raw("into"),
          "The parameters' gradients for those of the weights; scratch is [2, R, 2 Y + 2 M].");
}
