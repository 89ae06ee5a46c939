// Vectors of floats for the instruction set this file is compiled for: GCC's vector extension, so that one source
// serves AVX-512, AVX2, NEON and plain SSE2. Included only by gemm_<isa>.cpp, after KPG_ISA (a namespace) and
// KPG_LANES (floats a register) are defined and the target is set; everything here has internal linkage, because the
// same name compiled for two instruction sets must never be merged by the linker.
#pragma once

namespace kpg::KPG_ISA {

constexpr int kLanes = KPG_LANES;

typedef float Vec __attribute__((vector_size(KPG_LANES * 4)));
typedef std::int32_t IVec __attribute__((vector_size(KPG_LANES * 4)));
typedef float LooseVec __attribute__((vector_size(KPG_LANES * 4), aligned(4), may_alias));
typedef std::uint32_t UVec __attribute__((vector_size(KPG_LANES * 4)));
typedef std::uint16_t HalfVec __attribute__((vector_size(KPG_LANES * 2)));
typedef std::uint16_t LooseHalfVec __attribute__((vector_size(KPG_LANES * 2), aligned(2), may_alias));

#define KPG_INLINE static inline __attribute__((always_inline))

KPG_INLINE Vec load(const float* p) { return *reinterpret_cast<const LooseVec*>(p); }
KPG_INLINE void store(float* p, Vec v) { *reinterpret_cast<LooseVec*>(p) = v; }
// a - 0 is a for every a (0 + a is not, for -0), so this compiles to a plain broadcast and keeps any bit pattern.
KPG_INLINE Vec splat(float a) { return a - Vec{}; }

// The first n lanes from memory, zeros behind.
KPG_INLINE Vec load_first(const float* p, std::int64_t n) {
    if (n >= kLanes) return load(p);
#ifdef KPG_MASKED
    return reinterpret_cast<Vec>(_mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p));
#else
    Vec v{};
    std::memcpy(&v, p, n * sizeof(float));
    return v;
#endif
}

KPG_INLINE void store_first(float* p, Vec v, std::int64_t n) {
    if (n >= kLanes) return store(p, v);
#ifdef KPG_MASKED
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), reinterpret_cast<__m512>(v));
#else
    std::memcpy(p, &v, n * sizeof(float));
#endif
}

// A NaN in the first argument stays one.
KPG_INLINE Vec at_least(Vec a, float bound) { return a < bound ? splat(bound) : a; }
KPG_INLINE Vec at_most(Vec a, float bound) { return a > bound ? splat(bound) : a; }
KPG_INLINE Vec between(Vec a, float low, float high) { return at_most(at_least(a, low), high); }

KPG_INLINE bool any_nonzero(const float* p, std::int64_t n) {
    for (std::int64_t i = 0; i < n; ++i) {
        if (p[i] != 0) return true;
    }
    return false;
}

// Rounded to bfloat16, nearest even, and packed into half a register.
KPG_INLINE HalfVec to_halves(Vec v) {
#ifdef KPG_BF16_DOT
    return reinterpret_cast<HalfVec>(_mm512_cvtneps_pbh(reinterpret_cast<__m512>(v)));
#else
    UVec bits = reinterpret_cast<UVec>(v);
    return __builtin_convertvector((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16, HalfVec);
#endif
}

// The same in the low half of each lane.
KPG_INLINE UVec to_bf16(Vec v) { return __builtin_convertvector(to_halves(v), UVec); }

// e^x = scale * (1 + q): scale = 2^n, q = e^r - 1 with r in +- ln(2)/2. The polynomial is the Taylor series to r^7;
// its remainder there is 5e-9 relative. x must lie in [-87, 88].
struct ExpParts {
    Vec scale, q;
};

KPG_INLINE ExpParts exp_parts(Vec x) {
    // adding 1.5 * 2^23 leaves the nearest integer in the low bits of the sum
    const Vec shift = splat(12582912.0f);
    Vec shifted = x * 1.44269504f + shift;
    Vec n = shifted - shift;
    Vec r = x - n * 0.693359375f;  // ln 2 in two parts: the first product is exact
    r = r + n * 2.12194440e-4f;
    Vec p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    IVec exponent = (reinterpret_cast<IVec>(shifted) << 23) + 0x3f800000;
    return {reinterpret_cast<Vec>(exponent), p * (r * r) + r};
}

KPG_INLINE Vec exp(Vec x) {
    ExpParts e = exp_parts(between(x, -87.0f, 88.0f));
    return e.scale * e.q + e.scale;
}

KPG_INLINE Vec expm1(Vec x) {
    ExpParts e = exp_parts(between(x, -87.0f, 88.0f));
    return e.scale * e.q + (e.scale - 1.0f);
}

KPG_INLINE Vec sigmoid(Vec x) { return 1.0f / (1.0f + exp(-x)); }

// With t = e^2|x| - 1 the result is t / (t + 2), exact to the last place for small x, or 1 - 2 / (t + 2), exact for large
// ones; beyond 10 it is 1 in float32.
KPG_INLINE Vec tanh(Vec x) {
    const IVec sign = reinterpret_cast<IVec>(x) & INT32_MIN;
    Vec t = expm1(2.0f * at_most(reinterpret_cast<Vec>(reinterpret_cast<IVec>(x) ^ sign), 10.0f));
    const IVec large = t > 1.0f;
    Vec q = (large ? splat(2.0f) : t) / (t + 2.0f);
    return reinterpret_cast<Vec>(reinterpret_cast<IVec>(large ? 1.0f - q : q) ^ sign);
}

}  // namespace kpg::KPG_ISA
