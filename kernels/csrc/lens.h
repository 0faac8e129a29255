/* Lens statistics on the CPU: the whole interface of the C core, which is also the binding's declaration.
 *
 * The statistics of R rows of hidden states H [R, D] under an unembedding W [V, D] are those of the logits
 * x = scale (H W' + bias), soft-capped where asked for, which are never all in memory. W is packed once into
 * panels of LENS_COLUMNS rows; H is packed block by block into tiles. The vocabulary is cut into splits of
 * whole panels. Each split gives partial results for all rows of a block, merged in split order: the bits
 * depend on the splits, never on who computed which. No function allocates, keeps state or starts a thread.
 * Results that would be denormal are 0, where the CPU can be told so.
 *
 * Callers pass valid pointers, aligned to their element type; nothing is checked here.
 */
#ifndef LENS_H
#define LENS_H
#include <stdint.h>

enum { LENS_COLUMNS = 32 };

/* How a packed weight is stored, and how rows meet it. */
enum {
    LENS_FLOAT32 = 0, /* float32 weight and rows */
    LENS_WIDENED = 1, /* bfloat16 weight, widened in registers; float32 rows */
    LENS_BFLOAT16 = 2 /* bfloat16 weight and rows, multiplied in pairs; only where the path can */
};

typedef struct {
    const void *panels; /* from lens_pack_panels */
    int32_t kind;
    int64_t width;      /* D */
    int64_t vocabulary; /* V: columns from here on are padding */
    const float *bias;  /* a whole number of panels, or NULL */
    float scale;
    float softcap; /* 0: none */
} lens_head;

/* One block of rows, with everything its splits read and write. S splits, r rows, J watched, k places. */
typedef struct {
    lens_head head;
    const void *rows; /* from lens_pack_rows */
    int64_t count;    /* r */
    int64_t splits;   /* S */
    int64_t split_panels;
    int64_t groups; /* of rows, equal parts of whole tiles, for the sharing of work alone */
    const int64_t *watch_ids; /* [J] ascending, each once; or [r, J], each row ascending */
    const float *watched;     /* [r, J] their logits */
    int64_t watch_count;      /* J */
    int64_t watch_stride;     /* from a row's ids to the next row's: J, or 0 where all rows watch the same */
    int64_t top;              /* k, at least 1 */
    float *reference;         /* [S, r] a number near the largest logit */
    double *total;            /* [S, r] sum of exp(x - reference) */
    double *weighted;         /* [S, r] sum of exp(x - reference) (x - reference) */
    float *top_values;        /* [S, r, k] descending */
    int32_t *top_ids;         /* [S, r, k], -1 where there is none */
    int32_t *ranks;           /* [S, r, J] */
    float *logits;            /* [V / LENS_COLUMNS rounded up, r, LENS_COLUMNS], or NULL where not kept */
} lens_block;

/* Final statistics; a row with a NaN or Inf logit gets NaN and -1. All but the first two are of all R rows. */
typedef struct {
    float *maximum;      /* [r] largest logit */
    float *log_total;    /* [r] logsumexp - maximum */
    float *logsumexp;    /* [R] */
    float *entropy;      /* [R] */
    float *max_prob;     /* [R] */
    int64_t *top_ids;    /* [R, k] */
    float *top_logprobs; /* [R, k] */
    float *watch_logprob; /* [R, J] */
    int64_t *watch_rank; /* [R, J] */
    float *watch_mass;   /* [R] */
    float *watch_entropy; /* [R] */
    const int64_t *places; /* [r] of the block's rows among the R, or NULL where these are the block's */
} lens_result;

/* Rows of a block beside the final row of each, both as places in the block, equal finals adjacent. */
typedef struct {
    int64_t count; /* n */
    const int64_t *row;
    const int64_t *final;
    double *kl; /* [S, n] */
    double *js; /* [S, n] */
} lens_pairs;

/* A gradient of n rows as a product of their slopes with the weight, some tokens after others. */
typedef struct {
    int64_t count;      /* n */
    int64_t parts;      /* bfloat16 numbers that a slope is the sum of: 2, or 1, its nearest */
    int64_t depth;      /* tokens at a time, even */
    int64_t vocabulary; /* V */
    int64_t width;      /* D */
    int64_t stride;     /* from one row of the weight to the next */
    const void *weight; /* [V, stride] bfloat16, not packed */
    float *gradient;    /* [n, D], to which is added */
} lens_gradient;

/* Paths are numbered from 0, best first; the last one, portable, is always supported. */
int32_t lens_path_count(void);
const char *lens_path_name(int32_t path);
int32_t lens_path_supported(int32_t path);
int32_t lens_path_multiplies_bfloat16(int32_t path);

/* Pack `valid` rows of a row-major weight [valid, width] into panels, zeros beyond them. A panel has
 * LENS_COLUMNS * width elements (width rounded up to even for bfloat16) and may be packed onto its own rows;
 * scratch holds one panel. */
void lens_pack_panels(int32_t kind, const void *weight, int64_t valid, int64_t width, int64_t panels,
                      void *packed, void *scratch);
/* Gather the packed columns of some tokens into panels of their own. */
void lens_gather_panels(const lens_head *head, const int64_t *ids, int64_t count, void *packed);
/* Pack rows [count, width], or those at `places` where it is not NULL, into tiles: width rounded up to even times
 * count elements. */
void lens_pack_rows(int32_t path, int32_t kind, const void *rows, const int64_t *places, int64_t count,
                    int64_t width, void *packed);
/* Ask for huge pages behind memory not yet touched; does nothing where the system has none. */
void lens_advise_huge(void *memory, int64_t bytes);

/* The logits [count, columns] themselves, by the very product that the statistics use. */
void lens_logits(int32_t path, const lens_head *head, const void *rows, int64_t count, float *out,
                 int64_t columns);

/* Partial results of one split for one group of rows; scratch from lens_scratch_bytes, one per thread. */
int64_t lens_scratch_bytes(int64_t count);
void lens_reduce(int32_t path, const lens_block *block, int64_t split, int64_t group, void *scratch);
void lens_merge(const lens_block *block, const lens_result *result, int64_t begin, int64_t end);
/* Partial divergences of one split from the kept logits, and their sums [n], NaN where a row is broken. */
void lens_diverge(int32_t path, const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                  int64_t split, void *scratch);
/* From the kept logits of some panels: the slopes of each pair's KL by the row's logits, which are
 * (q - p) (1 - (x / softcap)^2), into the columns of out [n, stride] (padding is no number), and these
 * columns' part of KL [n]. */
void lens_slopes(int32_t path, const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                 int64_t first, int64_t panels, float *out, int64_t stride, double *kl, void *scratch);
/* Only where the path multiplies bfloat16. Pack slopes [n, depth] of the tokens from `first` on: `parts` times n
 * times depth elements. */
void lens_pack_slopes(int32_t path, const lens_gradient *gradient, const float *slopes, int64_t first,
                      void *packed);
/* Add the products of these with the weight's columns from `column` on; panels: scratch of depth elements for each
 * column, in whole panels. */
void lens_add_gradient(int32_t path, const lens_gradient *gradient, const void *packed, int64_t first,
                       int64_t column, int64_t columns, void *panels);
void lens_merge_divergences(const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                            float *kl, float *js);

/* Single functions of a path, for tests: 0 exp(x) at x <= 80, 1 -log((1 + x) / 2) at 0 <= x <= 1, 2 tanh. */
void lens_evaluate(int32_t path, int32_t function, const float *x, float *out, int64_t count);

#endif
