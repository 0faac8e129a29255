/* What this CPU can do at most: multiply-adds from registers, and reads from memory. For benchmarks only. */
#include <stdint.h>
#include <stddef.h>

#if defined(__x86_64__)
#include <immintrin.h>

#define EACH(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11)
#define ZERO(i) a##i = _mm512_setzero_ps(),
#define FMA(i) a##i = _mm512_fmadd_ps(x, y, a##i);
#define DOT(i) a##i = _mm512_dpbf16_ps(a##i, (__m512bh)x, (__m512bh)y);
#define HIDE(i) __asm__ volatile("" : "+v"(a##i)); /* keeps the loop from being folded */
#define SUM(i) x = _mm512_add_ps(x, a##i);

/* 12 independent chains hide the latency. Returns the floating-point operations done. */
__attribute__((target("avx512f"))) double peak_float32(int64_t rounds) {
    __m512 EACH(ZERO) x = _mm512_set1_ps(1e-9f), y = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < rounds; i++) { EACH(FMA) EACH(HIDE) }
    EACH(SUM)
    __asm__ volatile("" : "+v"(x));
    return 12.0 * 16 * 2 * (double)rounds;
}

__attribute__((target("avx512f,avx512bf16"))) double peak_bfloat16(int64_t rounds) {
    __m512 EACH(ZERO) x = _mm512_set1_ps(1e-9f), y = _mm512_set1_ps(1.0f);
    for (int64_t i = 0; i < rounds; i++) { EACH(DOT) EACH(HIDE) }
    EACH(SUM)
    __asm__ volatile("" : "+v"(x));
    return 12.0 * 32 * 2 * (double)rounds;
}

/* Sum of all words: one front-to-back read. */
__attribute__((target("avx512f"))) uint64_t read_once(const void *memory, size_t bytes) {
    __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
    const char *p = memory, *end = p + bytes / 256 * 256;
    for (; p < end; p += 256) {
        a = _mm512_add_epi64(a, _mm512_loadu_si512(p));
        b = _mm512_add_epi64(b, _mm512_loadu_si512(p + 64));
        c = _mm512_add_epi64(c, _mm512_loadu_si512(p + 128));
        d = _mm512_add_epi64(d, _mm512_loadu_si512(p + 192));
    }
    return (uint64_t)_mm512_reduce_add_epi64(_mm512_add_epi64(_mm512_add_epi64(a, b), _mm512_add_epi64(c, d)));
}
#endif
