// The kernels for AMX with its instructions emulated, for tests on machines without it.
#include "gemm_prelude.hpp"

#ifdef KPG_X86_KERNELS
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define KPG_ISA amx_emulated
#define KPG_LANES 16
#define KPG_MASKED
#define KPG_AMX
#define KPG_AMX_EMULATED
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_amx_emulated = kpg::amx_emulated::kTable;
#endif
