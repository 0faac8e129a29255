/* Walks every path of the C core over edge shapes, in buffers of the very size, under sanitizers. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lens.h"

static uint32_t state = 1;

static float draw(void) {
    state = state * 1664525u + 1013904223u;
    return (float)(state >> 8) / (1 << 23) - 1.0f;
}

static void *room(int64_t bytes) {
    void *memory = malloc(bytes ? (size_t)bytes : 1);
    if (!memory) exit(2);
    return memory;
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

/* One problem on one path; gives the largest error of a logsumexp, or of KL by its slopes. */
static double walk(int32_t path, int32_t kind, int64_t rows, int64_t width, int64_t vocabulary, int64_t watched,
                   int64_t top, float softcap) {
    int64_t panels = (vocabulary + LENS_COLUMNS - 1) / LENS_COLUMNS, even = width + width % 2;
    int64_t splits = (panels + 1) / 2, size = kind == LENS_FLOAT32 ? 4 : 2, depth = size == 4 ? width : even;
    int64_t row_size = kind == LENS_BFLOAT16 ? 2 : 4;
    float *w = room(vocabulary * width * 4), *h = room(rows * width * 4), *bias = room(panels * LENS_COLUMNS * 4);
    uint16_t *w16 = room(vocabulary * width * 2), *h16 = room(rows * width * 2);
    for (int64_t i = 0; i < panels * LENS_COLUMNS; i++) bias[i] = draw();
    for (int64_t i = 0; i < vocabulary * width; i++) w[i] = from_bfloat16(w16[i] = to_bfloat16(draw()));
    for (int64_t i = 0; i < rows * width; i++) h[i] = from_bfloat16(h16[i] = to_bfloat16(draw()));

    void *packed = room(panels * LENS_COLUMNS * depth * size), *scratch = room(LENS_COLUMNS * depth * size);
    lens_pack_panels(kind, size == 4 ? (void *)w : w16, vocabulary, width, panels, packed, scratch);
    void *packed_rows = room(rows * even * row_size);
    lens_pack_rows(path, kind, row_size == 2 ? (void *)h16 : h, rows, width, packed_rows);

    lens_block block = {.head = {packed, kind, width, vocabulary, bias, 0.5f, softcap},
                        .rows = packed_rows, .count = rows, .splits = splits, .split_panels = 2, .groups = 3,
                        .watch_count = watched, .top = top};
    int64_t *ids = room(watched * 8);
    for (int64_t j = 0; j < watched; j++) ids[j] = j * (vocabulary - 1) / (watched > 1 ? watched - 1 : 1);
    float *watched_bias = room((watched + LENS_COLUMNS - 1) / LENS_COLUMNS * LENS_COLUMNS * 4);
    for (int64_t j = 0; j < (watched + LENS_COLUMNS - 1) / LENS_COLUMNS * LENS_COLUMNS; j++)
        watched_bias[j] = j < watched ? bias[ids[j]] : 0;
    void *gathered = room((watched + LENS_COLUMNS - 1) / LENS_COLUMNS * LENS_COLUMNS * depth * size);
    float *x = room(rows * watched * 4);
    if (watched) {
        lens_head some = block.head;
        lens_gather_panels(&block.head, ids, watched, gathered);
        some.panels = gathered, some.vocabulary = watched, some.bias = watched_bias;
        lens_logits(path, &some, packed_rows, rows, x, watched);
    }
    block.watch_ids = ids, block.watched = x;
    block.reference = room(splits * rows * 4), block.total = room(splits * rows * 8);
    block.weighted = room(splits * rows * 8), block.top_values = room(splits * rows * top * 4);
    block.top_ids = room(splits * rows * top * 4), block.ranks = room(splits * rows * watched * 4);
    block.logits = room(panels * rows * LENS_COLUMNS * 4);
    lens_result result = {room(rows * 4), room(rows * 4), room(rows * 4), room(rows * 4), room(rows * 4),
                          room(rows * top * 8), room(rows * top * 4), room(rows * watched * 4),
                          room(rows * watched * 8), room(rows * 4), room(rows * 4)};
    void *lanes = room(lens_scratch_bytes(rows));
    for (int64_t split = 0; split < splits; split++)
        for (int64_t group = 0; group < 3; group++) lens_reduce(path, &block, split, group, lanes);
    lens_merge(&block, &result, 0, rows);

    int64_t *by_row = room(rows * watched * 8), *ranks = room(rows * watched * 8);
    for (int64_t i = 0; i < rows * watched; i++) by_row[i] = ids[i % watched], ranks[i] = result.watch_rank[i];
    block.watch_ids = by_row, block.watch_stride = watched;
    for (int64_t split = 0; split < splits; split++)
        for (int64_t group = 0; group < 3; group++) lens_reduce(path, &block, split, group, lanes);
    lens_merge(&block, &result, 0, rows);

    int64_t *own = room(rows * 8), *final = room(rows * 8);
    for (int64_t i = 0; i < rows; i++) own[i] = i, final[i] = rows - 1;
    lens_pairs pairs = {rows, own, final, room(splits * rows * 8), room(splits * rows * 8)};
    float *kl = room(rows * 4), *js = room(rows * 4);
    for (int64_t split = 0; split < splits; split++) lens_diverge(path, &block, &result, &pairs, split, lanes);
    lens_merge_divergences(&block, &result, &pairs, kl, js);

    float *slopes = room(rows * panels * LENS_COLUMNS * 4);
    double worst = 0, *sum = room(splits * rows * 8);
    for (int64_t split = 0; split < splits; split++)
        lens_slopes(path, &block, &result, &pairs, 2 * split, split + 1 < splits ? 2 : panels - 2 * split,
                    slopes + 2 * split * LENS_COLUMNS, panels * LENS_COLUMNS, sum + split * rows, lanes);
    for (int64_t row = 0; row < rows; row++) {
        double parts = 0, left = 0;
        for (int64_t split = 0; split < splits; split++) parts += sum[split * rows + row];
        for (int64_t v = 0; v < vocabulary; v++) left += slopes[row * panels * LENS_COLUMNS + v];
        worst = fmax(worst, fabs(parts - kl[row]));
        if (softcap == 0) worst = fmax(worst, fabs(left)); /* of q - p */
    }
    for (int64_t row = 0; row < rows; row++) {
        double total = 0;
        for (int64_t v = 0; v < vocabulary; v++) {
            double logit = bias[v];
            for (int64_t k = 0; k < width; k++) logit += (double)h[row * width + k] * w[v * width + k];
            logit *= 0.5;
            total += exp(softcap != 0 ? softcap * tanh(logit / softcap) : logit);
        }
        worst = fmax(worst, fabs(log(total) - result.logsumexp[row]));
        if (!(kl[row] >= 0) || !(js[row] >= 0)) worst = INFINITY;
        for (int64_t j = 0; j < watched; j++)
            if (result.watch_rank[row * watched + j] >= vocabulary) worst = INFINITY;
    }
    if (memcmp(ranks, result.watch_rank, rows * watched * 8)) worst = INFINITY;
    void *const all[] = {w, h, bias, w16, h16, packed, scratch, packed_rows, ids, watched_bias, gathered, x,
                         block.reference, block.total, block.weighted, block.top_values, block.top_ids,
                         block.ranks, block.logits, result.maximum, result.log_total, result.logsumexp,
                         result.entropy, result.max_prob, result.top_ids, result.top_logprobs,
                         result.watch_logprob, result.watch_rank, result.watch_mass, result.watch_entropy, lanes,
                         own, final, pairs.kl, pairs.js, kl, js,
                         slopes, sum, by_row, ranks};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    return worst;
}

int main(void) {
    const int64_t shapes[][5] = {/* rows, width, vocabulary, watched, top */
                                 {1, 1, 1, 1, 1},    {1, 3, 31, 0, 1},   {3, 8, 32, 2, 5},    {7, 5, 33, 33, 33},
                                 {14, 16, 64, 1, 3}, {15, 7, 65, 9, 64}, {29, 9, 200, 40, 5}, {43, 2, 129, 3, 1}};
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
