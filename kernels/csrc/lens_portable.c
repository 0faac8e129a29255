/* The portable path: plain C, one float at a time. It also names what every other path must provide. */
#include <math.h>
#include <stdint.h>
#include <string.h>

typedef float vec;
#define LANES 1
#define TILE_ROWS 4
#define TILE_VECS 8
#define CASES(X) X(1) X(2) X(3) X(4)
#define MULTIPLIES_BFLOAT16 0
#define PATH lens_portable
#define PATH_NAME "portable"

static inline uint32_t bits_of(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

static inline float of_bits(uint32_t bits) {
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

static inline vec v_load(const float *x) { return *x; }
static inline void v_store(float *x, vec a) { *x = a; }
static inline vec v_set(float x) { return x; }
static inline vec v_add(vec a, vec b) { return a + b; }
static inline vec v_sub(vec a, vec b) { return a - b; }
static inline vec v_mul(vec a, vec b) { return a * b; }
static inline vec v_div(vec a, vec b) { return a / b; }
static inline vec v_fma(vec a, vec b, vec c) { return a * b + c; } /* rounded once or twice */
static inline vec v_max(vec a, vec b) { return a > b ? a : b; }    /* b where either is NaN */
static inline vec v_abs(vec a) { return fabsf(a); }
static inline vec v_copy_sign(vec a, vec sign) { return copysignf(a, sign); }

/* One bit per lane. */
static inline uint32_t v_greater(vec a, vec b) { return a > b; }
static inline uint32_t v_greater_equal(vec a, vec b) { return a >= b; }
/* Lanes whose bit is set, 0 elsewhere. */
static inline vec v_keep(vec a, uint32_t bits) { return bits & 1 ? a : 0.0f; }
/* c where a > b, d elsewhere. */
static inline vec v_where_greater(vec a, vec b, vec c, vec d) { return a > b ? c : d; }
static inline vec v_round(vec a) { return (a + 12582912.0f) - 12582912.0f; } /* for |a| < 2^22 */
/* a - n log 2. Unfused, the product must be exact: a short constant, and what it lacks. */
static inline vec v_less_log2(vec a, vec n) { return (a - n * 0.693359375f) + n * 0.000212194440f; }
/* a * 2^n for whole n, a near 1; 0 for n < -125. */
static inline vec v_scale(vec a, vec n) {
    return n < -125.0f ? 0.0f : of_bits(bits_of(a) + (bits_of(n + 12582912.0f) << 23));
}
/* The halves of a bfloat16 pair, as float32. */
static inline vec v_widen_low(vec pair) { return of_bits(bits_of(pair) << 16); }
static inline vec v_widen_high(vec pair) { return of_bits(bits_of(pair) & 0xffff0000u); }

#include "lens_kernels.h"
