// relu(x + id of the agent) for inputs that agents share, and its gradients: passes over memory, nothing else.
#include <algorithm>
#include <cstdint>
#include <cstring>

#include <pybind11/stl.h>

#include "gemm_arrays.hpp"

namespace kpg {
namespace {

constexpr std::int64_t kRows = 64;  // summed by one thread in order, so that sums are reproducible

struct Sizes {
    std::int64_t sets, rows, agents, hidden;

    Sizes(const Floats& x, const Floats& id) : sets(0), rows(0), agents(0), hidden(0) {
        if (x.ndim() != 3 || id.ndim() != 3) fail("x must be [G, M, H] and id [G, N, H]; got " + describe(x) + ", " + describe(id));
        sets = x.shape(0), rows = x.shape(1), hidden = x.shape(2), agents = id.shape(1);
    }

    std::int64_t blocks() const { return (rows + kRows - 1) / kRows; }
    int threads() const { return threads_for(4.0 * sets * rows * agents * hidden); }
};

void agent_embedding(const Floats& x, const Floats& id, Floats& y) {
    const Sizes s(x, id);
    const float* from = read("x", x, {s.sets, s.rows, s.hidden});
    const Sets ids = read_sets("id", id, {s.sets, s.agents, s.hidden});
    float* to = write("y", y, {s.sets, s.rows, s.agents, s.hidden});
    py::gil_scoped_release nogil;
#pragma omp parallel for schedule(static) num_threads(s.threads())
    for (std::int64_t row = 0; row < s.sets * s.rows; ++row) {
        const float *a = from + row * s.hidden, *b = ids[row / s.rows];
        float* out = to + row * s.agents * s.hidden;
        for (std::int64_t n = 0; n < s.agents; ++n, b += s.hidden, out += s.hidden) {
            for (std::int64_t j = 0; j < s.hidden; ++j) {
                const float sum = a[j] + b[j];
                out[j] = sum < 0 ? 0 : sum;  // a NaN stays one
            }
        }
    }
}

// One block of rows: dx of each, and the block's part of did.
void backward_block(const Sizes& s, const float* dy, const float* y, std::int64_t rows, float* dx, float* did) {
    std::fill_n(did, s.agents * s.hidden, 0.0f);
    for (std::int64_t row = 0; row < rows; ++row, dx += s.hidden) {
        std::fill_n(dx, s.hidden, 0.0f);
        for (std::int64_t n = 0; n < s.agents; ++n, dy += s.hidden, y += s.hidden) {
            float* sum = did + n * s.hidden;
#pragma omp simd
            for (std::int64_t j = 0; j < s.hidden; ++j) {
                const float gradient = dy[j];  // read in any case: a conditional read would keep the loop scalar
                const float passed = y[j] > 0 ? gradient : 0;
                dx[j] += passed;
                sum[j] += passed;
            }
        }
    }
}

void agent_embedding_backward(const Floats& dy, const Floats& y, Floats& dx, Floats& did) {
    const Sizes s(dx, did);
    const float* d = read("dy", dy, {s.sets, s.rows, s.agents, s.hidden});
    const float* result = read("y", y, {s.sets, s.rows, s.agents, s.hidden});
    float *x_out = write("dx", dx, {s.sets, s.rows, s.hidden}), *id_out = write("did", did, {s.sets, s.agents, s.hidden});
    py::gil_scoped_release nogil;
    const std::int64_t blocks = s.blocks(), each = s.agents * s.hidden;
    float* const parts = workspace(0, s.sets * blocks * each);
#pragma omp parallel for schedule(static) num_threads(s.threads())
    for (std::int64_t i = 0; i < s.sets * blocks; ++i) {
        const std::int64_t first = i % blocks * kRows, at = i / blocks * s.rows + first;
        backward_block(s, d + at * each, result + at * each, std::min(kRows, s.rows - first), x_out + at * s.hidden,
                       parts + i * each);
    }
    for (std::int64_t g = 0; g < s.sets; ++g) {
        float* sum = id_out + g * each;
        std::fill_n(sum, each, 0.0f);
        for (std::int64_t block = 0; block < blocks; ++block) {
            const float* part = parts + (g * blocks + block) * each;
            for (std::int64_t j = 0; j < each; ++j) sum[j] += part[j];
        }
    }
}

}  // namespace
}  // namespace kpg

void bind_agent_embedding(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("agent_embedding", &kpg::agent_embedding, raw("x"), raw("id"), raw("y"), "y = relu(x + id).");
    m.def("agent_embedding_backward", &kpg::agent_embedding_backward, raw("dy"), raw("y"), raw("dx"), raw("did"),
          "Gradients of agent_embedding.");
}
