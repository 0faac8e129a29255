/* Reads problems from the standard input until it ends, and writes what every path answers to each; for tests of
 * CPUs that are not at hand. test_other_cpus.py has the other side. */
#include "lens_problem.h"

static void take(void *memory, int64_t bytes) {
    if (fread(memory, 1, (size_t)bytes, stdin) != (size_t)bytes) exit(3);
}

static void give(const void *memory, int64_t bytes) {
    if (fwrite(memory, 1, (size_t)bytes, stdout) != (size_t)bytes) exit(4);
}

static void give_name(int32_t path) {
    char name[16] = {0};
    strncpy(name, lens_path_name(path), sizeof name - 1);
    give(name, sizeof name);
}

static void evaluate_all(int32_t function, int64_t count) {
    lens_solution rooms = {.count = 0};
    float *x = room(&rooms, count * 4), *out = room(&rooms, count * 4);
    take(x, count * 4);
    for (int32_t path = 0; path < lens_path_count(); path++) {
        if (!lens_path_supported(path)) continue;
        lens_evaluate(path, function, x, out, count);
        give_name(path), give(out, count * 4);
    }
    release(&rooms);
}

static void answer(int32_t path, const lens_problem *problem) {
    lens_solution solution = solve(path, problem);
    const lens_result *result = &solution.result;
    int64_t rows = problem->rows, *all = room(&solution, problem->vocabulary * 8);
    for (int64_t i = 0; i < problem->vocabulary; i++) all[i] = i;
    give_name(path);
    give(logits_of(&solution, path, problem, all, problem->vocabulary), rows * problem->vocabulary * 4);
    const float *const scalars[] = {result->logsumexp,  result->entropy,       result->max_prob,
                                    result->watch_mass, result->watch_entropy, solution.kl, solution.js};
    for (size_t i = 0; i < sizeof scalars / sizeof *scalars; i++) give(scalars[i], rows * 4);
    give(result->top_ids, rows * problem->top * 8), give(result->top_logprobs, rows * problem->top * 4);
    give(result->watch_rank, rows * problem->watched * 8);
    give(result->watch_logprob, rows * problem->watched * 4);
    release(&solution);
}

int main(void) {
    int64_t sizes[7];
    while (fread(sizes, sizeof sizes, 1, stdin) == 1) {
        int32_t kind = (int32_t)sizes[0];
        if (kind < 0) { /* a function of single numbers */
            evaluate_all(-1 - kind, sizes[1]);
            continue;
        }
        lens_solution rooms = {.count = 0};
        int64_t rows = sizes[1], width = sizes[2], vocabulary = sizes[3], watched = sizes[4];
        int64_t weight_bytes = vocabulary * width * (kind == LENS_FLOAT32 ? 4 : 2);
        int64_t row_bytes = rows * width * (kind == LENS_BFLOAT16 ? 2 : 4);
        float floats[2], *bias = sizes[6] ? room(&rooms, vocabulary * 4) : NULL;
        void *weight = room(&rooms, weight_bytes), *hidden = room(&rooms, row_bytes);
        int64_t *ids = room(&rooms, watched * 8), *final = room(&rooms, rows * 8);
        take(floats, sizeof floats), take(weight, weight_bytes), take(hidden, row_bytes);
        if (bias) take(bias, vocabulary * 4);
        take(ids, watched * 8), take(final, rows * 8);
        const lens_problem problem = {kind, rows, width, vocabulary, watched, sizes[5], floats[0], floats[1],
                                      weight, hidden, bias, ids, final};
        for (int32_t path = 0; path < lens_path_count(); path++)
            if (lens_path_supported(path) && (kind != LENS_BFLOAT16 || lens_path_multiplies_bfloat16(path)))
                answer(path, &problem);
        release(&rooms);
    }
    return 0;
}
