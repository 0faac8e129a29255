/* The product, once, for any vector width; lens_kernels.h says what the including file defines.
 *
 * An entry is accumulated along D in one lane in one order, wherever it sits and however many rows its tile
 * has, so its bits depend on its row and column alone. Watched logits rest on that.
 */
#include <stddef.h>

enum { STRIP = LANES * TILE_VECS };

#ifdef PAIR_ROWS
#define PAIRS_IN_VECTORS 0
#else
#define PAIR_ROWS TILE_ROWS
#define PACKED_PAIR_ROWS TILE_ROWS
#define PAIRS_IN_VECTORS MULTIPLIES_BFLOAT16
#endif
enum { MOST_ROWS = PAIR_ROWS > TILE_ROWS ? PAIR_ROWS : TILE_ROWS };
static inline int64_t tile_rows(int32_t kind) { return kind == LENS_BFLOAT16 ? PAIR_ROWS : TILE_ROWS; }

typedef vec accumulators[TILE_ROWS][TILE_VECS];

static ALWAYS_INLINE void multiply_float32(accumulators sum, int rows, const float *h, const float *w,
                                           int64_t width) {
    for (int64_t k = 0; k < width; k++, h += rows, w += LENS_COLUMNS) {
        vec column[TILE_VECS];
        UNROLL for (int j = 0; j < TILE_VECS; j++) column[j] = v_load(w + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vec row = v_set(h[i]);
            UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_fma(row, column[j], sum[i][j]);
        }
    }
}

static ALWAYS_INLINE void multiply_widened(accumulators sum, int rows, const float *h, const float *w,
                                           int64_t width) {
    for (int64_t k = 0; k < width; k += 2, h += 2 * rows, w += LENS_COLUMNS) {
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
}

#if PAIRS_IN_VECTORS
static ALWAYS_INLINE void multiply_bfloat16(accumulators sum, int rows, const float *h, const float *w,
                                            int64_t width) {
    for (int64_t k = 0; k < width; k += 2, h += rows, w += LENS_COLUMNS) {
        vec column[TILE_VECS];
        UNROLL for (int j = 0; j < TILE_VECS; j++) column[j] = v_load(w + j * LANES);
        UNROLL for (int i = 0; i < rows; i++) {
            vec row = v_set(h[i]); /* a pair, moved by its bits alone */
            UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_dot_bfloat16(sum[i][j], row, column[j]);
        }
    }
}
#endif

static ALWAYS_INLINE void product_of(int32_t kind, int rows, const float *h, const float *w, int64_t width,
                                     float *x) {
    for (int strip = 0; strip < LENS_COLUMNS; strip += STRIP) {
        accumulators sum;
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int j = 0; j < TILE_VECS; j++) sum[i][j] = v_set(0.0f);
        }
        if (kind == LENS_FLOAT32) multiply_float32(sum, rows, h, w + strip, width);
        if (kind == LENS_WIDENED) multiply_widened(sum, rows, h, w + strip, width);
#if PAIRS_IN_VECTORS
        if (kind == LENS_BFLOAT16) multiply_bfloat16(sum, rows, h, w + strip, width);
#endif
        UNROLL for (int i = 0; i < rows; i++) {
            UNROLL for (int j = 0; j < TILE_VECS; j++)
                v_store(x + i * LENS_COLUMNS + strip + j * LANES, sum[i][j]);
        }
    }
}

/* Tile heights are compile-time constants, so that the accumulators live in registers. */
#define HEIGHT(n) \
    static NEVER_INLINE void product_##n(int32_t kind, const float *h, const float *w, int64_t width, \
                                         float *x) { \
        if (kind == LENS_FLOAT32) product_of(LENS_FLOAT32, n, h, w, width, x); \
        if (kind == LENS_WIDENED) product_of(LENS_WIDENED, n, h, w, width, x); \
        if (kind == LENS_BFLOAT16) product_of(LENS_BFLOAT16, n, h, w, width, x); \
    }
CASES(HEIGHT)

typedef void product_function(int32_t, const float *, const float *, int64_t, float *);
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

/* Logits x[tile.rows][LENS_COLUMNS] of one tile and panel. */
static void tile_logits(const lens_head *head, const void *rows, lens_tile tile, int64_t panel, float *x) {
    int64_t bytes = lens_panel_elements(head->kind, head->width) * lens_element_bytes(head->kind);
    int64_t row_bytes = lens_even(head->width) * (head->kind == LENS_BFLOAT16 ? 2 : 4);
    const float *h = (const float *)((const char *)rows + tile.begin * row_bytes);
    const float *w = (const float *)((const char *)head->panels + panel * bytes);
#if MULTIPLIES_BFLOAT16 && !PAIRS_IN_VECTORS
    if (head->kind == LENS_BFLOAT16)
        product_pairs(tile.rows, h, w, head->width, x);
    else
#endif
        products[tile.rows - 1](head->kind, h, w, head->width, x);
    transform(head, panel, tile.rows, x);
}

static void logits(const lens_head *head, const void *rows, int64_t count, float *out, int64_t columns) {
    float x[MOST_ROWS * LENS_COLUMNS];
    int64_t tiles = lens_tile_count(count, tile_rows(head->kind));
    for (int64_t panel = 0; panel < lens_panel_count(columns); panel++)
        for (int64_t t = 0; t < tiles; t++) {
            lens_tile tile = lens_tile_at(count, tiles, t);
            tile_logits(head, rows, tile, panel, x);
            int64_t first = panel * LENS_COLUMNS, here = columns - first;
            if (here > LENS_COLUMNS) here = LENS_COLUMNS;
            for (int64_t i = 0; i < tile.rows; i++)
                for (int64_t j = 0; j < here; j++)
                    out[(tile.begin + i) * columns + first + j] = x[i * LENS_COLUMNS + j];
        }
}

