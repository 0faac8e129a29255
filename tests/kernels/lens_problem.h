/* One problem through the whole C core on one path, in buffers of the very size; for the programs of tests. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lens.h"

enum { SPLIT_PANELS = 2, GROUPS = 3 };

typedef struct {
    int32_t kind;
    int64_t rows, width, vocabulary, watched, top;
    float scale, softcap;
    const void *weight, *hidden; /* [vocabulary, width] and [rows, width], of the types of the kind */
    const float *bias;           /* [vocabulary], or NULL */
    const int64_t *ids;          /* [watched] ascending, each once */
    const int64_t *final;        /* [rows] the final row of each */
} lens_problem;

typedef struct {
    lens_block block;
    lens_result result;
    lens_pairs pairs;
    float *kl, *js; /* [rows] */
    void *lanes, *rooms[64];
    int64_t panels;
    int count;
} lens_solution;

static inline void *room(lens_solution *solution, int64_t bytes) {
    void *memory = malloc(bytes ? (size_t)bytes : 1);
    if (!memory || solution->count == 64) exit(2);
    return solution->rooms[solution->count++] = memory;
}

static inline void release(lens_solution *solution) {
    while (solution->count) free(solution->rooms[--solution->count]);
}

static inline int64_t whole_panels(int64_t columns) {
    return (columns + LENS_COLUMNS - 1) / LENS_COLUMNS * LENS_COLUMNS;
}

/* The biases of some columns, in whole panels. */
static inline float *padded_bias(lens_solution *solution, const lens_problem *problem, const int64_t *ids,
                                 int64_t count) {
    if (!problem->bias) return NULL;
    float *bias = room(solution, whole_panels(count) * 4);
    for (int64_t j = 0; j < whole_panels(count); j++)
        bias[j] = j < count ? problem->bias[ids ? ids[j] : j] : 0.0f;
    return bias;
}

/* Logits [rows, count] of some tokens. */
static inline float *logits_of(lens_solution *solution, int32_t path, const lens_problem *problem,
                               const int64_t *ids, int64_t count) {
    float *x = room(solution, problem->rows * count * 4);
    if (!count) return x;
    lens_head some = solution->block.head;
    int64_t even = some.width + some.width % 2;
    int64_t depth = some.kind == LENS_FLOAT32 ? some.width * 4 : even * 2;
    void *gathered = room(solution, whole_panels(count) * depth);
    lens_gather_panels(&solution->block.head, ids, count, gathered);
    some.panels = gathered, some.vocabulary = count;
    some.bias = padded_bias(solution, problem, ids, count);
    lens_logits(path, &some, solution->block.rows, problem->rows, x, count);
    return x;
}

/* All parts of the first sweep, and their merging. */
static inline void reduce_all(lens_solution *solution, int32_t path) {
    lens_block *block = &solution->block;
    for (int64_t split = 0; split < block->splits; split++)
        for (int64_t group = 0; group < block->groups; group++)
            lens_reduce(path, block, split, group, solution->lanes);
    lens_merge(block, &solution->result, 0, block->count);
}

static inline lens_solution solve(int32_t path, const lens_problem *problem) {
    int64_t rows = problem->rows, width = problem->width, even = width + width % 2, top = problem->top;
    int64_t size = problem->kind == LENS_FLOAT32 ? 4 : 2, depth = size == 4 ? width : even;
    int64_t row_size = problem->kind == LENS_BFLOAT16 ? 2 : 4, watched = problem->watched;
    lens_solution solution = {.count = 0}, *s = &solution;
    solution.panels = whole_panels(problem->vocabulary) / LENS_COLUMNS;

    void *packed = room(s, solution.panels * LENS_COLUMNS * depth * size);
    void *scratch = room(s, LENS_COLUMNS * depth * size), *packed_rows = room(s, rows * even * row_size);
    lens_pack_panels(problem->kind, problem->weight, problem->vocabulary, width, solution.panels, packed,
                     scratch);
    lens_pack_rows(path, problem->kind, problem->hidden, NULL, rows, width, packed_rows);

    int64_t splits = (solution.panels + SPLIT_PANELS - 1) / SPLIT_PANELS;
    solution.block = (lens_block){
        .head = {packed, problem->kind, width, problem->vocabulary,
                 padded_bias(s, problem, NULL, problem->vocabulary), problem->scale, problem->softcap},
        .rows = packed_rows, .count = rows, .splits = splits, .split_panels = SPLIT_PANELS, .groups = GROUPS,
        .watch_ids = problem->ids, .watch_count = watched, .top = top};
    lens_block *block = &solution.block;
    block->watched = logits_of(s, path, problem, problem->ids, watched);
    block->reference = room(s, splits * rows * 4), block->total = room(s, splits * rows * 8);
    block->weighted = room(s, splits * rows * 8), block->top_values = room(s, splits * rows * top * 4);
    block->top_ids = room(s, splits * rows * top * 4), block->ranks = room(s, splits * rows * watched * 4);
    block->logits = room(s, solution.panels * rows * LENS_COLUMNS * 4);
    solution.result = (lens_result){room(s, rows * 4), room(s, rows * 4), room(s, rows * 4), room(s, rows * 4),
                                    room(s, rows * 4), room(s, rows * top * 8), room(s, rows * top * 4),
                                    room(s, rows * watched * 4), room(s, rows * watched * 8),
                                    room(s, rows * 4), room(s, rows * 4), NULL};
    solution.lanes = room(s, lens_scratch_bytes(rows));
    reduce_all(s, path);

    int64_t *own = room(s, rows * 8);
    for (int64_t i = 0; i < rows; i++) own[i] = i;
    solution.pairs = (lens_pairs){rows, own, problem->final, room(s, splits * rows * 8),
                                  room(s, splits * rows * 8)};
    solution.kl = room(s, rows * 4), solution.js = room(s, rows * 4);
    for (int64_t split = 0; split < splits; split++)
        lens_diverge(path, block, &solution.result, &solution.pairs, split, solution.lanes);
    lens_merge_divergences(block, &solution.result, &solution.pairs, solution.kl, solution.js);
    return solution;
}
