// Kernels for AVX-512; bfloat16 products are taken apart into float32 ones.
#include "gemm_prelude.hpp"

#ifdef KPG_X86_KERNELS
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma")
#define KPG_ISA avx512
#define KPG_LANES 16
#define KPG_MASKED
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_avx512 = kpg::avx512::kTable;
#endif
