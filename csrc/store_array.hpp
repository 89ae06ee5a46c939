// What the store's functions ask of an array: a NumPy array of the right type, contiguous and, where written, writable.
#pragma once
#include <algorithm>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

#include "bindings.hpp"

namespace kpg {

inline std::string describe(const py::array& array) {
    std::string shape = "[";
    for (py::ssize_t axis = 0; axis < array.ndim(); ++axis) {
        shape += (axis ? ", " : "") + std::to_string(array.shape(axis));
    }
    // NumPy's own name of a type takes ten microseconds, and a message is built at every check
    const py::dtype type = array.dtype();
    const char kind = type.kind();
    std::string name = kind == 'f' ? "float" : kind == 'i' ? "int" : kind == 'u' ? "uint" : kind == 'b' ? "bool" : "";
    if (name.empty()) return py::cast<std::string>(py::str(type)) + " " + shape + "]";
    return name + (kind == 'b' ? "" : std::to_string(8 * type.itemsize())) + " " + shape + "]";
}

// `require` builds its message at every call; where calls are short, test first and `fail`: describing an array takes
// microseconds.
[[noreturn]] inline void fail(const std::string& message) { throw std::invalid_argument(message); }

inline void require(bool condition, const std::string& message) {
    if (!condition) fail(message);
}

inline bool has_dtype(const py::array& array, const py::dtype& dtype) {
    return array.dtype().is(dtype) || array.dtype().equal(dtype);
}

inline void require_contiguous(const char* name, const py::array& array) {
    if (array.flags() & py::array::c_style) return;
    fail(std::string(name) + " must be C-contiguous; got strided " + describe(array));
}

inline const std::uint8_t* read_bytes(const char* name, const py::array& array) {
    require_contiguous(name, array);
    return static_cast<const std::uint8_t*>(array.data());
}

inline std::uint8_t* write_bytes(const char* name, py::array& array) {
    require_contiguous(name, array);
    if (!array.writeable()) fail(std::string(name) + " must be writable");
    return static_cast<std::uint8_t*>(array.mutable_data());
}

inline void require_like(const char* name, const py::array& array, const char* model_name, const py::array& model) {
    bool same = has_dtype(array, model.dtype()) && array.ndim() == model.ndim() &&
                std::equal(array.shape(), array.shape() + array.ndim(), model.shape());
    if (!same) fail(std::string(name) + " must be like " + model_name + ", " + describe(model) + "; got " + describe(array));
}

// Two ranges of equal length may be one and the same or have nothing in common; halfway, results would depend on order.
inline void require_no_partial_overlap(const char* a_name, const void* a, const char* b_name, const void* b,
                                       std::int64_t nbytes) {
    auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
    auto distance = first > second ? first - second : second - first;
    if (distance != 0 && distance < static_cast<std::uintptr_t>(nbytes)) {
        fail(std::string(a_name) + " and " + b_name + " overlap in part");
    }
}

// 0 asks for as many threads as torch uses; below `serial_bytes` a second thread costs more than it saves.
int team_size(int num_threads, std::int64_t nbytes, std::int64_t serial_bytes = 1 << 16);

}  // namespace kpg
