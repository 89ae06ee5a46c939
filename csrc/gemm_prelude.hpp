// What the kernels take from the standard library, included before a wider instruction set is asked for: a function of
// the library compiled with one could otherwise be the copy the linker keeps for the whole program.
#pragma once
#include <algorithm>
#include <cstdint>
#include <cstring>

#include "gemm.hpp"
