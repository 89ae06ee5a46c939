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
    return py::cast<std::string>(py::str(array.dtype())) + " " + shape + "]";
}

inline void require(bool condition, const std::string& message) {
    if (!condition) throw std::invalid_argument(message);
}

inline void require_contiguous(const char* name, const py::array& array) {
    require((array.flags() & py::array::c_style) != 0,
            std::string(name) + " must be C-contiguous; got strided " + describe(array));
}

inline const std::uint8_t* read_bytes(const char* name, const py::array& array) {
    require_contiguous(name, array);
    return static_cast<const std::uint8_t*>(array.data());
}

inline std::uint8_t* write_bytes(const char* name, py::array& array) {
    require_contiguous(name, array);
    require(array.writeable(), std::string(name) + " must be writable");
    return static_cast<std::uint8_t*>(array.mutable_data());
}

inline void require_like(const char* name, const py::array& array, const char* model_name, const py::array& model) {
    bool same = array.dtype().equal(model.dtype()) && array.ndim() == model.ndim() &&
                std::equal(array.shape(), array.shape() + array.ndim(), model.shape());
    require(same, std::string(name) + " must be like " + model_name + ", " + describe(model) + "; got " + describe(array));
}

// Two ranges of equal length may be one and the same or have nothing in common; halfway, results would depend on order.
inline void require_no_partial_overlap(const char* a_name, const void* a, const char* b_name, const void* b,
                                       std::int64_t nbytes) {
    auto first = reinterpret_cast<std::uintptr_t>(a), second = reinterpret_cast<std::uintptr_t>(b);
    auto distance = first > second ? first - second : second - first;
    require(distance == 0 || distance >= static_cast<std::uintptr_t>(nbytes),
            std::string(a_name) + " and " + b_name + " overlap in part");
}

// 0 asks for as many threads as torch uses; below `serial_bytes` a second thread costs more than it saves.
int team_size(int num_threads, std::int64_t nbytes, std::int64_t serial_bytes = 1 << 16);

}  // namespace kpg
