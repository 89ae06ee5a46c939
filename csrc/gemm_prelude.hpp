// What the kernels take from the standard library, included before a wider instruction set is asked for: a function of
// the library compiled with one could otherwise be the copy the linker keeps for the whole program.
#pragma once
#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <initializer_list>

#include "gemm.hpp"
#include "philox.hpp"

// The wider instruction sets are asked for by GCC's pragmas; other compilers build the generic kernels alone.
#if defined(__x86_64__) && !defined(__clang__)
#define KPG_X86_KERNELS
// GCC 11 came with the first assemblers that know AMX; Linux is asked for its tile registers.
#if __GNUC__ >= 11 && defined(__linux__)
#define KPG_AMX_KERNELS
#endif
#endif
