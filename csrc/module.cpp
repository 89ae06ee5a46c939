// The extension kpg_fast._C: one function a source file adds its bindings.
#include "bindings.hpp"

PYBIND11_MODULE(_C, m) {
    m.doc() = "CPU parts of kpg_fast: the parameter store and the hot loops";
    bind_store(m);
    bind_checksum(m);
    bind_level_step(m);
    bind_memory(m);
    bind_gemm(m);
    bind_linear(m);
    bind_mlp(m);
    bind_hypernetwork(m);
    bind_gru(m);
    bind_policy(m);
    bind_gaussian_policy(m);
    bind_agent_embedding(m);
    bind_gae(m);
    bind_smac(m);
    bind_mixer(m);
}
