// Kernels for what every machine of this architecture has: SSE2 on x86, NEON on Arm.
#include "gemm_prelude.hpp"

#define KPG_ISA generic
#define KPG_LANES 4
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_generic = kpg::generic::kTable;
