/* AVX-512 without bfloat16 products: bfloat16 weights are widened in registers. */
#include "lens_paths.h"
#if LENS_X86
#if LENS_EMULATED
#elif defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,popcnt"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,popcnt")
#endif
#include "lens_vec512.h"

#define MULTIPLIES_BFLOAT16 0
#define PATH lens_avx512
#define PATH_NAME "avx512"

#include "lens_kernels.h"

#if defined(__clang__) && !LENS_EMULATED
#pragma clang attribute pop
#endif
#endif
