// All kernels of one instruction set; included once by each gemm_<isa>.cpp.
#pragma once
#include "gemm_simd.hpp"
#include "gemm_tiles.hpp"
#ifdef KPG_AMX
#include "gemm_amx.hpp"
#endif
#include "gemm_kernels.hpp"
#include "linear_kernels.hpp"
#include "mlp_kernels.hpp"
#include "gru_kernels.hpp"
#include "gru_gradient.hpp"
#include "linear_difference.hpp"
#include "gru_difference.hpp"
#include "policy_kernels.hpp"
#include "policy_surrogate.hpp"

namespace kpg::KPG_ISA {

// A constant: nothing compiled for this instruction set may run before the CPU was asked whether it has it.
constexpr Kernels kTable = {
    linear_forward,
    linear_backward,
    mlp_forward,
    mlp_deltas,
    mlp_gradient,
    gru_forward,
    gru_backward,
    linear_difference,
    gru_difference,
    log_prob_entropy,
    log_prob_entropy_backward,
    log_prob_difference,
    sample,
    surrogate,
};

}  // namespace kpg::KPG_ISA
