// The slab that holds every parameter slot, and what is done to whole slots: copy and Polyak average.
#include <omp.h>
#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>

#include <pybind11/stl.h>

#include "store_array.hpp"

namespace kpg {

int team_size(int num_threads, std::int64_t nbytes, std::int64_t serial_bytes) {
    if (num_threads < 0) fail("num_threads must be 0 (all) or positive; got " + std::to_string(num_threads));
    if (num_threads > 0) return num_threads;
    return nbytes < serial_bytes ? 1 : omp_get_max_threads();
}

namespace {

constexpr std::int64_t kPage = 4096;
constexpr std::int64_t kHugePage = 2 << 20;

// Zeroed memory that does not move. From one huge page on it asks for huge pages: a pass over a slab of 1 GB
// otherwise spends part of its time on a quarter of a million page-table entries.
class Slab {
  public:
    explicit Slab(std::int64_t nbytes) : nbytes_(nbytes) {
        if (nbytes <= 0) fail("a slab needs at least one byte; got " + std::to_string(nbytes));
        std::int64_t alignment = nbytes >= kHugePage ? kHugePage : kPage;
        if (nbytes > INT64_MAX - alignment) throw std::bad_alloc();
        std::int64_t rounded = (nbytes + alignment - 1) / alignment * alignment;
        data_.reset(static_cast<std::uint8_t*>(std::aligned_alloc(alignment, rounded)));
        if (!data_) throw std::bad_alloc();
        if (alignment == kHugePage) madvise(data_.get(), rounded, MADV_HUGEPAGE);
        std::uint8_t* data = data_.get();
        // the thread that will work on a page is the first to touch it
#pragma omp parallel for schedule(static) num_threads(team_size(0, rounded))
        for (std::int64_t page = 0; page < rounded / kPage; ++page) std::memset(data + page * kPage, 0, kPage);
    }

    std::uint8_t* data() const { return data_.get(); }
    std::int64_t nbytes() const { return nbytes_; }

  private:
    struct Free {
        void operator()(std::uint8_t* data) const { std::free(data); }
    };
    std::unique_ptr<std::uint8_t, Free> data_;
    std::int64_t nbytes_;
};

struct Segment {
    const std::uint8_t* src;
    std::uint8_t* dst;
    std::int64_t nbytes;
};

// Each thread copies one contiguous share of all segments' bytes, cut at pages.
void copy_segments(const std::vector<Segment>& segments, int num_threads) {
    std::int64_t total = 0;
    for (const Segment& segment : segments) total += segment.nbytes;
#pragma omp parallel num_threads(team_size(num_threads, total))
    {
        std::int64_t team = omp_get_num_threads(), me = omp_get_thread_num();
        std::int64_t pages = (total + kPage - 1) / kPage;
        std::int64_t begin = pages * me / team * kPage, end = std::min(pages * (me + 1) / team * kPage, total);
        std::int64_t start = 0;
        for (const Segment& segment : segments) {
            std::int64_t from = std::max(begin - start, std::int64_t{0}), to = std::min(end - start, segment.nbytes);
            if (from < to) std::memcpy(segment.dst + from, segment.src + from, to - from);
            start += segment.nbytes;
        }
    }
}

Segment segment(const py::array& src, py::array& dst) {
    if (src.nbytes() != dst.nbytes()) {
        fail("src and dst must have as many bytes; got " + describe(src) + " and " + describe(dst));
    }
    Segment result{read_bytes("src", src), write_bytes("dst", dst), static_cast<std::int64_t>(src.nbytes())};
    require_no_partial_overlap("src", result.src, "dst", result.dst, result.nbytes);
    return result;
}

void copy(const py::array& src, py::array dst, int num_threads) {
    std::vector<Segment> segments{segment(src, dst)};
    if (segments[0].src == segments[0].dst) return;
    py::gil_scoped_release release;
    copy_segments(segments, num_threads);
}

void copy_many(const std::vector<py::array>& src, std::vector<py::array> dst, int num_threads) {
    if (src.size() != dst.size()) {
        fail("src and dst must be as many arrays; got " + std::to_string(src.size()) + " and " +
             std::to_string(dst.size()));
    }
    std::vector<Segment> segments;
    for (std::size_t i = 0; i < src.size(); ++i) segments.push_back(segment(src[i], dst[i]));
    py::gil_scoped_release release;
    copy_segments(segments, num_threads);
}

template <typename T>
void polyak_of(const py::array& src, py::array& dst, double tau, int num_threads) {
    const T* from = reinterpret_cast<const T*>(read_bytes("src", src));
    T* to = reinterpret_cast<T*>(write_bytes("dst", dst));
    std::int64_t size = src.size(), nbytes = src.nbytes();
    require_no_partial_overlap("src", from, "dst", to, nbytes);
    const T keep = static_cast<T>(1.0 - tau), take = static_cast<T>(tau);
    py::gil_scoped_release release;
#pragma omp parallel for simd schedule(static) num_threads(team_size(num_threads, nbytes))
    for (std::int64_t i = 0; i < size; ++i) to[i] = keep * to[i] + take * from[i];
}

void polyak(const py::array& src, py::array dst, double tau, int num_threads) {
    require_like("dst", dst, "src", src);
    if (!(tau >= 0.0 && tau <= 1.0)) fail("tau must lie in [0, 1]; got " + std::to_string(tau));
    if (has_dtype(src, py::dtype::of<float>())) return polyak_of<float>(src, dst, tau, num_threads);
    if (has_dtype(src, py::dtype::of<double>())) return polyak_of<double>(src, dst, tau, num_threads);
    fail("src must be float32 or float64; got " + describe(src));
}

}  // namespace
}  // namespace kpg

void bind_store(py::module_& m) {
    using kpg::Slab;
    py::class_<Slab>(m, "Slab", "Zeroed memory on page boundaries (huge pages from 2 MB on) that never moves.")
        .def(py::init<std::int64_t>(), py::arg("nbytes"))
        .def_property_readonly("nbytes", &Slab::nbytes)
        .def("array", [](py::object self) {
            const Slab& slab = self.cast<const Slab&>();
            return py::array_t<std::uint8_t>({slab.nbytes()}, {std::int64_t{1}}, slab.data(), self);
        }, "The whole slab as uint8 [nbytes]; the array keeps the slab alive.");
    m.def("copy", &kpg::copy, py::arg("src").noconvert(), py::arg("dst").noconvert(), py::arg("num_threads") = 0,
          "Copy the bytes of one contiguous array into another.");
    m.def("copy_many", &kpg::copy_many, py::arg("src").noconvert(), py::arg("dst").noconvert(),
          py::arg("num_threads") = 0,
          "Copy the bytes of each array of src into the same place of dst, as one parallel pass.");
    m.def("polyak", &kpg::polyak, py::arg("src").noconvert(), py::arg("dst").noconvert(), py::arg("tau"),
          py::arg("num_threads") = 0, "dst = (1 - tau) dst + tau src; float32 or float64.");
}
