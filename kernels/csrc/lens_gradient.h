/* The gradient of KL: slopes times the weight itself, for paths that multiply bfloat16. Others leave it to BLAS in
 * float32.
 *
 * It is the product of the logits over again, with tokens in the place of D: a panel holds so many tokens' entries
 * of 32 columns of W, and rows are slopes. A slope is the sum of two bfloat16, which are rows of their own.
 */

static ALWAYS_INLINE uint32_t nearest_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
}

/* The nearest bfloat16, or that of what it leaves. */
static ALWAYS_INLINE uint32_t slope_part(float x, int64_t part) {
    uint32_t high = nearest_bfloat16(x), bits = high << 16;
    float value;
    memcpy(&value, &bits, 4);
    return part ? nearest_bfloat16(x - value) : high;
}

static ALWAYS_INLINE uint32_t slope_pair(const float *x, int64_t part) {
    return slope_part(x[0], part) | slope_part(x[1], part) << 16;
}

/* One row of a tile; to: its tile. Some pairs at once, which compilers make vectors of, then each group to its place. */
static ALWAYS_INLINE void pack_slope_row(const float *x, int64_t valid, int64_t pairs, int64_t part, int64_t row,
                                         int64_t rows, uint32_t *to) {
    enum { AT_ONCE = 16 };
    _Static_assert(AT_ONCE % PAIRS_TOGETHER == 0, "groups are whole");
    for (int64_t pair = 0; pair < pairs; pair += AT_ONCE) {
        uint32_t some[AT_ONCE];
        const float *from = x + 2 * pair;
        int64_t left = valid - 2 * pair;
        if (left >= 2 * AT_ONCE)
            for (int j = 0; j < AT_ONCE; j++) some[j] = slope_pair(from + 2 * j, part);
        else
            for (int64_t j = 0; j < AT_ONCE; j++)
                some[j] = left > 2 * j + 1    ? slope_pair(from + 2 * j, part)
                          : left == 2 * j + 1 ? slope_part(from[2 * j], part)
                                              : 0;
        for (int64_t j = 0; j < AT_ONCE && pair + j < pairs; j += PAIRS_TOGETHER) {
            lens_pair_group group = lens_pairs_from(pair + j, pairs, row, rows, PAIRS_TOGETHER);
            for (int64_t i = 0; i < group.count; i++) to[group.place + i] = some[j + i];
        }
    }
}

static int64_t tokens_from(const lens_gradient *gradient, int64_t first) {
    int64_t left = gradient->vocabulary - first;
    return left < gradient->depth ? left : gradient->depth;
}

static void pack_slopes(const lens_gradient *gradient, const float *slopes, int64_t first, void *packed) {
    int64_t count = gradient->count, depth = gradient->depth, rows = gradient->parts * count;
    int64_t tiles = lens_tile_count(rows, PAIR_ROWS), valid = tokens_from(gradient, first);
    for (int64_t t = 0; t < tiles; t++) {
        lens_tile tile = lens_tile_at(rows, tiles, t);
        uint32_t *to = (uint32_t *)packed + tile.begin * depth / 2;
        for (int64_t row = tile.begin; row < tile.begin + tile.rows; row++) {
            int64_t part = row >= count;
            const float *x = slopes + (row - part * count) * depth;
            if (part)
                pack_slope_row(x, valid, depth / 2, 1, row - tile.begin, tile.rows, to);
            else
                pack_slope_row(x, valid, depth / 2, 0, row - tile.begin, tile.rows, to);
        }
    }
}

/* Entries of `columns` columns of two rows of W as pairs; an odd last row has a zero beside it. */
static ALWAYS_INLINE void pack_pair(const uint16_t *row, const uint16_t *next, int64_t columns, uint32_t *pairs) {
    for (int64_t j = 0; j < columns; j++) pairs[j] = row[j] | (next ? (uint32_t)next[j] << 16 : 0);
}

/* Panels [depth / 2, 32, 2] of some columns of `valid` rows of W, zeros beyond them. Rows lie far apart, so that no
 * CPU foresees the next ones. */
static void pack_columns(const uint16_t *weight, int64_t stride, int64_t valid, int64_t columns, int64_t depth,
                         uint32_t *panels) {
    enum { ROWS_AHEAD = 32 };
    for (int64_t k = 0; k < depth; k += 2)
        for (int64_t at = 0; at < columns; at += LENS_COLUMNS) {
            uint32_t *pairs = panels + (at * depth + k * LENS_COLUMNS) / 2;
            const uint16_t *row = weight + k * stride + at;
            int64_t here = columns - at < LENS_COLUMNS ? columns - at : LENS_COLUMNS;
            if (k + ROWS_AHEAD + 1 < valid) {
                FETCH(row + ROWS_AHEAD * stride);
                FETCH(row + (ROWS_AHEAD + 1) * stride);
            }
            if (k + 1 < valid && here == LENS_COLUMNS) {
                pack_pair(row, row + stride, LENS_COLUMNS, pairs);
                continue;
            }
            memset(pairs, 0, LENS_COLUMNS * sizeof *pairs);
            if (k < valid) pack_pair(row, k + 1 < valid ? row + stride : NULL, here, pairs);
        }
}

static void add_gradient(const lens_gradient *gradient, const void *packed, int64_t first, int64_t column,
                         int64_t columns, void *panels) {
    _Alignas(LENS_LINE) float x[MOST_ROWS * LENS_COLUMNS];
    int64_t rows = gradient->parts * gradient->count, depth = gradient->depth, width = gradient->width;
    int64_t tiles = lens_tile_count(rows, PAIR_ROWS);
    const lens_head head = {panels, LENS_BFLOAT16, depth, columns, NULL, 1.0f, 0.0f};
    const uint16_t *weight = (const uint16_t *)gradient->weight + first * gradient->stride + column;
    pack_columns(weight, gradient->stride, tokens_from(gradient, first), columns, depth, panels);
    for (int64_t t = 0; t < tiles; t++) {
        lens_tile tile = lens_tile_at(rows, tiles, t), alone = {t, 1};
        for (int64_t panel = 0; panel < lens_panel_count(columns); panel++) {
            int64_t at = panel * LENS_COLUMNS, here = columns - at < LENS_COLUMNS ? columns - at : LENS_COLUMNS;
            group_logits(&head, packed, rows, tiles, alone, panel, x);
            for (int64_t i = 0; i < tile.rows; i++) {
                float *out = gradient->gradient + (tile.begin + i) % gradient->count * width + column + at;
                if (here == LENS_COLUMNS)
                    for (int j = 0; j < LENS_COLUMNS; j++) out[j] += x[i * LENS_COLUMNS + j];
                else
                    for (int64_t j = 0; j < here; j++) out[j] += x[i * LENS_COLUMNS + j];
            }
        }
    }
    FINISH_PRODUCTS();
}
