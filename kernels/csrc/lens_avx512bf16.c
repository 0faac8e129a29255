/* AVX-512 with bfloat16 products, two at a time into float32. */
#include "lens_paths.h"
#if LENS_X86
#if LENS_EMULATED
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
    "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,popcnt"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,popcnt")
#endif
#include "lens_vec512.h"

#define MULTIPLIES_BFLOAT16 1
#define PATH lens_avx512bf16
#define PATH_NAME "avx512bf16"

static inline vec v_dot_bfloat16(vec sum, vec a, vec b) {
    return _mm512_dpbf16_ps(sum, (__m512bh)a, (__m512bh)b);
}

#include "lens_kernels.h"

#if defined(__clang__) && !LENS_EMULATED
#pragma clang attribute pop
#endif
#endif
