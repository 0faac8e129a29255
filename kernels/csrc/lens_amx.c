/* AMX: tiles of sixteen rows by sixteen columns, multiplied in pairs of bfloat16; all else is AVX-512. */
#include "lens_paths.h"
#if LENS_AMX
#if LENS_EMULATED
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
    "avx512f,avx512bw,avx512dq,avx512vl,popcnt,amx-tile,amx-bf16"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,popcnt,amx-tile,amx-bf16")
#endif
#include "lens_vec512.h"

#include <string.h>

#define MULTIPLIES_BFLOAT16 1
#define PAIR_ROWS 32
#define PACKED_PAIR_ROWS 1 /* one row after another, as tiles are loaded */
#define PATH lens_amx
#define PATH_NAME "amx"

enum { TILE = 16, TILE_BYTES = 64, PANEL_BYTES = LENS_COLUMNS * 4 /* of one pair */ };

/* Compilers do not see that tile instructions read memory: by this, what was written there is there. */
#define WRITTEN(memory_) __asm__ volatile("" ::"r"(memory_) : "memory")

/* Tiles 0 to 3 are sums (rows below 16, columns below 16; the other columns; the same of the other rows), 4 and 5
 * rows, 6 and 7 columns. */
static ALWAYS_INLINE void configure(int64_t rows) {
    struct {
        uint8_t palette, start_row, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    uint8_t low = (uint8_t)(rows < TILE ? rows : TILE), high = (uint8_t)(rows - low);
    const uint8_t heights[8] = {low, low, high, high, low, high, TILE, TILE};
    for (int i = 0; i < 8; i++) config.rows[i] = heights[i], config.row_bytes[i] = heights[i] ? TILE_BYTES : 0;
    WRITTEN(&config);
    _tile_loadconfig(&config);
}

/* 16 pairs along D. */
static ALWAYS_INLINE void multiply_pairs(int high, const char *h, int64_t stride, const char *w) {
    _tile_loadd(6, w, PANEL_BYTES);
    _tile_loadd(7, w + TILE_BYTES, PANEL_BYTES);
    _tile_loadd(4, h, stride);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (!high) return;
    _tile_loadd(5, h + TILE * stride, stride);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* What is left of D, with zeros up to 16 pairs. */
static NEVER_INLINE void multiply_last_pairs(int64_t rows, int64_t pairs, const char *h, int64_t stride,
                                             const char *w) {
    char last_h[PAIR_ROWS * TILE_BYTES] = {0}, last_w[TILE * PANEL_BYTES] = {0};
    for (int64_t i = 0; i < rows; i++) memcpy(last_h + i * TILE_BYTES, h + i * stride, (size_t)pairs * 4);
    memcpy(last_w, w, (size_t)pairs * PANEL_BYTES);
    WRITTEN(last_h);
    WRITTEN(last_w);
    multiply_pairs(rows > TILE, last_h, TILE_BYTES, last_w);
}

/* A sum over 16 pairs is that of its even terms and that of its odd ones; such sums are added along D in order.
 * That differs from the order of avx512bf16, and is the same wherever an entry sits. */
static void product_pairs(int64_t rows, const void *packed_rows, const void *panel, int64_t width, float *x,
                          lens_ahead ahead) {
    const char *h = packed_rows, *w = panel;
    int64_t stride = lens_even(width) * 2, pairs = lens_even(width) / 2;
    int high = rows > TILE;
    configure(rows); /* which makes the sums zero */
    for (; pairs >= TILE; pairs -= TILE, h += TILE_BYTES, w += TILE * PANEL_BYTES) {
        for (int step = 0; step < TILE; step += LENS_STEP) lens_fetch(&ahead);
        multiply_pairs(high, h, stride, w);
    }
    if (pairs) multiply_last_pairs(rows, pairs, h, stride, w);
    _tile_stored(0, x, PANEL_BYTES);
    _tile_stored(1, x + TILE, PANEL_BYTES);
    if (high) {
        _tile_stored(2, x + TILE * LENS_COLUMNS, PANEL_BYTES);
        _tile_stored(3, x + TILE * LENS_COLUMNS + TILE, PANEL_BYTES);
    }
    _tile_release();
}

#include "lens_kernels.h"

#if defined(__clang__) && !LENS_EMULATED
#pragma clang attribute pop
#endif
#endif
