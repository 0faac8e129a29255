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
#define PAIRS_TOGETHER 16 /* of a row: what a tile register takes of many rows is in one piece */
#define PATH lens_amx
#define PATH_NAME "amx"

enum { TILE = 16, TILE_BYTES = 64, PANEL_BYTES = LENS_COLUMNS * 4 /* of one pair */ };

/* Compilers do not see that tile instructions read memory: by this, what was written there is there. */
#define WRITTEN(memory_) __asm__ volatile("" ::"r"(memory_) : "memory")

/* Tiles 0 to 3 are sums (rows below 16, columns below 16; the other columns; the same of the other rows), 4 and 5
 * rows, 6 and 7 columns. Tables, for one that was just written makes the CPU wait. */
typedef struct {
    uint8_t palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

#define LOW(n) ((n) < TILE ? (n) : TILE)
#define HIGH(n) ((n) - LOW(n))
#define BYTES(n) (HIGH(n) ? TILE_BYTES : 0)
#define CONFIG(n) \
    [n] = {.palette = 1, \
           .row_bytes = {TILE_BYTES, TILE_BYTES, BYTES(n), BYTES(n), TILE_BYTES, BYTES(n), TILE_BYTES, TILE_BYTES}, \
           .rows = {LOW(n), LOW(n), HIGH(n), HIGH(n), LOW(n), HIGH(n), TILE, TILE}},
#define CONFIGS(n) CONFIG(n) CONFIG(n + 1) CONFIG(n + 2) CONFIG(n + 3)
static const _Alignas(64) tile_config tile_configs[] = {
    CONFIGS(1) CONFIGS(5) CONFIGS(9) CONFIGS(13) CONFIGS(17) CONFIGS(21) CONFIGS(25) CONFIGS(29)};

/* The height of the tiles that this thread is set to: to set them for every product takes up to a third of it. */
static _Thread_local int64_t tile_height;

static ALWAYS_INLINE void start_tile(int64_t rows) {
    if (rows != tile_height) {
        _tile_loadconfig(&tile_configs[rows]); /* which makes all tiles zero */
        tile_height = rows;
        return;
    }
    _tile_zero(0);
    _tile_zero(1);
    if (rows <= TILE) return;
    _tile_zero(2);
    _tile_zero(3);
}

static void finish_products(void) {
    if (tile_height) _tile_release();
    tile_height = 0;
}
#define FINISH_PRODUCTS finish_products

/* 16 pairs along D. */
static ALWAYS_INLINE void multiply_pairs(int64_t rows, const char *h, const char *w) {
    _tile_loadd(4, h, TILE_BYTES);
    _tile_loadd(6, w, PANEL_BYTES);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + TILE_BYTES, PANEL_BYTES);
    _tile_dpbf16ps(1, 4, 7);
    if (rows <= TILE) return;
    _tile_loadd(5, h + TILE * TILE_BYTES, TILE_BYTES);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* What is left of D, with zeros up to 16 pairs. */
static NEVER_INLINE void multiply_last_pairs(int64_t rows, int64_t pairs, const char *h, const char *w) {
    char last_h[PAIR_ROWS * TILE_BYTES] = {0}, last_w[TILE * PANEL_BYTES] = {0};
    for (int64_t i = 0; i < rows; i++) memcpy(last_h + i * TILE_BYTES, h + i * pairs * 4, (size_t)pairs * 4);
    memcpy(last_w, w, (size_t)pairs * PANEL_BYTES);
    WRITTEN(last_h);
    WRITTEN(last_w);
    multiply_pairs(rows, last_h, last_w);
}

/* A sum over 16 pairs is that of its even terms and that of its odd ones; such sums are added along D in order.
 * That differs from the order of avx512bf16, and is the same wherever an entry sits. */
static void product_pairs(int64_t rows, const void *packed_rows, const void *panel, int64_t pairs, float *x,
                          lens_ahead ahead) {
    const char *h = packed_rows, *w = panel;
    start_tile(rows);
    for (; pairs >= TILE; pairs -= TILE, h += rows * TILE_BYTES, w += TILE * PANEL_BYTES) {
        for (int step = 0; ahead.lines && step < TILE; step += LENS_STEP) lens_fetch(&ahead);
        multiply_pairs(rows, h, w);
    }
    if (pairs) multiply_last_pairs(rows, pairs, h, w);
    _tile_stored(0, x, PANEL_BYTES);
    _tile_stored(1, x + TILE, PANEL_BYTES);
    if (rows > TILE) {
        _tile_stored(2, x + TILE * LENS_COLUMNS, PANEL_BYTES);
        _tile_stored(3, x + TILE * LENS_COLUMNS + TILE, PANEL_BYTES);
    }
}

#include "lens_kernels.h"

#if defined(__clang__) && !LENS_EMULATED
#pragma clang attribute pop
#endif
#endif
