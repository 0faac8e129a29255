/* NEON of 64-bit ARM, which always has it, with FMA: four lanes, thirty-two registers. */
#include "lens_paths.h"
#if LENS_ARM64
#include <arm_neon.h>

typedef float32x4_t vec;
#define LANES 4
/* 20 accumulators, two columns and the rows, two of which compilers load at once. With 24 gcc 12 keeps some on
 * the stack. */
#define TILE_ROWS 10
#define TILE_VECS 2
#define CASES(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10)
#define MULTIPLIES_BFLOAT16 0
#define PATH lens_neon
#define PATH_NAME "neon"

static inline vec v_load(const float *x) { return vld1q_f32(x); }
static inline void v_store(float *x, vec a) { vst1q_f32(x, a); }
static inline vec v_set(float x) { return vdupq_n_f32(x); }
static inline vec v_add(vec a, vec b) { return vaddq_f32(a, b); }
static inline vec v_sub(vec a, vec b) { return vsubq_f32(a, b); }
static inline vec v_mul(vec a, vec b) { return vmulq_f32(a, b); }
static inline vec v_div(vec a, vec b) { return vdivq_f32(a, b); }
static inline vec v_fma(vec a, vec b, vec c) { return vfmaq_f32(c, a, b); }
/* b where either is NaN */
static inline vec v_max(vec a, vec b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }
static inline vec v_abs(vec a) { return vabsq_f32(a); }
static inline vec v_copy_sign(vec a, vec sign) { return vbslq_f32(vdupq_n_u32(0x80000000u), sign, a); }
static inline vec v_where_greater(vec a, vec b, vec c, vec d) { return vbslq_f32(vcgtq_f32(a, b), c, d); }
static inline vec v_keep(vec a, uint32_t bits) {
    const uint32x4_t lane = {1, 2, 4, 8};
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(a), vtstq_u32(vdupq_n_u32(bits), lane)));
}
static inline vec v_round(vec a) { return vrndnq_f32(a); }
static inline vec v_less_log2(vec a, vec n) { return v_fma(n, v_set(-0.693147181f), a); }
static inline vec v_scale(vec a, vec n) {
    /* 1.5 * 2^23 more, the lowest bits are n. An infinity there adds nothing, so a stays the NaN that it is. */
    uint32x4_t power = vshlq_n_u32(vreinterpretq_u32_f32(vaddq_f32(n, v_set(12582912.0f))), 23);
    uint32x4_t scaled = vaddq_u32(vreinterpretq_u32_f32(a), power);
    return vreinterpretq_f32_u32(vbicq_u32(scaled, vcltq_f32(n, v_set(-125.0f)))); /* keeps a NaN */
}
static inline vec v_widen_low(vec pair) {
    return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(pair), 16));
}
static inline vec v_widen_high(vec pair) {
    return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(pair), vdupq_n_u32(0xffff0000u)));
}

/* Each vector's lanes get bits of their own, so that one sum over lanes serves all vectors of a panel. */
#define COLUMN_BITS
static inline uint32_t v_bits(const uint32x4_t *masks) {
    uint32x4_t lane = {1, 2, 4, 8}, bits = vandq_u32(masks[0], lane);
    for (int j = 1; j < LENS_COLUMNS / LANES; j++) {
        lane = vshlq_n_u32(lane, LANES);
        bits = vorrq_u32(bits, vandq_u32(masks[j], lane));
    }
    return vaddvq_u32(bits);
}
static inline uint32_t columns_greater(const vec *x, float value) {
    uint32x4_t masks[LENS_COLUMNS / LANES];
    for (int j = 0; j < LENS_COLUMNS / LANES; j++) masks[j] = vcgtq_f32(x[j], v_set(value));
    return v_bits(masks);
}
static inline uint32_t columns_greater_equal(const vec *x, float value) {
    uint32x4_t masks[LENS_COLUMNS / LANES];
    for (int j = 0; j < LENS_COLUMNS / LANES; j++) masks[j] = vcgeq_f32(x[j], v_set(value));
    return v_bits(masks);
}

#include "lens_kernels.h"
#endif
