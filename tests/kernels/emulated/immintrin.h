/* Stands before the compiler's own <immintrin.h>: what the C core takes of AVX-512 and AMX, in plain C, after the
 * operations that Intel's manual gives (Software Developer's Manual, volume 2; for AMX, chapter 3 of the
 * Architecture Instruction Set Extensions). For tests on CPUs that lack them. */
#include_next <immintrin.h>

#ifndef EMULATED_IMMINTRIN_H
#define EMULATED_IMMINTRIN_H
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* Never inlined, for compilers take minutes over sixteen lanes of every operation. */
#define EMULATE __attribute__((noinline, unused)) static

typedef struct {
    union {
        float f[16];
        uint32_t u[16];
        uint16_t h[32];
    };
} emulated_512;

#define __m512 emulated_512
#define __m512i emulated_512
#define __m512bh emulated_512
#define EMULATED(name, expression, ...) \
    EMULATE emulated_512 emulated_##name(__VA_ARGS__) { \
        emulated_512 out; \
        for (int i = 0; i < 16; i++) expression; \
        return out; \
    }
#define TWO emulated_512 a, emulated_512 b

EMULATED(loadu, memcpy(&out.u[i], x + i, 4), const float *x)
EMULATED(set1, out.f[i] = x, float x)
EMULATED(set1_bits, out.u[i] = (uint32_t)x, int x)
EMULATED(add, out.f[i] = a.f[i] + b.f[i], TWO)
EMULATED(sub, out.f[i] = a.f[i] - b.f[i], TWO)
EMULATED(mul, out.f[i] = a.f[i] * b.f[i], TWO)
EMULATED(div, out.f[i] = a.f[i] / b.f[i], TWO)
EMULATED(fmadd, out.f[i] = fmaf(a.f[i], b.f[i], c.f[i]), TWO, emulated_512 c)
EMULATED(max, out.f[i] = a.f[i] > b.f[i] ? a.f[i] : b.f[i], TWO)
EMULATED(abs, out.u[i] = a.u[i] & 0x7fffffffu, emulated_512 a)
EMULATED(or, out.u[i] = a.u[i] | b.u[i], TWO)
EMULATED(and, out.u[i] = a.u[i] & b.u[i], TWO)
EMULATED(shift, out.u[i] = a.u[i] << places, emulated_512 a, int places)
EMULATED(keep, out.f[i] = bits >> i & 1 ? a.f[i] : 0.0f, uint32_t bits, emulated_512 a)
EMULATED(blend, out.u[i] = bits >> i & 1 ? b.u[i] : a.u[i], uint32_t bits, TWO)
EMULATED(round, out.f[i] = rintf(a.f[i]), emulated_512 a)
EMULATED(scale, out.f[i] = isnan(b.f[i]) ? b.f[i] : ldexpf(a.f[i], (int)floorf(fmaxf(fminf(b.f[i], 512), -512))), TWO)

EMULATE void emulated_storeu(float *x, emulated_512 a) { memcpy(x, &a, sizeof a); }

EMULATE uint32_t emulated_compare(emulated_512 a, emulated_512 b, int relation) {
    uint32_t bits = 0;
    for (int i = 0; i < 16; i++) {
        if (relation == _CMP_GT_OQ)
            bits |= (uint32_t)(a.f[i] > b.f[i]) << i;
        else if (relation == _CMP_GE_OQ)
            bits |= (uint32_t)(a.f[i] >= b.f[i]) << i;
        else
            abort();
    }
    return bits;
}

/* Denormal numbers count as 0, before and after. */
EMULATE float emulated_flush(float x) { return fabsf(x) < 0x1p-126f ? copysignf(0.0f, x) : x; }

EMULATE float emulated_half(uint16_t bits) {
    uint32_t widened = (uint32_t)bits << 16;
    float x;
    memcpy(&x, &widened, 4);
    return emulated_flush(x);
}

/* sum + a b, rounded once. */
EMULATE float emulated_multiply(float sum, uint16_t a, uint16_t b) {
    return emulated_flush(fmaf(emulated_half(a), emulated_half(b), emulated_flush(sum)));
}

EMULATE emulated_512 emulated_dot(emulated_512 sum, emulated_512 a, emulated_512 b) {
    for (int i = 0; i < 16; i++) {
        sum.f[i] = emulated_multiply(sum.f[i], a.h[2 * i + 1], b.h[2 * i + 1]);
        sum.f[i] = emulated_multiply(sum.f[i], a.h[2 * i], b.h[2 * i]);
    }
    return sum;
}

#define _mm512_loadu_ps emulated_loadu
#define _mm512_storeu_ps emulated_storeu
#define _mm512_set1_ps emulated_set1
#define _mm512_set1_epi32 emulated_set1_bits
#define _mm512_add_ps emulated_add
#define _mm512_sub_ps emulated_sub
#define _mm512_mul_ps emulated_mul
#define _mm512_div_ps emulated_div
#define _mm512_fmadd_ps emulated_fmadd
#define _mm512_max_ps emulated_max
#define _mm512_abs_ps emulated_abs
#define _mm512_or_ps emulated_or
#define _mm512_and_ps emulated_and
#undef _mm512_slli_epi32
#define _mm512_slli_epi32 emulated_shift
#define _mm512_maskz_mov_ps emulated_keep
#define _mm512_mask_blend_ps emulated_blend
#undef _mm512_roundscale_ps
#define _mm512_roundscale_ps(a, mode) emulated_round(a) /* to the nearest whole number, the only mode in use */
#define _mm512_scalef_ps emulated_scale
#undef _mm512_cmp_ps_mask
#define _mm512_cmp_ps_mask emulated_compare
#define _mm512_castps_si512(a) (a)
#define _mm512_castsi512_ps(a) (a)
#define _mm512_dpbf16_ps emulated_dot

/* ---- AMX: eight tiles of sixteen rows of 64 bytes, of each thread. ---- */

typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} emulated_config;

typedef struct {
    emulated_config config;
    uint8_t data[8][16][64];
} emulated_tiles;

static _Thread_local emulated_tiles emulated;

EMULATE void emulated_expect(int condition) {
    if (!condition) abort(); /* where the CPU would raise a fault */
}

EMULATE void emulated_loadconfig(const void *memory) {
    memset(&emulated, 0, sizeof emulated);
    memcpy(&emulated.config, memory, sizeof emulated.config);
    emulated_expect(emulated.config.palette == 1 && sizeof emulated.config == 64);
    for (int i = 0; i < 14; i++) emulated_expect(emulated.config.reserved[i] == 0);
    for (int i = 0; i < 16; i++) {
        int rows = emulated.config.rows[i], bytes = emulated.config.row_bytes[i];
        emulated_expect(rows <= (i < 8 ? 16 : 0) && bytes <= 64 && !rows == !bytes);
    }
}

EMULATE void emulated_loadd(int tile, const void *memory, int64_t stride) {
    emulated_expect(emulated.config.palette == 1 && emulated.config.rows[tile]);
    memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
    for (int row = 0; row < emulated.config.rows[tile]; row++)
        memcpy(emulated.data[tile][row], (const char *)memory + row * stride, emulated.config.row_bytes[tile]);
}

EMULATE void emulated_stored(int tile, void *memory, int64_t stride) {
    emulated_expect(emulated.config.palette == 1 && emulated.config.rows[tile]);
    for (int row = 0; row < emulated.config.rows[tile]; row++)
        memcpy((char *)memory + row * stride, emulated.data[tile][row], emulated.config.row_bytes[tile]);
}

EMULATE void emulated_dpbf16ps(int sum, int a, int b) {
    const emulated_config *config = &emulated.config;
    emulated_expect(config->rows[sum] && config->rows[a] && config->rows[b]);
    emulated_expect(config->rows[sum] == config->rows[a] && config->row_bytes[sum] == config->row_bytes[b]);
    emulated_expect(config->row_bytes[a] == 4 * config->rows[b] && sum != a && sum != b && a != b);
    for (int m = 0; m < config->rows[sum]; m++) {
        float terms[2][16] = {{0}};
        for (int k = 0; k < config->rows[b]; k++)
            for (int n = 0; n < config->row_bytes[b] / 4; n++)
                for (int odd = 0; odd < 2; odd++) {
                    uint16_t left, right;
                    memcpy(&left, &emulated.data[a][m][4 * k + 2 * odd], 2);
                    memcpy(&right, &emulated.data[b][k][4 * n + 2 * odd], 2);
                    terms[odd][n] = emulated_multiply(terms[odd][n], left, right);
                }
        for (int n = 0; n < config->row_bytes[b] / 4; n++) {
            float x;
            memcpy(&x, &emulated.data[sum][m][4 * n], 4);
            x = emulated_flush(emulated_flush(x) + emulated_flush(terms[0][n] + terms[1][n]));
            memcpy(&emulated.data[sum][m][4 * n], &x, 4);
        }
    }
}

EMULATE void emulated_zero(int tile) {
    emulated_expect(emulated.config.palette == 1 && emulated.config.rows[tile]);
    memset(emulated.data[tile], 0, sizeof emulated.data[tile]);
}

EMULATE void emulated_release(void) { memset(&emulated, 0, sizeof emulated); }

#undef _tile_zero
#undef _tile_loadd
#undef _tile_stored
#undef _tile_dpbf16ps
#define _tile_loadconfig emulated_loadconfig
#define _tile_release emulated_release
#define _tile_zero emulated_zero
#define _tile_loadd emulated_loadd
#define _tile_stored emulated_stored
#define _tile_dpbf16ps emulated_dpbf16ps
#endif
