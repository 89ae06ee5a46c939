// Kernels for AMX: products of bfloat16 in tile registers, all else as with AVX-512.
#include "gemm_prelude.hpp"

#ifdef KPG_AMX_KERNELS
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#define KPG_ISA amx_bf16
#define KPG_LANES 16
#define KPG_MASKED
#define KPG_BF16_DOT
#define KPG_AMX
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_amx = kpg::amx_bf16::kTable;
#endif
