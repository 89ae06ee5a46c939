// Kernels for AVX2 with FMA.
#include "gemm_prelude.hpp"

#ifdef KPG_X86_KERNELS
#pragma GCC target("avx2,fma")
#define KPG_ISA avx2
#define KPG_LANES 8
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_avx2 = kpg::avx2::kTable;
#endif
