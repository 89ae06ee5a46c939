// The instructions of AMX that products need, on tile registers 0..7. The compiler's own intrinsics do not say that they
// read memory, and a store before them could then come after them.
#pragma once

namespace kpg::KPG_ISA {

struct TileRegisters {
    static void configure(const TileShapes& shapes) { asm volatile("ldtilecfg %0" ::"m"(shapes) : "memory"); }
    static void release() { asm volatile("tilerelease" ::: "memory"); }

    template <int T>
    KPG_INLINE void zero() {
        asm volatile("tilezero %%tmm%c0" ::"i"(T));
    }

    template <int T>
    KPG_INLINE void load(const float* from, std::int64_t stride) {
        asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 4), "i"(T) : "memory");
    }

    template <int T>
    KPG_INLINE void store(float* to, std::int64_t stride) {
        asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "i"(T) : "memory");
    }

    // Sum += A B, both of pairs of bfloat16.
    template <int Sum, int A, int B>
    KPG_INLINE void multiply_add() {
        asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"i"(Sum), "i"(A), "i"(B));
    }
};

}  // namespace kpg::KPG_ISA
