/* The one place that knows what the CPU can do: a table of paths, best first. */
#if defined(__linux__)
#define _DEFAULT_SOURCE
#endif
#include "lens_paths.h"
#if LENS_X86
#include <xmmintrin.h>
#endif
#if LENS_AMX
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

static int32_t always(void) { return 1; }

#if LENS_X86
static int32_t has_avx2(void) { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"); }

static int32_t has_avx512(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}

static int32_t has_avx512bf16(void) { return has_avx512() && __builtin_cpu_supports("avx512bf16"); }
#endif

#if LENS_AMX
/* Threads may use tiles once the process has asked for them; asking again changes nothing. */
static int32_t has_amx(void) {
    enum { ASK_FOR_STATE = 0x1023, TILE_DATA = 18 }; /* ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA */
    const unsigned bfloat16 = 1u << 22, tiles = 1u << 24;
    unsigned a, b, c, d;
    if (!has_avx512() || !__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & bfloat16) || !(d & tiles)) return 0;
    return syscall(SYS_arch_prctl, ASK_FOR_STATE, TILE_DATA) == 0;
}
#endif


static const struct {
    const lens_path *path;
    int32_t (*supported)(void);
} paths[] = {
#if LENS_AMX
    {&lens_amx, has_amx},
#endif
#if LENS_X86
    {&lens_avx512bf16, has_avx512bf16},
    {&lens_avx512, has_avx512},
    {&lens_avx2, has_avx2},
#endif
#if LENS_ARM64
    {&lens_neon, always},
#endif
    {&lens_portable, always},
};

int32_t lens_path_count(void) { return sizeof paths / sizeof *paths; }
const char *lens_path_name(int32_t path) { return paths[path].path->name; }
int32_t lens_path_supported(int32_t path) { return LENS_EMULATED || paths[path].supported(); }
int32_t lens_path_multiplies_bfloat16(int32_t path) { return paths[path].path->multiplies_bfloat16; }

int64_t lens_scratch_bytes(int64_t count) {
    return count * (int64_t)(sizeof(lens_row_state) + LENS_COLUMNS * sizeof(float)) + LENS_LINE;
}

/* Probabilities below 1.2e-38 are denormal numbers, each of which costs some CPUs a hundred cycles, and no sum
 * a digit. So results that would be denormal become 0, in this thread and until the call is over. */
static uint32_t flush_denormals(void) {
#if LENS_X86
    uint32_t before = _mm_getcsr();
    _mm_setcsr(before | _MM_FLUSH_ZERO_ON);
    return before;
#else
    return 0;
#endif
}

static void restore(uint32_t before) {
#if LENS_X86
    _mm_setcsr(before);
#else
    (void)before;
#endif
}

void lens_pack_rows(int32_t path, int32_t kind, const void *rows, const int64_t *places, int64_t count,
                    int64_t width, void *packed) {
    const lens_path *table = paths[path].path;
    lens_pack_tiles(kind, rows, places, count, width, table->tile_rows[kind], table->pairs_together, packed);
}

void lens_logits(int32_t path, const lens_head *head, const void *rows, int64_t count, float *out,
                 int64_t columns) {
    uint32_t before = flush_denormals();
    paths[path].path->logits(head, rows, count, out, columns);
    restore(before);
}

void lens_reduce(int32_t path, const lens_block *block, int64_t split, int64_t group, void *scratch) {
    uint32_t before = flush_denormals();
    paths[path].path->reduce(block, split, group, scratch);
    restore(before);
}

void lens_diverge(int32_t path, const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                  int64_t split, void *scratch) {
    uint32_t before = flush_denormals();
    paths[path].path->diverge(block, result, pairs, split, scratch);
    restore(before);
}

void lens_slopes(int32_t path, const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                 int64_t first, int64_t panels, float *out, int64_t stride, double *kl, void *scratch) {
    uint32_t before = flush_denormals();
    paths[path].path->slopes(block, result, pairs, first, panels, out, stride, kl, scratch);
    restore(before);
}

void lens_pack_slopes(int32_t path, const lens_gradient *gradient, const float *slopes, int64_t first,
                      void *packed) {
    uint32_t before = flush_denormals();
    paths[path].path->pack_slopes(gradient, slopes, first, packed);
    restore(before);
}

void lens_add_gradient(int32_t path, const lens_gradient *gradient, const void *packed, int64_t first,
                       int64_t column, int64_t columns, void *panels) {
    uint32_t before = flush_denormals();
    paths[path].path->add_gradient(gradient, packed, first, column, columns, panels);
    restore(before);
}

void lens_evaluate(int32_t path, int32_t function, const float *x, float *out, int64_t count) {
    paths[path].path->evaluate(function, x, out, count);
}
