/* The second stage: partial results of all splits to final statistics, in float64 and in split order. */
#include <math.h>

#include "lens_paths.h"

static void break_row(const lens_block *block, const lens_result *result, int64_t row, int64_t place) {
    float *const scalars[] = {result->logsumexp, result->entropy, result->max_prob, result->watch_mass,
                              result->watch_entropy};
    result->maximum[row] = result->log_total[row] = NAN;
    for (unsigned i = 0; i < sizeof scalars / sizeof *scalars; i++) scalars[i][place] = NAN;
    for (int64_t i = 0; i < block->top; i++) {
        result->top_ids[place * block->top + i] = -1;
        result->top_logprobs[place * block->top + i] = NAN;
    }
    for (int64_t j = 0; j < block->watch_count; j++) {
        result->watch_rank[place * block->watch_count + j] = -1;
        result->watch_logprob[place * block->watch_count + j] = NAN;
    }
}

/* Insert the splits' entries; a later split has the higher ids, so it passes only strictly smaller ones. */
static void merge_top(const lens_block *block, const lens_result *result, int64_t row, int64_t place,
                      double logsumexp) {
    int64_t k = block->top, kept = 0, *ids = result->top_ids + place * k;
    float *values = result->top_logprobs + place * k;
    for (int64_t split = 0; split < block->splits; split++)
        for (int64_t i = 0; i < k; i++) {
            int64_t from = (split * block->count + row) * k + i, to = kept;
            float value = block->top_values[from];
            if (block->top_ids[from] < 0 || (kept == k && !(value > values[k - 1]))) break;
            if (kept < k)
                kept++;
            else
                to = k - 1;
            for (; to > 0 && value > values[to - 1]; to--) values[to] = values[to - 1], ids[to] = ids[to - 1];
            values[to] = value, ids[to] = block->top_ids[from];
        }
    for (int64_t i = 0; i < kept; i++) values[i] = (float)((double)values[i] - logsumexp);
    for (int64_t i = kept; i < k; i++) values[i] = NAN, ids[i] = -1;
}

static void merge_watched(const lens_block *block, const lens_result *result, int64_t row, int64_t place,
                          double logsumexp) {
    int64_t watched = block->watch_count;
    const int64_t *ids = block->watch_ids + row * block->watch_stride;
    const float *x = block->watched + row * watched;
    double mass = 0, weighted = 0, within = 0, highest = watched ? x[0] : 0;
    for (int64_t j = 0; j < watched; j++) {
        int64_t rank = 0;
        for (int64_t split = 0; split < block->splits; split++)
            rank += block->ranks[(split * block->count + row) * watched + j];
        result->watch_rank[place * watched + j] = rank;
        result->watch_logprob[place * watched + j] = (float)((double)x[j] - logsumexp);
        if (j > 0 && ids[j] == ids[j - 1]) continue; /* a set holds a token once */
        mass += exp((double)x[j] - logsumexp);
        if (x[j] > highest) highest = x[j];
    }
    /* The entropy within the set has its own normaliser, for the mass of an improbable set may underflow. */
    for (int64_t j = 0; j < watched; j++) {
        if (j > 0 && ids[j] == ids[j - 1]) continue;
        double shifted = (double)x[j] - highest;
        within += exp(shifted);
        weighted += exp(shifted) * shifted;
    }
    result->watch_mass[place] = (float)mass;
    result->watch_entropy[place] = watched ? (float)fmax(0, log(within) - weighted / within) : 0;
}

void lens_merge(const lens_block *block, const lens_result *result, int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; row++) {
        int64_t place = result->places ? result->places[row] : row;
        double reference = -INFINITY, maximum = -INFINITY, total = 0, weighted = 0;
        for (int64_t split = 0; split < block->splits; split++) {
            int64_t from = split * block->count + row;
            /* No fmax: gcc 12 for ARM breaks off where it turns two of them into vectors. */
            if (block->reference[from] > reference) reference = block->reference[from];
            if (block->top_values[from * block->top] > maximum) maximum = block->top_values[from * block->top];
        }
        for (int64_t split = 0; split < block->splits; split++) {
            int64_t from = split * block->count + row;
            double shift = block->reference[from] - reference, factor = exp(shift);
            total += factor * block->total[from];
            weighted += factor * block->weighted[from];
            /* A factor of 0 stays 0: 0 times a huge shift is no number to add. */
            if (factor != 0) weighted += factor * shift * block->total[from];
        }
        if (!isfinite(total) || !isfinite(weighted) || !isfinite(maximum)) {
            break_row(block, result, row, place);
            continue;
        }
        double logsumexp = reference + log(total);
        result->maximum[row] = (float)maximum;
        result->log_total[row] = (float)(logsumexp - maximum);
        result->logsumexp[place] = (float)logsumexp;
        result->entropy[place] = (float)fmax(0, log(total) - weighted / total);
        result->max_prob[place] = (float)exp(maximum - logsumexp);
        merge_top(block, result, row, place, logsumexp);
        merge_watched(block, result, row, place, logsumexp);
    }
}

void lens_merge_divergences(const lens_block *block, const lens_result *result, const lens_pairs *pairs,
                            float *kl, float *js) {
    for (int64_t i = 0; i < pairs->count; i++) {
        int64_t row = pairs->row[i], final = pairs->final[i];
        double kl_sum = 0, js_sum = 0;
        for (int64_t split = 0; split < block->splits; split++) {
            kl_sum += pairs->kl[split * pairs->count + i];
            js_sum += pairs->js[split * pairs->count + i];
        }
        int broken = isnan(result->maximum[row]) || isnan(result->maximum[final]);
        /* A distribution does not diverge from itself, not by rounding. */
        kl[i] = broken ? NAN : row == final ? 0 : (float)fmax(0, kl_sum);
        js[i] = broken ? NAN : row == final ? 0 : (float)fmax(0, js_sum);
    }
}
