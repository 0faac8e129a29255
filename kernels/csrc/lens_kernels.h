/* The kernels, once, for any vector width. An including file defines
 *   vec, LANES         a vector of float32 and its length, a divisor of LENS_COLUMNS
 *   TILE_ROWS          rows of the register tile; CASES(X) expands X(1) ... X(TILE_ROWS)
 *   WIDENED_ROWS       those of a tile of widened bfloat16, where fewer than TILE_ROWS
 *   TILE_VECS          vectors of columns in the register tile
 *   v_*                operations on vec, listed in lens_portable.c
 *   MULTIPLIES_BFLOAT16 and v_dot_bfloat16, where the instruction set has them
 *   PAIR_ROWS          rows of a tile where rows and weight are bfloat16, PAIRS_TOGETHER how many pairs of a row
 *                      lie together there, and product_pairs, where these products are no matter of vectors
 *   FINISH_PRODUCTS    what a thread calls behind its last product, if it must
 *   COLUMN_BITS        where it has columns_greater and columns_greater_equal of its own
 *   PATH, PATH_NAME    the table row to define
 */
#include <float.h>
#include <math.h>
#include <string.h>

#include "lens_math.h"
#include "lens_paths.h"
#include "lens_product.h"

enum { COLUMN_VECS = LENS_COLUMNS / LANES, STATE_VECS = LENS_STATE_LANES / LANES };

/* ---- Reduction: one row of one panel into the running values of the row within the split. ---- */

/* What is the same for all rows of a panel. Watched ids ascend: the first `below` lie before the panel, those
 * up to `within` in it; where rows watch ids of their own, each row has other ones. */
typedef struct {
    const lens_block *block;
    int64_t split, first;
    uint32_t valid; /* bit per column: 0 where it is padding */
    int64_t below, within;
} panel_view;

#ifndef COLUMN_BITS
static ALWAYS_INLINE uint32_t columns_greater(const vec *x, float value) {
    uint32_t bits = 0;
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) bits |= v_greater(x[j], v_set(value)) << (j * LANES);
    return bits;
}

static ALWAYS_INLINE uint32_t columns_greater_equal(const vec *x, float value) {
    uint32_t bits = 0;
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) bits |= v_greater_equal(x[j], v_set(value)) << (j * LANES);
    return bits;
}
#endif

static inline int lowest_bit(uint32_t bits) {
#if defined(__GNUC__)
    return __builtin_ctz(bits);
#else
    int place = 0;
    for (; !(bits & 1); bits >>= 1) place++;
    return place;
#endif
}

static inline int32_t count_bits(uint32_t bits) {
#if defined(__GNUC__)
    return __builtin_popcount(bits);
#else
    int32_t count = 0;
    for (; bits; bits &= bits - 1) count++;
    return count;
#endif
}

static void raise_reference(lens_row_state *state, float reference) {
    float change = reference - state->reference, factor = expf(-change);
    for (int lane = 0; lane < LENS_STATE_LANES; lane++) {
        /* Below exp(-100) of the new reference the old sums are nothing; their shift could overflow. */
        if (change > 100.0f) {
            state->total[lane] = 0.0f;
            state->weighted[lane] *= 0.0f; /* keeps a NaN */
        } else {
            state->weighted[lane] = factor * (state->weighted[lane] - change * state->total[lane]);
            state->total[lane] *= factor;
        }
    }
    state->reference = reference;
}

/* The rare part: columns above the threshold, lowest id first, so that of equal ones the lower id stays. */
static NEVER_INLINE void admit(const panel_view *view, int64_t row, lens_row_state *state, const float *x,
                               uint32_t bits) {
    const lens_block *block = view->block;
    int64_t place = (view->split * block->count + row) * block->top;
    float *values = block->top_values + place;
    int32_t *ids = block->top_ids + place;
    for (; bits; bits &= bits - 1) {
        int column = lowest_bit(bits);
        float value = x[column];
        if (!(value > values[block->top - 1])) continue;
        int64_t to = block->top - 1;
        for (; to > 0 && value > values[to - 1]; to--) values[to] = values[to - 1], ids[to] = ids[to - 1];
        values[to] = value;
        ids[to] = (int32_t)(view->first + column);
    }
    /* The reference need not be the maximum, only near it: exp(16) costs no digits, and moving is dear. */
    if (values[0] > state->reference + 16.0f) raise_reference(state, values[0]);
    state->threshold = values[block->top - 1];
}

/* Where ids that lie before the panel end, and those that lie in it. */
static void place_panel(const lens_block *block, const int64_t *ids, int64_t first, int64_t *below,
                        int64_t *within) {
    for (*below = 0; *below < block->watch_count && ids[*below] < first;) ++*below;
    for (*within = *below; *within < block->watch_count && ids[*within] < first + LENS_COLUMNS;) ++*within;
}

static ALWAYS_INLINE void count_before(const panel_view *view, int64_t row, const vec *x, uint32_t valid) {
    const lens_block *block = view->block;
    const int64_t *ids = block->watch_ids + row * block->watch_stride;
    const float *watched = block->watched + row * block->watch_count;
    int32_t *ranks = block->ranks + (view->split * block->count + row) * block->watch_count;
    int64_t j = 0, below = view->below, within = view->within;
    if (block->watch_stride) place_panel(block, ids, view->first, &below, &within);
    for (; j < below; j++) ranks[j] += count_bits(columns_greater(x, watched[j]) & valid);
    for (; j < within; j++) {
        /* Columns before the token also count where they equal it. */
        uint32_t before = ((uint32_t)1 << (ids[j] - view->first)) - 1;
        uint32_t bits = columns_greater(x, watched[j]) | (columns_greater_equal(x, watched[j]) & before);
        ranks[j] += count_bits(bits & valid);
    }
    for (; j < block->watch_count; j++) ranks[j] += count_bits(columns_greater_equal(x, watched[j]) & valid);
}

static ALWAYS_INLINE void reduce_row(const panel_view *view, int64_t row, lens_row_state *state,
                                     const float *logits, uint32_t valid) {
    vec x[COLUMN_VECS];
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) x[j] = v_load(logits + j * LANES);
    uint32_t above = columns_greater(x, state->threshold) & valid;
    if (above) admit(view, row, state, logits, above);
    vec reference = v_set(state->reference), total[STATE_VECS], weighted[STATE_VECS];
    UNROLL for (int j = 0; j < STATE_VECS; j++) {
        total[j] = v_load(state->total + j * LANES);
        weighted[j] = v_load(state->weighted + j * LANES);
    }
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) {
        vec shifted = v_sub(x[j], reference);
        vec exponential = exp_any(shifted);
        if (valid != UINT32_MAX) {
            shifted = v_keep(shifted, valid >> (j * LANES));
            exponential = v_keep(exponential, valid >> (j * LANES));
        }
        total[j % STATE_VECS] = v_add(total[j % STATE_VECS], exponential);
        /* A NaN or Inf makes this product NaN or Inf, 0 times -Inf too, and so marks the row. */
        weighted[j % STATE_VECS] = v_fma(exponential, shifted, weighted[j % STATE_VECS]);
    }
    UNROLL for (int j = 0; j < STATE_VECS; j++) {
        v_store(state->total + j * LANES, total[j]);
        v_store(state->weighted + j * LANES, weighted[j]);
    }
    count_before(view, row, x, valid);
}

static void start_split(const lens_block *block, int64_t split, int64_t begin, int64_t end,
                        lens_row_state *states) {
    for (int64_t row = begin; row < end; row++) {
        lens_row_state *state = states + row - begin;
        int64_t from = split * block->count + row;
        for (int lane = 0; lane < LENS_STATE_LANES; lane++) state->total[lane] = state->weighted[lane] = 0.0f;
        state->reference = -FLT_MAX;
        state->threshold = -INFINITY;
        for (int64_t i = from * block->top; i < (from + 1) * block->top; i++) {
            block->top_values[i] = -INFINITY;
            block->top_ids[i] = -1;
        }
        int64_t first = from * block->watch_count;
        for (int64_t j = 0; j < block->watch_count; j++) block->ranks[first + j] = 0;
    }
}

static double sum_lanes(const float *lanes) {
    double sum = 0;
    for (int lane = 0; lane < LENS_STATE_LANES; lane++) sum += lanes[lane];
    return sum;
}

static void finish_split(const lens_block *block, int64_t split, int64_t begin, int64_t end,
                         const lens_row_state *states) {
    for (int64_t row = begin; row < end; row++) {
        int64_t to = split * block->count + row;
        block->reference[to] = states[row - begin].reference;
        block->total[to] = sum_lanes(states[row - begin].total);
        block->weighted[to] = sum_lanes(states[row - begin].weighted);
    }
}

static panel_view view_panel(const lens_block *block, int64_t split, int64_t panel) {
    panel_view view = {block, split, panel * LENS_COLUMNS, UINT32_MAX, 0, 0};
    int64_t here = block->head.vocabulary - view.first;
    if (here < LENS_COLUMNS) view.valid = ((uint32_t)1 << here) - 1;
    if (!block->watch_stride) place_panel(block, block->watch_ids, view.first, &view.below, &view.within);
    return view;
}

static int64_t split_end(const lens_block *block, int64_t split) {
    int64_t end = (split + 1) * block->split_panels, panels = lens_panel_count(block->head.vocabulary);
    return end < panels ? end : panels;
}

/* Rows ahead of the one whose logits are kept, for which memory is fetched: stores would wait for it. */
enum { KEPT_AHEAD = 8 };

/* Keeps a row's logits of this panel, padding as a logit whose probability is exactly 0; end: of the rows. */
static ALWAYS_INLINE void keep_row(const panel_view *view, int64_t row, int64_t end, const float *x) {
    float *kept = view->block->logits + (view->first / LENS_COLUMNS * view->block->count + row) * LENS_COLUMNS;
    for (int at = 0; row + KEPT_AHEAD < end && at < LENS_COLUMNS; at += LENS_LINE / 4)
        FETCH(kept + KEPT_AHEAD * LENS_COLUMNS + at);
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) v_store(kept + j * LANES, v_load(x + j * LANES));
    for (int j = 0; view->valid != UINT32_MAX && j < LENS_COLUMNS; j++)
        if (!(view->valid >> j & 1)) kept[j] = -FLT_MAX;
}

static float *aligned(void *memory) {
    return (float *)(((uintptr_t)memory + LENS_LINE - 1) / LENS_LINE * LENS_LINE);
}

static void reduce(const lens_block *block, int64_t split, int64_t group, void *scratch) {
    lens_row_state *states = scratch;
    float *x = aligned(states + block->count); /* the logits of the group */
    int64_t tiles = lens_tile_count(block->count, tile_rows(block->head.kind));
    int64_t groups = block->groups < tiles ? block->groups : tiles;
    if (group >= groups) return;
    lens_tile here = lens_tile_at(tiles, groups, group);
    lens_tile last = lens_tile_at(block->count, tiles, here.begin + here.rows - 1);
    int64_t begin = lens_tile_at(block->count, tiles, here.begin).begin, end = last.begin + last.rows;
    start_split(block, split, begin, end, states);
    for (int64_t panel = split * block->split_panels; panel < split_end(block, split); panel++) {
        panel_view view = view_panel(block, split, panel);
        group_logits(&block->head, block->rows, block->count, tiles, here, panel, x);
        for (int64_t i = 0; i < end - begin; i++) {
            if (view.valid == UINT32_MAX)
                reduce_row(&view, begin + i, states + i, x + i * LENS_COLUMNS, UINT32_MAX);
            else
                reduce_row(&view, begin + i, states + i, x + i * LENS_COLUMNS, view.valid);
            if (block->logits) keep_row(&view, begin + i, end, x + i * LENS_COLUMNS);
        }
    }
    FINISH_PRODUCTS();
    finish_split(block, split, begin, end, states);
}

/* ---- Divergences of rows from the final row, from kept logits. ---- */

static ALWAYS_INLINE vec log_probability(const float *x, float maximum, float log_total) {
    /* The maximum goes off first: it is a logit itself, so large logits lose no digits to it. */
    vec shifted = v_sub(v_sub(v_load(x), v_set(maximum)), v_set(log_total));
    return v_max(v_set(-1e38f), shifted);
}

/* log p of all columns of a panel's final row. */
static ALWAYS_INLINE void log_probabilities(const lens_result *result, int64_t final, const float *panel, vec *out) {
    UNROLL for (int j = 0; j < COLUMN_VECS; j++)
        out[j] = log_probability(panel + final * LENS_COLUMNS + j * LANES, result->maximum[final],
                                 result->log_total[final]);
}

/* With p >= q of the two probabilities, z = q / p and A = -log((1 + z) / 2), one entry adds
 *   p log(final / row) to KL and ((p + q) A - q |log z|) / 2 to JS:
 * no difference of near-equal logarithms, and exactly 0 where the two are equal. */
static ALWAYS_INLINE void diverge_row(const lens_result *result, int64_t row, const float *logits,
                                      const vec *log_final, lens_row_state *sums) {
    vec zero = v_set(0.0f), kl[STATE_VECS], js[STATE_VECS];
    UNROLL for (int j = 0; j < STATE_VECS; j++) {
        kl[j] = v_load(sums->total + j * LANES);
        js[j] = v_load(sums->weighted + j * LANES);
    }
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) {
        vec log_row = log_probability(logits + j * LANES, result->maximum[row], result->log_total[row]);
        vec difference = v_sub(log_final[j], log_row), apart = v_abs(difference);
        vec p = exp_any(v_max(log_final[j], log_row));
        vec z = exp_any(v_sub(zero, apart));
        vec q = v_mul(p, z), *kl_sum = &kl[j % STATE_VECS], *js_sum = &js[j % STATE_VECS];
        *kl_sum = v_fma(v_where_greater(log_row, log_final[j], q, p), difference, *kl_sum);
        *js_sum = v_fma(v_add(p, q), neg_log_half_sum(z), *js_sum);
        *js_sum = v_sub(*js_sum, v_mul(q, apart));
    }
    UNROLL for (int j = 0; j < STATE_VECS; j++) {
        v_store(sums->total + j * LANES, kl[j]);
        v_store(sums->weighted + j * LANES, js[j]);
    }
}

static void diverge(const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                    int64_t split, void *scratch) {
    lens_row_state *sums = scratch;
    for (int64_t i = 0; i < pairs->count; i++)
        for (int lane = 0; lane < LENS_STATE_LANES; lane++)
            sums[i].total[lane] = sums[i].weighted[lane] = 0.0f;
    for (int64_t panel = split * block->split_panels; panel < split_end(block, split); panel++) {
        const float *logits = block->logits + panel * block->count * LENS_COLUMNS;
        vec log_final[COLUMN_VECS];
        for (int64_t i = 0; i < pairs->count; i++) {
            int64_t row = pairs->row[i], final = pairs->final[i];
            if (i == 0 || final != pairs->final[i - 1]) log_probabilities(result, final, logits, log_final);
            diverge_row(result, row, logits + row * LENS_COLUMNS, log_final, sums + i);
        }
    }
    for (int64_t i = 0; i < pairs->count; i++) {
        pairs->kl[split * pairs->count + i] = sum_lanes(sums[i].total);
        pairs->js[split * pairs->count + i] = 0.5 * sum_lanes(sums[i].weighted);
    }
}

/* ---- Slopes of KL by the logits, and KL itself, from kept logits. ---- */

/* One row of one panel, beside log p and p of its final row: adds to the lanes of KL, writes q - p. */
static ALWAYS_INLINE void slope_row(const lens_head *head, const lens_result *result, int64_t row,
                                    const float *logits, const vec *log_final, const vec *p, float *lanes,
                                    float *out) {
    vec sum[STATE_VECS];
    UNROLL for (int j = 0; j < STATE_VECS; j++) sum[j] = v_load(lanes + j * LANES);
    UNROLL for (int j = 0; j < COLUMN_VECS; j++) {
        vec log_row = log_probability(logits + j * LANES, result->maximum[row], result->log_total[row]);
        vec slope = v_sub(exp_any(log_row), p[j]);
        if (head->softcap != 0.0f) {
            vec x = v_div(v_load(logits + j * LANES), v_set(head->softcap));
            slope = v_mul(slope, v_sub(v_set(1.0f), v_mul(x, x)));
        }
        sum[j % STATE_VECS] = v_fma(p[j], v_sub(log_final[j], log_row), sum[j % STATE_VECS]);
        v_store(out + j * LANES, slope);
    }
    UNROLL for (int j = 0; j < STATE_VECS; j++) v_store(lanes + j * LANES, sum[j]);
}

static void slopes(const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                   int64_t first, int64_t panels, float *out, int64_t stride, double *kl, void *scratch) {
    lens_row_state *sums = scratch;
    for (int64_t i = 0; i < pairs->count; i++)
        for (int lane = 0; lane < LENS_STATE_LANES; lane++) sums[i].total[lane] = 0.0f;
    for (int64_t panel = 0; panel < panels; panel++) {
        const float *logits = block->logits + (first + panel) * block->count * LENS_COLUMNS;
        vec log_final[COLUMN_VECS], p[COLUMN_VECS];
        for (int64_t i = 0; i < pairs->count; i++) {
            int64_t row = pairs->row[i], final = pairs->final[i];
            if (i == 0 || final != pairs->final[i - 1]) {
                log_probabilities(result, final, logits, log_final);
                UNROLL for (int j = 0; j < COLUMN_VECS; j++) p[j] = exp_any(log_final[j]);
            }
            slope_row(&block->head, result, row, logits + row * LENS_COLUMNS, log_final, p, sums[i].total,
                      out + i * stride + panel * LENS_COLUMNS);
        }
    }
    for (int64_t i = 0; i < pairs->count; i++) kl[i] = sum_lanes(sums[i].total);
}

#if MULTIPLIES_BFLOAT16
#include "lens_gradient.h"
#else
#define pack_slopes NULL
#define add_gradient NULL
#endif

static void evaluate(int32_t function, const float *x, float *out, int64_t count) {
    float buffer[LANES] = {0};
    for (int64_t i = 0; i < count; i += LANES) {
        int64_t here = count - i < LANES ? count - i : LANES;
        for (int64_t j = 0; j < here; j++) buffer[j] = x[i + j];
        vec value = v_load(buffer);
        value = function == 0   ? exp_any(value)
                : function == 1 ? neg_log_half_sum(value)
                                : tanh_any(value);
        v_store(buffer, value);
        for (int64_t j = 0; j < here; j++) out[i + j] = buffer[j];
    }
}

const lens_path PATH = {PATH_NAME, {TILE_ROWS, WIDENED_ROWS, PAIR_ROWS}, PAIRS_TOGETHER, MULTIPLIES_BFLOAT16,
                       logits,    reduce, diverge, slopes, pack_slopes, add_gradient, evaluate};
