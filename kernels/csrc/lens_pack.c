/* Packing: the layouts that the product reads front to back.
 *
 * float32 panel [D, 32]; bfloat16 panel [D / 2, 32, 2], so that one 32-bit lane holds a pair along D, as the
 * pairwise multiply wants it and as two shifts widen it. Rows: tile after tile of [D, tile rows], bfloat16 in
 * pairs of [D / 2 / g, tile rows, g], of which g lie together; lens_paths.h cuts the tiles.
 */
#if defined(__linux__)
#define _DEFAULT_SOURCE
#include <sys/mman.h>
#endif
#include <string.h>

#include "lens_paths.h"

static void pack_panel_float32(const float *weight, int64_t valid, int64_t width, float *panel) {
    for (int64_t column = 0; column < LENS_COLUMNS; column++)
        for (int64_t k = 0; k < width; k++)
            panel[k * LENS_COLUMNS + column] = column < valid ? weight[column * width + k] : 0.0f;
}

static void pack_panel_bfloat16(const uint16_t *weight, int64_t valid, int64_t width, uint16_t *panel) {
    for (int64_t column = 0; column < LENS_COLUMNS; column++)
        for (int64_t k = 0; k < lens_even(width); k++) {
            uint16_t value = column < valid && k < width ? weight[column * width + k] : 0;
            panel[(k / 2 * LENS_COLUMNS + column) * 2 + k % 2] = value;
        }
}

void lens_pack_panels(int32_t kind, const void *weight, int64_t valid, int64_t width, int64_t panels,
                      void *packed, void *scratch) {
    int64_t bytes = lens_panel_elements(kind, width) * lens_element_bytes(kind);
    for (int64_t i = 0; i < panels; i++) {
        int64_t first = i * LENS_COLUMNS, here = valid - first;
        if (here > LENS_COLUMNS) here = LENS_COLUMNS;
        if (kind == LENS_FLOAT32)
            pack_panel_float32((const float *)weight + first * width, here, width, scratch);
        else
            pack_panel_bfloat16((const uint16_t *)weight + first * width, here, width, scratch);
        memcpy((char *)packed + i * bytes, scratch, (size_t)bytes);
    }
}

void lens_gather_panels(const lens_head *head, const int64_t *ids, int64_t count, void *packed) {
    /* In units of 4 bytes: a float32 element or a bfloat16 pair. */
    int64_t depth = head->kind == LENS_FLOAT32 ? head->width : lens_even(head->width) / 2;
    const uint32_t *from = head->panels;
    uint32_t *to = packed;
    for (int64_t place = 0; place < lens_panel_count(count) * LENS_COLUMNS; place++) {
        uint32_t *target = to + place / LENS_COLUMNS * depth * LENS_COLUMNS + place % LENS_COLUMNS;
        int64_t id = ids[place < count ? place : 0]; /* repeats fill the last panel */
        const uint32_t *source = from + id / LENS_COLUMNS * depth * LENS_COLUMNS + id % LENS_COLUMNS;
        for (int64_t k = 0; k < depth; k++) target[k * LENS_COLUMNS] = source[k * LENS_COLUMNS];
    }
}

static void pack_row_float32(const float *from, int64_t width, int64_t rows, float *to) {
    for (int64_t k = 0; k < lens_even(width); k++) to[k * rows] = k < width ? from[k] : 0.0f;
}

static void pack_row_bfloat16(const uint16_t *from, int64_t width, int64_t row, int64_t rows, int64_t together,
                              uint16_t *tile) {
    for (int64_t pair = 0; 2 * pair < width; pair += together) {
        lens_pair_group group = lens_pairs_from(pair, lens_even(width) / 2, row, rows, together);
        int64_t left = width - 2 * pair;
        for (int64_t k = 0; k < 2 * group.count; k++)
            tile[2 * group.place + k] = k < left ? from[2 * pair + k] : 0;
    }
}

void lens_pack_tiles(int32_t kind, const void *rows, const int64_t *places, int64_t count, int64_t width,
                     int64_t tile_rows, int64_t pairs_together, void *packed) {
    int64_t tiles = lens_tile_count(count, tile_rows), even = lens_even(width);
    for (int64_t t = 0; t < tiles; t++) {
        lens_tile tile = lens_tile_at(count, tiles, t);
        for (int64_t row = 0; row < tile.rows; row++) {
            int64_t place = tile.begin + row, target = tile.begin * even;
            int64_t source = (places ? places[place] : place) * width;
            if (kind == LENS_BFLOAT16)
                pack_row_bfloat16((const uint16_t *)rows + source, width, row, tile.rows, pairs_together,
                                  (uint16_t *)packed + target);
            else
                pack_row_float32((const float *)rows + source, width, tile.rows, (float *)packed + target + row);
        }
    }
}

void lens_advise_huge(void *memory, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    uintptr_t page = 4096, begin = ((uintptr_t)memory + page - 1) / page * page;
    uintptr_t end = ((uintptr_t)memory + (uintptr_t)bytes) / page * page;
    if (end > begin) (void)madvise((void *)begin, end - begin, MADV_HUGEPAGE);
#else
    (void)memory, (void)bytes;
#endif
}
