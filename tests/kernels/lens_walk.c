/* Walks every path of the C core over edge shapes, in buffers of the very size, under sanitizers. */
#include <math.h>

#include "lens_problem.h"

static uint32_t state = 1;

static float draw(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (1 << 23) - 1.0f;
}

static uint16_t to_bfloat16(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return (uint16_t)(bits >> 16);
}

static float from_bfloat16(uint16_t x) {
    uint32_t bits = (uint32_t)x << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* The largest error of a gradient of slopes [rows, stride] times w [vocabulary, width] in bfloat16, given as w16. */
static double walk_gradient(int32_t path, int64_t rows, int64_t width, int64_t vocabulary, const float *slopes,
                            int64_t stride, const float *w, const uint16_t *w16, int64_t parts) {
    enum { DEPTH = 48, COLUMNS = 2 * LENS_COLUMNS };
    lens_solution memory = {.count = 0}, *m = &memory;
    float *some = room(m, rows * DEPTH * 4), *out = room(m, rows * width * 4);
    void *packed = room(m, parts * rows * DEPTH * 2), *panels = room(m, DEPTH * COLUMNS * 2);
    const lens_gradient gradient = {rows, parts, DEPTH, vocabulary, width, width, w16, out};
    double worst = 0;
    for (int64_t i = 0; i < rows * width; i++) out[i] = 0;
    for (int64_t first = 0; first < vocabulary; first += DEPTH) {
        for (int64_t i = 0; i < rows * DEPTH; i++) {
            int64_t token = first + i % DEPTH;
            some[i] = token < vocabulary ? slopes[i / DEPTH * stride + token] : NAN;
        }
        lens_pack_slopes(path, &gradient, some, first, packed);
        for (int64_t column = 0; column < width; column += COLUMNS) {
            int64_t left = width - column;
            lens_add_gradient(path, &gradient, packed, first, column, left < COLUMNS ? left : COLUMNS, panels);
        }
    }
    for (int64_t i = 0; i < rows * width; i++) {
        double sum = 0;
        for (int64_t v = 0; v < vocabulary; v++)
            sum += (double)slopes[i / width * stride + v] * w[v * width + i % width];
        worst = fmax(worst, fabs(sum - out[i]));
        if (isnan(out[i])) worst = INFINITY;
    }
    release(m);
    return worst;
}

/* One problem on one path; gives the largest error of a logsumexp, or of KL by its slopes. */
static double walk(int32_t path, int32_t kind, int64_t rows, int64_t width, int64_t vocabulary, int64_t watched,
                   int64_t top, float softcap) {
    lens_solution inputs = {.count = 0}, *in = &inputs;
    float *w = room(in, vocabulary * width * 4), *h = room(in, rows * width * 4);
    float *bias = room(in, vocabulary * 4);
    uint16_t *w16 = room(in, vocabulary * width * 2), *h16 = room(in, rows * width * 2);
    int64_t *ids = room(in, watched * 8), *final = room(in, rows * 8);
    for (int64_t i = 0; i < vocabulary; i++) bias[i] = draw();
    for (int64_t i = 0; i < vocabulary * width; i++) w[i] = from_bfloat16(w16[i] = to_bfloat16(draw()));
    for (int64_t i = 0; i < rows * width; i++) h[i] = from_bfloat16(h16[i] = to_bfloat16(draw()));
    for (int64_t j = 0; j < watched; j++) ids[j] = j * (vocabulary - 1) / (watched > 1 ? watched - 1 : 1);
    for (int64_t i = 0; i < rows; i++) final[i] = rows - 1;
    const lens_problem problem = {kind, rows, width, vocabulary, watched, top, 0.5f, softcap,
                                  kind == LENS_FLOAT32 ? (void *)w : w16,
                                  kind == LENS_BFLOAT16 ? (void *)h16 : h, bias, ids, final};
    lens_solution solution = solve(path, &problem), *s = &solution;
    lens_block *block = &solution.block;
    const lens_result *result = &solution.result;
    int64_t panels = solution.panels, splits = block->splits;

    int64_t *by_row = room(s, rows * watched * 8), *ranks = room(s, rows * watched * 8);
    for (int64_t i = 0; i < rows * watched; i++) by_row[i] = ids[i % watched], ranks[i] = result->watch_rank[i];
    block->watch_ids = by_row, block->watch_stride = watched;
    reduce_all(s, path);

    float *slopes = room(s, rows * panels * LENS_COLUMNS * 4);
    double worst = 0, *sum = room(s, splits * rows * 8);
    for (int64_t split = 0; split < splits; split++)
        lens_slopes(path, block, result, &solution.pairs, 2 * split,
                    split + 1 < splits ? 2 : panels - 2 * split, slopes + 2 * split * LENS_COLUMNS,
                    panels * LENS_COLUMNS, sum + split * rows, solution.lanes);
    for (int64_t row = 0; row < rows; row++) {
        double parts = 0, left = 0;
        for (int64_t split = 0; split < splits; split++) parts += sum[split * rows + row];
        for (int64_t v = 0; v < vocabulary; v++) left += slopes[row * panels * LENS_COLUMNS + v];
        worst = fmax(worst, fabs(parts - solution.kl[row]));
        if (softcap == 0) worst = fmax(worst, fabs(left)); /* of q - p */
    }
    for (int64_t parts = 1; lens_path_multiplies_bfloat16(path) && parts <= 2; parts++) {
        double error = walk_gradient(path, rows, width, vocabulary, slopes, panels * LENS_COLUMNS, w, w16, parts);
        worst = fmax(worst, parts == 2 ? error : error / 500); /* by 2^-9 of the slopes, which sum up to 2 */
    }
    for (int64_t row = 0; row < rows; row++) {
        double total = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            double logit = bias[v];
            for (int64_t k = 0; k < width; k++) logit += (double)h[row * width + k] * w[v * width + k];
            logit *= 0.5;
            total += exp(softcap != 0 ? softcap * tanh(logit / softcap) : logit);
        }
        worst = fmax(worst, fabs(log(total) - result->logsumexp[row]));
        if (!(solution.kl[row] >= 0) || !(solution.js[row] >= 0)) worst = INFINITY;
        for (int64_t j = 0; j < watched; j++)
            if (result->watch_rank[row * watched + j] >= vocabulary) worst = INFINITY;
    }
    if (memcmp(ranks, result->watch_rank, rows * watched * 8)) worst = INFINITY;
    release(s), release(in);
    return worst;
}

int main(void) {
    const int64_t shapes[][5] = {/* rows, width, vocabulary, watched, top */
                                 {1, 1, 1, 1, 1},    {1, 3, 31, 0, 1},   {3, 8, 32, 2, 5},    {7, 5, 33, 33, 33},
                                 {14, 16, 64, 1, 3}, {15, 7, 65, 9, 64}, {29, 9, 200, 40, 5}, {43, 2, 129, 3, 1},
                                 {35, 70, 65, 2, 2}, {16, 32, 33, 1, 1}};
    int failures = 0;
    for (int32_t path = 0; path < lens_path_count(); path++) {
        if (!lens_path_supported(path)) continue;
        for (int32_t kind = 0; kind <= (lens_path_multiplies_bfloat16(path) ? 2 : 1); kind++)
            for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
                const int64_t *s = shapes[i];
                double error = walk(path, kind, s[0], s[1], s[2], s[3], s[4], i % 2 ? 3.0f : 0.0f);
                if (error < 1e-5) continue;
                printf("%s kind %d shape %d: off by %g\n", lens_path_name(path), (int)kind, (int)i, error);
                failures++;
            }
        printf("walked %s\n", lens_path_name(path));
    }
    return failures != 0;
}
