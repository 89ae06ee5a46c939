// Kernels for AVX-512 with its bfloat16 dot product.
#include "gemm_prelude.hpp"

#ifdef KPG_X86_KERNELS
#include <immintrin.h>
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512dq,avx512bf16,avx2,fma")
#define KPG_ISA avx512_bf16
#define KPG_LANES 16
#define KPG_MASKED
#define KPG_BF16_DOT
#include "gemm_table.hpp"

constexpr kpg::Kernels kpg::kernels_avx512_bf16 = kpg::avx512_bf16::kTable;
#endif
