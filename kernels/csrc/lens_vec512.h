/* Sixteen lanes of AVX-512, for both paths that have them. */
#include <immintrin.h>

typedef __m512 vec;
#define LANES 16
/* 28 accumulators, two columns and one row fill 31 of the 32 registers. */
#define TILE_ROWS 14
#define WIDENED_ROWS 13 /* with 14, what widening needs drives sums out of them */
#define TILE_VECS 2
#define CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12) X(13) X(14)

static inline vec v_load(const float *x) { return _mm512_loadu_ps(x); }
static inline void v_store(float *x, vec a) { _mm512_storeu_ps(x, a); }
static inline vec v_set(float x) { return _mm512_set1_ps(x); }
static inline vec v_add(vec a, vec b) { return _mm512_add_ps(a, b); }
static inline vec v_sub(vec a, vec b) { return _mm512_sub_ps(a, b); }
static inline vec v_mul(vec a, vec b) { return _mm512_mul_ps(a, b); }
static inline vec v_div(vec a, vec b) { return _mm512_div_ps(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return _mm512_fmadd_ps(a, b, c); }
static inline vec v_max(vec a, vec b) { return _mm512_max_ps(a, b); }
static inline vec v_abs(vec a) { return _mm512_abs_ps(a); }
static inline vec v_copy_sign(vec a, vec sign) {
    return _mm512_or_ps(_mm512_abs_ps(a), _mm512_and_ps(_mm512_set1_ps(-0.0f), sign));
}
static inline uint32_t v_greater(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GT_OQ); }
static inline uint32_t v_greater_equal(vec a, vec b) { return _mm512_cmp_ps_mask(a, b, _CMP_GE_OQ); }
static inline vec v_keep(vec a, uint32_t bits) { return _mm512_maskz_mov_ps((__mmask16)bits, a); }
static inline vec v_where_greater(vec a, vec b, vec c, vec d) {
    return _mm512_mask_blend_ps(_mm512_cmp_ps_mask(a, b, _CMP_GT_OQ), d, c);
}
static inline vec v_round(vec a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
static inline vec v_less_log2(vec a, vec n) { return v_fma(n, v_set(-0.693147181f), a); }
static inline vec v_scale(vec a, vec n) { return _mm512_scalef_ps(a, n); }
static inline vec v_widen_low(vec pair) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pair), 16));
}
static inline vec v_widen_high(vec pair) {
    return _mm512_and_ps(pair, _mm512_castsi512_ps(_mm512_set1_epi32((int)0xffff0000u)));
}
