// Normal noise of the Gaussian policy; see kernels/gaussian_policy/__init__.py.
#include <cmath>

#include "gemm_arrays.hpp"
#include "philox.hpp"

namespace kpg {
namespace {

using Counters = py::array_t<std::int64_t>;

// Box and Muller's two normal numbers of two words.
void normal_pair(std::uint32_t first, std::uint32_t second, double* pair) {
    const double radius = std::sqrt(-2 * std::log((double(first >> 8) + 1) * 0x1p-24));
    const double angle = 2 * M_PI * (double(second >> 8) * 0x1p-24);
    pair[0] = radius * std::cos(angle), pair[1] = radius * std::sin(angle);
}

void standard_normal(const Counters& seed, const Counters& row, const Counters& step, std::uint32_t stream, Floats& noise) {
    require(noise.ndim() == 2, "noise must be [rows, A]; got " + describe(noise));
    const std::int64_t rows = noise.shape(0), size = noise.shape(1);
    const std::int64_t *key = read("seed", seed, {rows}), *who = read("row", row, {rows});
    const std::int64_t* when = read("step", step, {rows});
    float* out = write("noise", noise, {rows, size});
    py::gil_scoped_release nogil;
#pragma omp parallel for schedule(static) num_threads(threads_for(100.0 * rows * size))
    for (std::int64_t i = 0; i < rows; ++i) {
        for (std::int64_t d = 0; d < size; d += 4) {
            const Words words = philox(key[i], std::uint32_t(who[i]), stream + std::uint32_t(d / 4), when[i]);
            double normal[4];
            normal_pair(words.word[0], words.word[1], normal);
            normal_pair(words.word[2], words.word[3], normal + 2);
            for (std::int64_t j = d; j < std::min(d + 4, size); ++j) out[i * size + j] = float(normal[j - d]);
        }
    }
}

}  // namespace
}  // namespace kpg

void bind_gaussian_policy(py::module_& m) {
    auto raw = [](const char* name) { return py::arg(name).noconvert(); };
    m.def("standard_normal", &kpg::standard_normal, raw("seed"), raw("row"), raw("step"), py::arg("stream"), raw("noise"),
          "Fill noise [rows, A] with normal numbers, each row's by its seed, row and step.");
}
