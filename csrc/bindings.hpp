// Every source file that is visible from Python declares its bind function here; module.cpp calls them.
#pragma once
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_store(py::module_& m);
void bind_checksum(py::module_& m);
void bind_level_step(py::module_& m);
void bind_memory(py::module_& m);
void bind_gemm(py::module_& m);
void bind_linear(py::module_& m);
void bind_mlp(py::module_& m);
void bind_hypernetwork(py::module_& m);
void bind_gru(py::module_& m);
void bind_policy(py::module_& m);
void bind_gaussian_policy(py::module_& m);
void bind_agent_embedding(py::module_& m);
void bind_gae(py::module_& m);
void bind_smac(py::module_& m);
void bind_mixer(py::module_& m);
