// Checked access to NumPy arrays of float32, int32 and bool for the bindings of the kernels.
#pragma once
#include <initializer_list>
#include <optional>

#include "gemm.hpp"
#include "store_array.hpp"

namespace kpg {

using Floats = py::array_t<float>;

inline void require_shape(const char* name, const py::array& array, std::initializer_list<std::int64_t> shape) {
    bool same = array.ndim() == static_cast<py::ssize_t>(shape.size()) &&
                std::equal(shape.begin(), shape.end(), array.shape());
    if (same) return;
    std::string wanted;
    for (std::int64_t n : shape) wanted += (wanted.empty() ? "" : ", ") + std::to_string(n);
    throw std::invalid_argument(std::string(name) + " must be [" + wanted + "]; got " + describe(array));
}

// The data of a contiguous array of this shape.
template <class T>
const T* read(const char* name, const py::array_t<T>& array, std::initializer_list<std::int64_t> shape) {
    require_shape(name, array, shape);
    require_contiguous(name, array);
    return array.data();
}

template <class T>
T* write(const char* name, py::array_t<T>& array, std::initializer_list<std::int64_t> shape) {
    require_shape(name, array, shape);
    return reinterpret_cast<T*>(write_bytes(name, array));
}

// Arrays [G, ...] of which each of the G is contiguous.
inline Sets read_sets(const char* name, const Floats& array, std::initializer_list<std::int64_t> shape) {
    require_shape(name, array, shape);
    std::int64_t expected = sizeof(float);
    for (py::ssize_t axis = array.ndim() - 1; axis > 0; --axis) {
        require(array.shape(axis) <= 1 || array.strides(axis) == expected,
                std::string(name) + " must be contiguous behind its first axis; got strided " + describe(array));
        expected *= array.shape(axis);
    }
    return {array.data(), array.strides(0) / static_cast<std::int64_t>(sizeof(float))};
}

// The same for an argument that may be None.
template <class T>
const T* read(const char* name, const std::optional<py::array_t<T>>& array, std::initializer_list<std::int64_t> shape) {
    return array ? read(name, *array, shape) : nullptr;
}

template <class T>
T* write(const char* name, std::optional<py::array_t<T>>& array, std::initializer_list<std::int64_t> shape) {
    return array ? write(name, *array, shape) : nullptr;
}

}  // namespace kpg
