/* Arithmetic modulo N², eight residues at a time, for odd N.

   A residue is a pair (a, b) that stands for a + b·N: a product needs a·a' and a·b' + b·a' alone, and reductions by N
   alone, which is 5/8 of the work of one number of double length. Each half is in Montgomery form with R = 2**(52·limbs):

       a·a'             = a"·R - m·N             m is what Montgomery's reduction adds
       a·b' + b·a' - m  = b"·R  modulo N         so (a + b·N)·(a' + b'·N) = (a" + b"·N)·R  modulo N²

   Halves are lazily reduced: below 4·N. With 2**8·N <= R, a product of such numbers has halves below 2·N, whatever
   came in. `squares_store` alone makes them canonical.

   A 64-bit word takes sums of up to 2**12 products' halves of 52 bits; there are at most 6·limbs + 4, so that carries
   wait until the end. */

#include "lanes.h"

#include <string.h>

#if HAVE_LANES

#include <immintrin.h>

#define LANES __attribute__((target("avx512f,avx512ifma")))
#define INLINE static inline __attribute__((always_inline)) LANES
#define WORD_MASK ((1ULL << 52) - 1)

typedef __m512i v;

typedef struct {
    size_t limbs;
    v k0; /* -1/N modulo 2**52 */
    v n[MAX_LIMBS];
    v spare[MAX_LIMBS]; /* a multiple of N whose every limb is at least 2**52: subtracting m from it never borrows */
    const uint64_t *one, *r2, *r3; /* 1·R, R² and R³ modulo N², as pairs */
} modulus;

#define LOW(sum, x, y) _mm512_madd52lo_epu64(sum, x, y)
#define HIGH(sum, x, y) _mm512_madd52hi_epu64(sum, x, y)
#define ADD(x, y) _mm512_add_epi64(x, y)
#define SUB(x, y) _mm512_sub_epi64(x, y)
#define SHIFT(x) _mm512_srli_epi64(x, 52)
#define ALL(x) _mm512_set1_epi64((long long)(x))
#define ZERO _mm512_setzero_si512()

int lanes_available(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma");
}

INLINE void spread_word(size_t count, const uint64_t *words, v *out)
{
    for (size_t j = 0; j < count; j++) out[j] = ALL(words[j]);
}

LANES static void open_context(context c, modulus *m)
{
    const uint64_t *words = c.words;
    size_t limbs = m->limbs = c.limbs;
    m->k0 = ALL(words[1]);
    spread_word(limbs, words + 2, m->n);
    spread_word(limbs, words + 2 + limbs, m->spare);
    m->one = words + 2 + 2 * limbs;
    m->r2 = m->one + 2 * limbs;
    m->r3 = m->r2 + 2 * limbs;
}

/* sum = (sum + x·y + z·w + m·N)/R for the m that makes this whole; sum has two limbs more, zero at first; `products`
   says how many of the two count. Two limbs of x a round; limbs of the sum are not carried. */
INLINE void reduce(size_t limbs, int products, v *restrict sum, const v *x, const v *y, const v *z, const v *w,
                   const v *n, v k0, v *restrict m)
{
    const v zero = ZERO, full = ALL(WORD_MASK);
    v x0 = zero, x1 = zero, z0 = zero, z1 = zero, y0 = zero, y1 = zero, w0 = zero, w1 = zero;

    for (size_t i = 0; i < limbs; i += 2) {
        v low = sum[0], next = sum[1], more = zero;
        if (products > 0) {
            x0 = x[i], x1 = x[i + 1], y0 = y[0], y1 = y[1];
            low = LOW(low, x0, y0);
            next = HIGH(next, x0, y0), more = LOW(more, x0, y1), next = LOW(next, x1, y0);
        }
        if (products > 1) {
            z0 = z[i], z1 = z[i + 1], w0 = w[0], w1 = w[1];
            low = LOW(low, z0, w0);
            more = HIGH(more, z0, w0), next = LOW(next, z0, w1), more = LOW(more, z1, w0);
        }
        v n0 = n[0], n1 = n[1];
        const v m0 = LOW(zero, low, k0);
        /* low + m0·n0 is a multiple of 2**52: what it carries is known without it */
        next = ADD(next, SHIFT(ADD(low, full)));
        more = HIGH(more, m0, n0), next = LOW(next, m0, n1);
        next = ADD(next, more);
        const v m1 = LOW(zero, next, k0);
        sum[2] = ADD(sum[2], SHIFT(ADD(next, full)));
        if (m) m[i] = m0, m[i + 1] = m1;

#pragma GCC unroll 2
        for (size_t j = 2; j < limbs; j++) {
            v a = sum[j], b = zero;
            const v n2 = n[j];
            if (products > 0) {
                const v y2 = y[j];
                a = HIGH(a, x0, y1), b = LOW(b, x0, y2), a = HIGH(a, x1, y0), b = LOW(b, x1, y1);
                y0 = y1, y1 = y2;
            }
            if (products > 1) {
                const v w2 = w[j];
                a = HIGH(a, z0, w1), b = LOW(b, z0, w2), a = HIGH(a, z1, w0), b = LOW(b, z1, w1);
                w0 = w1, w1 = w2;
            }
            a = HIGH(a, m0, n1), b = LOW(b, m0, n2), a = HIGH(a, m1, n0), b = LOW(b, m1, n1);
            n0 = n1, n1 = n2;
            sum[j - 2] = ADD(a, b);
        }
        v a = sum[limbs], b = zero, last = sum[limbs + 1];
        if (products > 0) a = HIGH(a, x0, y1), b = HIGH(b, x1, y0), a = LOW(a, x1, y1), last = HIGH(last, x1, y1);
        if (products > 1) b = HIGH(b, z0, w1), a = HIGH(a, z1, w0), b = LOW(b, z1, w1), last = HIGH(last, z1, w1);
        a = HIGH(a, m0, n1), b = HIGH(b, m1, n0), a = LOW(a, m1, n1), last = HIGH(last, m1, n1);
        sum[limbs - 2] = ADD(a, b);
        sum[limbs - 1] = last;
        sum[limbs] = sum[limbs + 1] = zero;
    }
}

INLINE void carry(size_t limbs, const v *sum, v *out)
{
    const v full = ALL(WORD_MASK);
    v over = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        const v t = ADD(sum[j], over);
        over = SHIFT(t);
        out[j] = _mm512_and_si512(t, full);
    }
}

INLINE void clear(size_t limbs, v *sum)
{
    for (size_t j = 0; j < limbs; j++) sum[j] = ZERO;
}

INLINE void spare_less(const modulus *q, size_t limbs, const v *m, v *sum)
{
    for (size_t j = 0; j < limbs; j++) sum[j] = SUB(q->spare[j], m[j]);
    sum[limbs] = sum[limbs + 1] = ZERO;
}

/* out = x·y; they may be one */
INLINE void multiply_by(const modulus *q, size_t limbs, const v *x, const v *y, v *out)
{
    v sum[MAX_LIMBS + 2], m[MAX_LIMBS], low[MAX_LIMBS];
    clear(limbs + 2, sum);
    reduce(limbs, 1, sum, x, y, NULL, NULL, q->n, q->k0, m);
    carry(limbs, sum, low);
    spare_less(q, limbs, m, sum);
    reduce(limbs, 2, sum, x, y + limbs, x + limbs, y, q->n, q->k0, NULL);
    carry(limbs, sum, out + limbs);
    memcpy(out, low, limbs * sizeof(v));
}

/* out = x·x, with 2·a·b in place of a·b + b·a */
INLINE void square_by(const modulus *q, size_t limbs, const v *x, v *out)
{
    v sum[MAX_LIMBS + 2], m[MAX_LIMBS], low[MAX_LIMBS], twice[MAX_LIMBS];
    for (size_t j = 0; j < limbs; j++) sum[j] = ADD(x[j], x[j]);
    carry(limbs, sum, twice);
    clear(limbs + 2, sum);
    reduce(limbs, 1, sum, x, x, NULL, NULL, q->n, q->k0, m);
    carry(limbs, sum, low);
    spare_less(q, limbs, m, sum);
    reduce(limbs, 1, sum, twice, x + limbs, NULL, NULL, q->n, q->k0, NULL);
    carry(limbs, sum, out + limbs);
    memcpy(out, low, limbs * sizeof(v));
}

/* The lengths that keys of 2048, 3072 and 4096 bits and their primes have, with loops of known length; and any other. */
#define EACH_LENGTH(DO) DO(20) DO(32) DO(40) DO(60) DO(80)

#define DEFINE(LENGTH)                                                                              \
    LANES static __attribute__((noinline)) void multiply_##LENGTH(const modulus *q, const v *x, const v *y, v *out) \
    {                                                                                               \
        multiply_by(q, LENGTH, x, y, out);                                                          \
    }                                                                                               \
    LANES static __attribute__((noinline)) void square_##LENGTH(const modulus *q, const v *x, v *out) \
    {                                                                                               \
        square_by(q, LENGTH, x, out);                                                               \
    }
EACH_LENGTH(DEFINE)

LANES static __attribute__((noinline)) void multiply8(const modulus *q, const v *x, const v *y, v *out)
{
    switch (q->limbs) {
#define CASE(LENGTH) case LENGTH: multiply_##LENGTH(q, x, y, out); return;
        EACH_LENGTH(CASE)
#undef CASE
    default: multiply_by(q, q->limbs, x, y, out);
    }
}

LANES static __attribute__((noinline)) void square8(const modulus *q, const v *x, v *out)
{
    switch (q->limbs) {
#define CASE(LENGTH) case LENGTH: square_##LENGTH(q, x, out); return;
        EACH_LENGTH(CASE)
#undef CASE
    default: square_by(q, q->limbs, x, out);
    }
}

/* Eight rows of eight words to eight columns, in place. */
INLINE void transpose(v r[8])
{
    v t[8], s[8];
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]);
    }
    for (int i = 0; i < 8; i += 4)
        for (int k = 0; k < 2; k++) {
            s[i + k] = _mm512_shuffle_i64x2(t[i + k], t[i + 2 + k], 0x88);
            s[i + 2 + k] = _mm512_shuffle_i64x2(t[i + k], t[i + 2 + k], 0xdd);
        }
    for (int k = 0; k < 4; k++) {
        r[k] = _mm512_shuffle_i64x2(s[k], s[4 + k], 0x88);
        r[4 + k] = _mm512_shuffle_i64x2(s[k], s[4 + k], 0xdd);
    }
}

INLINE void gather(size_t words, const uint64_t *const from[8], v *x)
{
    for (size_t j = 0; j < words; j += 8) {
        v r[8];
        for (int lane = 0; lane < 8; lane++) r[lane] = _mm512_loadu_si512(from[lane] + j);
        transpose(r);
        for (int k = 0; k < 8; k++) x[j + k] = r[k];
    }
}

INLINE void scatter(size_t words, const v *x, uint64_t *const to[8])
{
    for (size_t j = 0; j < words; j += 8) {
        v r[8];
        for (int k = 0; k < 8; k++) r[k] = x[j + k];
        transpose(r);
        for (int lane = 0; lane < 8; lane++) _mm512_storeu_si512(to[lane] + j, r[lane]);
    }
}

/* Rows first..first+7 of `rows`, the last one again where there are fewer. */
INLINE void gather_rows(size_t words, const uint64_t *rows, size_t first, size_t count, v *x)
{
    const uint64_t *from[8];
    for (size_t lane = 0; lane < 8; lane++) from[lane] = rows + (first + lane < count ? first + lane : count - 1) * words;
    gather(words, from, x);
}

INLINE void scatter_rows(size_t words, const v *x, uint64_t *rows, size_t first, size_t count)
{
    uint64_t nowhere[2 * MAX_LIMBS], *to[8];
    for (size_t lane = 0; lane < 8; lane++) to[lane] = first + lane < count ? rows + (first + lane) * words : nowhere;
    scatter(words, x, to);
}

INLINE void prefetch(size_t words, const uint64_t *row)
{
    for (size_t j = 0; j < words; j += 8) __builtin_prefetch(row + j);
}

/* `width` big-endian bytes as little-endian ones, with zeros up to `room` */
static void reverse(const uint8_t *in, size_t width, uint8_t *out, size_t room)
{
    size_t i = 0;
    for (; i + 8 <= width; i += 8) {
        uint64_t word;
        memcpy(&word, in + width - i - 8, 8);
        word = __builtin_bswap64(word);
        memcpy(out + i, &word, 8);
    }
    for (; i < width; i++) out[i] = in[width - 1 - i];
    memset(out + width, 0, room - width);
}

LANES void squares_load(context c, const uint8_t *bytes, size_t width, uint64_t *out, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs, words = 2 * limbs;
    v x[2 * MAX_LIMBS], r2[2 * MAX_LIMBS], r3[2 * MAX_LIMBS], sum[MAX_LIMBS + 2], m[MAX_LIMBS];
    uint64_t rows[16 * MAX_LIMBS];
    uint8_t little[13 * MAX_LIMBS + 8];
    spread_word(words, q.r2, r2);
    spread_word(words, q.r3, r3);
    memset(rows, 0, sizeof rows);
    for (size_t i = 0; i < count; i += 8) {
        for (size_t lane = 0; lane < 8 && i + lane < count; lane++) {
            reverse(bytes + (i + lane) * width, width, little, 13 * limbs + 8);
            for (size_t j = 0; j < words; j++) {
                uint64_t word;
                memcpy(&word, little + (52 * j >> 3), 8);
                rows[lane * words + j] = word >> (52 * j & 7) & WORD_MASK;
            }
        }
        gather_rows(words, rows, 0, 8, x);
        /* low + high·R is low·R²/R + high·R³/R in Montgomery form */
        clear(limbs + 2, sum);
        reduce(limbs, 2, sum, x, r2, x + limbs, r3, q.n, q.k0, m);
        v pair[2 * MAX_LIMBS];
        carry(limbs, sum, pair);
        spare_less(&q, limbs, m, sum);
        reduce(limbs, 2, sum, x, r2 + limbs, x + limbs, r3 + limbs, q.n, q.k0, NULL);
        carry(limbs, sum, pair + limbs);
        scatter_rows(words, pair, out, i, count);
    }
}

/* x mod N, for x below 2·N */
INLINE void subtract_once(const modulus *q, size_t limbs, v *x)
{
    v less[MAX_LIMBS];
    const v full = ALL(WORD_MASK);
    v borrow = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        const v t = SUB(SUB(x[j], q->n[j]), borrow);
        borrow = _mm512_srli_epi64(t, 63);
        less[j] = _mm512_and_si512(t, full);
    }
    const __mmask8 smaller = _mm512_test_epi64_mask(borrow, borrow);
    for (size_t j = 0; j < limbs; j++) x[j] = _mm512_mask_blend_epi64(smaller, less[j], x[j]);
}

LANES void squares_store(context c, const uint64_t *in, uint8_t *bytes, size_t width, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs, words = 2 * limbs;
    v x[2 * MAX_LIMBS], sum[2 * MAX_LIMBS + 2], m[MAX_LIMBS], low[MAX_LIMBS], high[MAX_LIMBS];
    uint64_t rows[16 * MAX_LIMBS];
    uint8_t little[13 * MAX_LIMBS + 8];
    for (size_t i = 0; i < count; i += 8) {
        gather_rows(words, in, i, count, x);
        /* out of Montgomery form: a reduction of what there is. a <= N and b < N + 4 come out */
        memcpy(sum, x, limbs * sizeof(v));
        sum[limbs] = sum[limbs + 1] = ZERO;
        reduce(limbs, 0, sum, NULL, NULL, NULL, NULL, q.n, q.k0, m);
        carry(limbs, sum, low);
        spare_less(&q, limbs, m, sum);
        for (size_t j = 0; j < limbs; j++) sum[j] = ADD(sum[j], x[limbs + j]);
        reduce(limbs, 0, sum, NULL, NULL, NULL, NULL, q.n, q.k0, NULL);
        carry(limbs, sum, high);
        /* a = N is b + 1: subtract from a, and see whether that changed it */
        v before[MAX_LIMBS];
        memcpy(before, low, limbs * sizeof(v));
        subtract_once(&q, limbs, low);
        __mmask8 changed = 0;
        for (size_t j = 0; j < limbs; j++) changed |= _mm512_cmpneq_epi64_mask(before[j], low[j]);
        high[0] = _mm512_mask_add_epi64(high[0], changed, high[0], ALL(1));
        carry(limbs, high, high);
        subtract_once(&q, limbs, high);
        /* a + b·N */
        memcpy(sum, low, limbs * sizeof(v));
        for (size_t j = limbs; j < words + 2; j++) sum[j] = ZERO;
        for (size_t k = 0; k < limbs; k++) {
            const v b = high[k];
            v over = ZERO;
            for (size_t j = 0; j < limbs; j++) {
                sum[k + j] = ADD(LOW(sum[k + j], b, q.n[j]), over);
                over = HIGH(ZERO, b, q.n[j]);
            }
            sum[k + limbs] = ADD(sum[k + limbs], over);
        }
        carry(words, sum, x);
        scatter_rows(words, x, rows, 0, 8);
        for (size_t lane = 0; lane < 8 && i + lane < count; lane++) {
            /* two limbs are thirteen bytes */
            for (size_t j = 0; j < words; j += 2) {
                const uint64_t *two = rows + lane * words + j;
                const uint64_t first = two[0] | two[1] << 52, second = two[1] >> 12;
                memcpy(little + 13 * (j / 2), &first, 8);
                memcpy(little + 13 * (j / 2) + 8, &second, 5);
            }
            uint8_t *row = bytes + (i + lane) * width;
            for (size_t k = 0; k < width; k++) row[k] = little[width - 1 - k];
        }
    }
}

LANES void squares_multiply(context c, const uint64_t *a, const uint64_t *b, const int64_t *index, uint64_t *out,
                            size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs;
    v x[2 * MAX_LIMBS], y[2 * MAX_LIMBS];
    for (size_t i = 0; i < count; i += 8) {
        gather_rows(words, a, i, count, x);
        if (index) {
            const uint64_t *from[8];
            for (size_t lane = 0; lane < 8; lane++) from[lane] = b + index[i + lane < count ? i + lane : i] * words;
            gather(words, from, y);
        } else {
            gather_rows(words, b, i, count, y);
        }
        for (size_t next = i + 8; next < i + 16 && next < count; next++) {
            prefetch(words, a + next * words);
            prefetch(words, b + (index ? (size_t)index[next] : next) * words);
        }
        multiply8(&q, x, y, x);
        scatter_rows(words, x, out, i, count);
    }
}

LANES void squares_combine(context c, const uint64_t *values, size_t count, uint64_t *out)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs;
    v x[2 * MAX_LIMBS], y[2 * MAX_LIMBS];
    memcpy(out, q.one, words * sizeof(uint64_t));
    for (size_t done = 1, value = count; value-- > 0; done *= 2) {
        spread_word(words, values + value * words, y);
        for (size_t i = 0; i < done; i += 8) {
            gather_rows(words, out, i, done, x);
            multiply8(&q, x, y, x);
            scatter_rows(words, x, out + done * words, i, done);
        }
    }
}

LANES void squares_square(context c, const uint64_t *a, size_t times, uint64_t *out, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs;
    v x[2 * MAX_LIMBS];
    for (size_t i = 0; i < count; i += 8) {
        gather_rows(words, a, i, count, x);
        for (size_t t = 0; t < times; t++) square8(&q, x, x);
        scatter_rows(words, x, out, i, count);
    }
}

LANES void squares_buckets(context c, const uint64_t *values, const int64_t *starts, const int32_t *cells, size_t steps,
                           uint64_t *tables, size_t size)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs;
    v x[2 * MAX_LIMBS], y[2 * MAX_LIMBS];
    uint64_t nowhere[2 * MAX_LIMBS] = {0};
    int shared = 1;
    for (size_t lane = 1; lane < 8; lane++) shared &= starts[lane] == starts[0];
    for (size_t step = 0; step < steps; step++) {
        uint64_t *to[8];
        const uint64_t *from[8], *value[8];
        for (size_t lane = 0; lane < 8; lane++) {
            const int32_t cell = cells[8 * step + lane];
            from[lane] = to[lane] = cell < 0 ? nowhere : tables + (lane * size + (size_t)cell) * words;
            value[lane] = cell < 0 ? nowhere : values + ((size_t)starts[lane] + step) * words;
            const int32_t then = step + 1 < steps ? cells[8 * step + 8 + lane] : -1;
            if (then >= 0) prefetch(words, tables + (lane * size + (size_t)then) * words);
        }
        if (shared)
            spread_word(words, values + ((size_t)starts[0] + step) * words, x);
        else
            gather(words, value, x);
        gather(words, from, y);
        multiply8(&q, x, y, y);
        scatter(words, y, to);
    }
}

size_t squares_power_memory(context c, unsigned window)
{
    return ((size_t)8 << window) * 2 * c.limbs * sizeof(uint64_t);
}

LANES void squares_power(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window,
                         uint64_t *out, size_t count, void *memory)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs, entries = (size_t)1 << window;
    v x[2 * MAX_LIMBS], y[2 * MAX_LIMBS];
    uint64_t *table = memory; /* [entries][8][words] */
    for (size_t i = 0; i < count; i += 8) {
        spread_word(words, q.one, y);
        gather_rows(words, a, i, count, x);
        for (size_t e = 0; e < entries; e++) {
            scatter_rows(words, y, table + 8 * e * words, 0, 8);
            multiply8(&q, y, x, y);
        }
        for (size_t place = 0; place < places; place++) {
            const uint64_t *from[8];
            for (size_t lane = 0; lane < 8; lane++) {
                const size_t row = i + lane < count ? i + lane : count - 1;
                from[lane] = table + (8 * (size_t)digits[row * places + place] + lane) * words;
            }
            if (place) {
                for (unsigned s = 0; s < window; s++) square8(&q, y, y);
                gather(words, from, x);
                multiply8(&q, y, x, y);
            } else {
                gather(words, from, y);
            }
        }
        if (!places) spread_word(words, q.one, y);
        scatter_rows(words, y, out, i, count);
    }
}

/* table[digit], after having read all entries */
INLINE void pick(size_t words, const v *table, size_t entries, size_t digit, v *x)
{
    const v wanted = ALL(digit);
    for (size_t j = 0; j < words; j++) x[j] = table[j];
    for (size_t e = 1; e < entries; e++) {
        const __mmask8 chosen = _mm512_cmpeq_epi64_mask(wanted, ALL(e));
        for (size_t j = 0; j < words; j++) x[j] = _mm512_mask_blend_epi64(chosen, x[j], table[e * words + j]);
    }
}

LANES void squares_power_secret(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window,
                                uint64_t *out, size_t count, void *memory)
{
    modulus q;
    open_context(c, &q);
    const size_t words = 2 * q.limbs, entries = (size_t)1 << window;
    v x[2 * MAX_LIMBS], y[2 * MAX_LIMBS], *table = memory; /* [entries][words] */
    for (size_t i = 0; i < count; i += 8) {
        spread_word(words, q.one, table);
        gather_rows(words, a, i, count, x);
        for (size_t e = 1; e < entries; e++) multiply8(&q, table + (e - 1) * words, x, table + e * words);
        spread_word(words, q.one, y);
        for (size_t place = 0; place < places; place++) {
            for (unsigned s = 0; place && s < window; s++) square8(&q, y, y);
            pick(words, table, entries, digits[place], x);
            multiply8(&q, y, x, y);
        }
        scatter_rows(words, y, out, i, count);
    }
}

#else

int lanes_available(void) { return 0; }

#endif
