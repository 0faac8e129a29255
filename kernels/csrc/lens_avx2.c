/* AVX2 with FMA: eight lanes, sixteen registers. */
#include "lens_paths.h"
#if LENS_X86
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx2,fma,popcnt")
#endif
#include <immintrin.h>

typedef __m256 vec;
#define LANES 8
#define TILE_ROWS 6
#define WIDENED_ROWS 5 /* with six, what widening needs drives sums out of the registers */
#define TILE_VECS 2
#define CASES(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define MULTIPLIES_BFLOAT16 0
#define PATH lens_avx2
#define PATH_NAME "avx2"

static inline vec v_load(const float *x) { return _mm256_loadu_ps(x); }
static inline void v_store(float *x, vec a) { _mm256_storeu_ps(x, a); }
static inline vec v_set(float x) { return _mm256_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm256_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm256_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm256_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm256_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm256_fmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm256_max_ps(a, b); }
static inline vec v_abs(vec a) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), a); }
static inline vec v_copy_sign(vec a, vec sign) {
    return _mm256_or_ps(v_abs(a), _mm256_and_ps(_mm256_set1_ps(-0.0f), sign));
}
static inline uint32_t v_greater(vec a, vec b) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
static inline uint32_t v_greater_equal(vec a, vec b) {
    return (uint32_t)_mm256_movemask_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ));
}
static inline vec v_keep(vec a, uint32_t bits) {
    __m256i lane = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    __m256i set = _mm256_and_si256(_mm256_set1_epi32((int)bits), lane);
    return _mm256_and_ps(a, _mm256_castsi256_ps(_mm256_cmpeq_epi32(set, lane)));
}
static inline vec v_where_greater(vec a, vec b, vec c, vec d) {
    return _mm256_blendv_ps(d, c, _mm256_cmp_ps(a, b, _CMP_GT_OQ));
}
static inline vec v_round(vec a) { return _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
static inline vec v_less_log2(vec a, vec n) { return v_fma(n, v_set(-0.693147181f), a); }
static inline vec v_scale(vec a, vec n) {
    __m256i power = _mm256_slli_epi32(_mm256_cvtps_epi32(n), 23);
    __m256 scaled = _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(a), power));
    return _mm256_and_ps(scaled, _mm256_cmp_ps(n, _mm256_set1_ps(-125.0f), _CMP_NLT_UQ)); /* keeps a NaN */
}
static inline vec v_widen_low(vec pair) {
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(pair), 16));
}
static inline vec v_widen_high(vec pair) {
    return _mm256_and_ps(pair, _mm256_castsi256_ps(_mm256_set1_epi32((int)0xffff0000u)));
}

#include "lens_kernels.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
