/* The product, once, for any vector width; lens_kernels.h says what the including file defines.
 *
 * An entry is accumulated along D in one lane in one order, wherever it sits and however many rows its tile
 * has, so its bits depend on its row and column alone. Watched logits rest on that. A wide product goes part by
 * part of D, for all tiles of a group, so that the panel's part stays in the inner caches; sums rest in x
 * between parts, as the float32 that they are.
 */
#include <stddef.h>

enum { STRIP = LANES * TILE_VECS };

/* Entries of D in a part, even; tests take others. */
#ifndef LENS_DEPTH
#define LENS_DEPTH 1024
#endif

#ifndef WIDENED_ROWS
#define WIDENED_ROWS TILE_ROWS
#endif
#ifdef PAIR_ROWS
#define PAIRS_IN_VECTORS 0
#else
#define PAIR_ROWS TILE_ROWS
#define PAIRS_TOGETHER 1
#define PAIRS_IN_VECTORS MULTIPLIES_BFLOAT16
#endif
#ifndef FINISH_PRODUCTS
#define FINISH_PRODUCTS()
#endif
enum { MOST_ROWS = PAIR_ROWS > TILE_ROWS ? PAIR_ROWS : TILE_ROWS };
static inline int64_t tile_rows(int32_t kind) {
    return kind == LENS_BFLOAT16 ? PAIR_ROWS : kind == LENS_WIDENED ? WIDENED_ROWS : TILE_ROWS;
}

typedef vec accumulators[TILE_ROWS][TILE_VECS];

static ALWAYS_INLINE void multiply_float32(accumulators sum, int rows, const float *h, const float *w) {
    vec column[TILE_VECS];
    UNROLL for (int j = 0; j < TILE_VECS; j++) column[j] = v_load(w + j * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
        vec row = v_set(h[i]);
        UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_fma(row, column[j], sum[i][j]);
    }
}

static ALWAYS_INLINE void multiply_widened(accumulators sum, int rows, const float *h, const float *w) {
    for (int odd = 0; odd < 2; odd++) {
        vec column[TILE_VECS];
        UNROLL for (int j = 0; j < TILE_VECS; j++) {
            vec pair = v_load(w + j * LANES);
            column[j] = odd ? v_widen_high(pair) : v_widen_low(pair);
        }
        UNROLL for (int i = 0; i < rows; i++) {
            vec row = v_set(h[odd * rows + i]);
            UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_fma(row, column[j], sum[i][j]);
        }
    }
}

#if PAIRS_IN_VECTORS
static ALWAYS_INLINE void multiply_bfloat16(accumulators sum, int rows, const float *h, const float *w) {
    vec column[TILE_VECS];
    UNROLL for (int j = 0; j < TILE_VECS; j++) column[j] = v_load(w + j * LANES);
    UNROLL for (int i = 0; i < rows; i++) {
        vec row = v_set(h[i]); /* a pair, moved by its bits alone */
        UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_dot_bfloat16(sum[i][j], row, column[j]);
    }
}
#endif

static ALWAYS_INLINE void multiply(int32_t kind, accumulators sum, int rows, const float *h, const float *w) {
    if (kind == LENS_FLOAT32) multiply_float32(sum, rows, h, w);
    if (kind == LENS_WIDENED) multiply_widened(sum, rows, h, w);
#if PAIRS_IN_VECTORS
    if (kind == LENS_BFLOAT16) multiply_bfloat16(sum, rows, h, w);
#endif
}

/* Sums over so many rows of a panel, from 0 on where `first`, else from x on. */
static ALWAYS_INLINE void product_of(int32_t kind, int rows, const float *h, const float *w, int64_t depth,
                                     int first, float *x, lens_ahead ahead) {
    for (int strip = 0; strip < LENS_COLUMNS; strip += STRIP) {
        const float *row = h, *column = w + strip;
        const int taken = kind == LENS_WIDENED ? 2 * rows : rows; /* of h by a row of the panel */
        accumulators sum;
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int j = 0; j < TILE_VECS; j++)
                sum[i][j] = first ? v_set(0.0f) : v_load(x + i * LENS_COLUMNS + strip + j * LANES);
        }
        for (int64_t k = 0; k < depth; k += LENS_STEP) {
            int64_t at = k, end = k + LENS_STEP < depth ? k + LENS_STEP : depth;
            if (kind == LENS_FLOAT32 && k + LENS_STEP <= depth) { /* the other kinds would need more registers */
                UNROLL for (int i = 0; i < LENS_STEP; i++) {
                    if (strip == 0) lens_fetch_row(&ahead, i);
                    multiply(kind, sum, rows, row + i * taken, column + i * LENS_COLUMNS);
                }
                if (strip == 0) lens_fetch_next(&ahead);
                row += LENS_STEP * taken, column += LENS_STEP * LENS_COLUMNS, at = end;
            } else if (strip == 0)
                lens_fetch(&ahead);
            for (; at < end; at++, row += taken, column += LENS_COLUMNS) multiply(kind, sum, rows, row, column);
        }
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int j = 0; j < TILE_VECS; j++)
                v_store(x + i * LENS_COLUMNS + strip + j * LANES, sum[i][j]);
        }
    }
}

/* Tile heights are compile-time constants, so that the accumulators live in registers. */
#define HEIGHT(n) \
    static NEVER_INLINE void product_##n(int32_t kind, const float *h, const float *w, int64_t depth, \
                                         int first, float *x, lens_ahead ahead) { \
        if (kind == LENS_FLOAT32) product_of(LENS_FLOAT32, n, h, w, depth, first, x, ahead); \
        if (kind == LENS_WIDENED) product_of(LENS_WIDENED, n, h, w, depth, first, x, ahead); \
        if (kind == LENS_BFLOAT16) product_of(LENS_BFLOAT16, n, h, w, depth, first, x, ahead); \
    }
CASES(HEIGHT)

typedef void product_function(int32_t, const float *, const float *, int64_t, int, float *, lens_ahead);
#define ENTRY(n) product_##n,
static product_function *const products[] = {CASES(ENTRY)};

/* Bias, scale and soft-cap, lane by lane. */
static void transform(const lens_head *head, int64_t panel, int64_t rows, float *x) {
    if (head->bias == NULL && head->scale == 1.0f && head->softcap == 0.0f) return;
    for (int64_t i = 0; i < rows * LENS_COLUMNS; i += LANES) {
        vec value = v_load(x + i);
        if (head->bias) value = v_add(value, v_load(head->bias + panel * LENS_COLUMNS + i % LENS_COLUMNS));
        value = v_mul(value, v_set(head->scale));
        if (head->softcap != 0.0f)
            value = v_mul(v_set(head->softcap), tanh_any(v_div(value, v_set(head->softcap))));
        v_store(x + i, value);
    }
}

/* Entries of D in a part: as equal as they can be, and all of D where products are not of vectors. */
static int64_t part_depth(const lens_head *head) {
    if (head->kind == LENS_BFLOAT16 && !PAIRS_IN_VECTORS) return head->width;
    int64_t parts = (head->width + LENS_DEPTH - 1) / LENS_DEPTH;
    return lens_even((head->width + parts - 1) / parts);
}

static const char *panel_part(const lens_head *head, int64_t panel, int64_t k) {
    int64_t from = panel * lens_panel_elements(head->kind, head->width) + k * LENS_COLUMNS;
    return (const char *)head->panels + from * lens_element_bytes(head->kind);
}

/* The products of one tile with a panel's part, from entry k of D on. */
static void multiply_part(const lens_head *head, const void *rows, lens_tile tile, int64_t panel, int64_t k,
                          int64_t part_rows, float *x, lens_ahead ahead) {
    int64_t row_from = tile.begin * lens_even(head->width) + k * tile.rows;
    const float *h = (const float *)((const char *)rows + row_from * (head->kind == LENS_BFLOAT16 ? 2 : 4));
    const float *w = (const float *)panel_part(head, panel, k);
#if MULTIPLIES_BFLOAT16 && !PAIRS_IN_VECTORS
    if (head->kind == LENS_BFLOAT16)
        product_pairs(tile.rows, h, w, part_rows, x, ahead);
    else
#endif
        products[tile.rows - 1](head->kind, h, w, part_rows, k == 0, x, ahead);
}

/* Logits x[rows of the group][LENS_COLUMNS] of a group of tiles, part by part of D. */
static void group_logits(const lens_head *head, const void *rows, int64_t count, int64_t tiles,
                         lens_tile group, int64_t panel, float *x) {
    int64_t begin = lens_tile_at(count, tiles, group.begin).begin, end = begin, depth = part_depth(head);
    int last_panel = panel + 1 == lens_panel_count(head->vocabulary);
    for (int64_t k = 0; k < head->width; k += depth) {
        int64_t left = head->width - k, here = left < depth ? left : depth;
        int64_t part_rows = head->kind == LENS_FLOAT32 ? here : lens_even(here) / 2;
        const char *next = left > depth ? panel_part(head, panel, k + depth)
                           : last_panel ? NULL
                                        : panel_part(head, panel + 1, 0);
        for (int64_t t = 0; t < group.rows; t++) {
            lens_tile tile = lens_tile_at(count, tiles, group.begin + t);
            lens_ahead ahead = lens_share_ahead(next, t, group.rows, part_rows);
            float *sums = x + (tile.begin - begin) * LENS_COLUMNS;
            multiply_part(head, rows, tile, panel, k, part_rows, sums, ahead);
            end = tile.begin + tile.rows;
        }
    }
    transform(head, panel, end - begin, x);
}

static void logits(const lens_head *head, const void *rows, int64_t count, float *out, int64_t columns) {
    _Alignas(LENS_LINE) float x[MOST_ROWS * LENS_COLUMNS];
    int64_t tiles = lens_tile_count(count, tile_rows(head->kind));
    for (int64_t panel = 0; panel < lens_panel_count(columns); panel++)
        for (int64_t t = 0; t < tiles; t++) {
            lens_tile tile = lens_tile_at(count, tiles, t), alone = {t, 1};
            group_logits(head, rows, count, tiles, alone, panel, x);
            int64_t first = panel * LENS_COLUMNS, here = columns - first;
            if (here > LENS_COLUMNS) here = LENS_COLUMNS;
            for (int64_t i = 0; i < tile.rows; i++)
                for (int64_t j = 0; j < here; j++)
                    out[(tile.begin + i) * columns + first + j] = x[i * LENS_COLUMNS + j];
        }
    FINISH_PRODUCTS();
}
