/* What the instruction-set files share with the dispatcher: one table row per path. */
#ifndef LENS_PATHS_H
#define LENS_PATHS_H
#include "lens.h"
#include <stddef.h>

typedef struct {
    const char *name;
    int64_t tile_rows[3];   /* by kind of weight */
    int64_t pairs_together; /* of a bfloat16 row of a tile */
    int32_t multiplies_bfloat16;
    void (*logits)(const lens_head *, const void *rows, int64_t count, float *out, int64_t columns);
    void (*reduce)(const lens_block *, int64_t split, int64_t group, void *scratch);
    void (*diverge)(const lens_block *, const lens_result *, const lens_pairs *, int64_t split,
                    void *scratch);
    void (*slopes)(const lens_block *, const lens_result *, const lens_pairs *, int64_t first,
                   int64_t panels, float *out, int64_t stride, double *kl, void *scratch);
    void (*pack_slopes)(const lens_gradient *, const float *slopes, int64_t first, void *packed);
    void (*add_gradient)(const lens_gradient *, const void *packed, int64_t first, int64_t column,
                         int64_t columns, void *panels); /* NULL, as the last, without these products */
    void (*evaluate)(int32_t function, const float *x, float *out, int64_t count);
} lens_path;

extern const lens_path lens_portable, lens_avx2, lens_avx512, lens_avx512bf16, lens_amx, lens_neon;

#if (defined(__GNUC__) || defined(__clang__)) && defined(__x86_64__)
#define LENS_X86 1
#else
#define LENS_X86 0
#endif
/* Tests define LENS_EMULATED: every path runs on any x86, by an <immintrin.h> that has what it lacks in plain C. */
#ifndef LENS_EMULATED
#define LENS_EMULATED 0
#endif
/* Linux hands the tiles out, and compilers have known them since gcc 11 and clang 11. */
#define LENS_AMX 0
#if LENS_X86 && defined(__linux__) && defined(__has_include)
#if LENS_EMULATED || __has_include(<amxbf16intrin.h>) || __has_include(<amxintrin.h>)
#undef LENS_AMX
#define LENS_AMX 1
#endif
#endif
#if (defined(__GNUC__) || defined(__clang__)) && defined(__aarch64__)
#define LENS_ARM64 1
#else
#define LENS_ARM64 0
#endif

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#elif defined(__GNUC__)
#define UNROLL _Pragma("GCC unroll 32")
#else
#define UNROLL
#endif
#if defined(__GNUC__)
#define ALWAYS_INLINE inline __attribute__((always_inline))
#define NEVER_INLINE __attribute__((noinline))
#define FETCH(memory_) __builtin_prefetch(memory_, 0, 2) /* into the outer cache; never fails */
#else
#define ALWAYS_INLINE inline
#define NEVER_INLINE
#define FETCH(memory_) (void)(memory_)
#endif

/* What comes after a panel's part is fetched into the outer cache while the part is multiplied, for what a CPU
 * foresees by itself stops at its pages and comes late. Each pass over the part fetches its share at every
 * LENS_STEP rows of the panel, of which each is an entry of D or a bfloat16 pair. A step's lines lie a stretch of
 * memory apart, one stretch for each line, for a CPU has more requests for memory under way where it reads in
 * several places. */
enum { LENS_STEP = 4, LENS_LINE = 64, LENS_STEP_LINES = LENS_STEP * LENS_COLUMNS * 4 / LENS_LINE };
typedef struct {
    const char *from;
    int64_t lines; /* at every step */
    int64_t apart; /* in bytes */
} lens_ahead;

/* A step's lines spread over its rows: many at once would make the product wait. */
static ALWAYS_INLINE void lens_fetch_row(const lens_ahead *ahead, int row) {
    for (int line = row; line < LENS_STEP_LINES; line += LENS_STEP)
        if (line < ahead->lines) FETCH(ahead->from + line * ahead->apart);
}

static ALWAYS_INLINE void lens_fetch_next(lens_ahead *ahead) { ahead->from += LENS_LINE; }

static ALWAYS_INLINE void lens_fetch(lens_ahead *ahead) {
    for (int64_t line = 0; line < ahead->lines; line++) FETCH(ahead->from + line * ahead->apart);
    lens_fetch_next(ahead);
}

/* The share of one of the passes over a part that has so many rows; next: NULL where nothing comes after it. */
static inline lens_ahead lens_share_ahead(const char *next, int64_t pass, int64_t passes, int64_t part_rows) {
    int64_t lines = (LENS_STEP_LINES + passes - 1) / passes, before = pass * lines;
    int64_t apart = (part_rows + LENS_STEP - 1) / LENS_STEP * LENS_LINE;
    lens_ahead share = {NULL, 0, 0};
    if (next == NULL || before >= LENS_STEP_LINES) return share;
    share.from = next + before * apart;
    share.lines = LENS_STEP_LINES - before < lines ? LENS_STEP_LINES - before : lines;
    share.apart = apart;
    return share;
}

/* Running values of one row within a split, in as many lanes for every path. */
enum { LENS_STATE_LANES = 16 };
typedef struct {
    float total[LENS_STATE_LANES];    /* sums of exp(x - reference); in the second sweep of KL */
    float weighted[LENS_STATE_LANES]; /* sums of exp(x - reference) (x - reference); then of JS */
    float reference;
    float threshold; /* the k-th largest entry so far */
} lens_row_state;

/* Rows are cut into as few tiles as fit a path's register tile, of sizes that differ by one at most. */
typedef struct {
    int64_t begin, rows;
} lens_tile;

static inline int64_t lens_tile_count(int64_t count, int64_t tile_rows) {
    return (count + tile_rows - 1) / tile_rows;
}

static inline lens_tile lens_tile_at(int64_t count, int64_t tiles, int64_t index) {
    int64_t size = count / tiles, larger = count % tiles;
    lens_tile tile = {index * size + (index < larger ? index : larger), size + (index < larger)};
    return tile;
}

/* lens_pack_rows for tiles of a given height and so many pairs of a row together. */
void lens_pack_tiles(int32_t kind, const void *rows, const int64_t *places, int64_t count, int64_t width,
                     int64_t tile_rows, int64_t pairs_together, void *packed);

static inline int64_t lens_even(int64_t width) { return width + (width & 1); }

/* Pairs of a row that lie together in a tile of [groups, rows, pairs together], of which the last group may have
 * fewer. */
typedef struct {
    int64_t count, place; /* place: in the tile, in pairs */
} lens_pair_group;

static inline lens_pair_group lens_pairs_from(int64_t pair, int64_t pairs, int64_t row, int64_t rows,
                                              int64_t together) {
    int64_t here = pairs - pair < together ? pairs - pair : together;
    lens_pair_group group = {here, pair * rows + row * here};
    return group;
}

static inline int64_t lens_panel_count(int64_t vocabulary) {
    return (vocabulary + LENS_COLUMNS - 1) / LENS_COLUMNS;
}

static inline int64_t lens_panel_elements(int32_t kind, int64_t width) {
    return LENS_COLUMNS * (kind == LENS_FLOAT32 ? width : lens_even(width));
}

static inline int64_t lens_element_bytes(int32_t kind) { return kind == LENS_FLOAT32 ? 4 : 2; }

#endif
