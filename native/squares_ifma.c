/* Eight residues at a time, in limbs of 52 bits, multiplied by AVX-512 IFMA: the low and the high half of a product are
   an instruction each. */

#include "lanes.h"

#if HAVE_LANES

#include <immintrin.h>

#define TARGET "avx512f,avx512ifma"
#define SQUARES squares_ifma
#define PER 1
#define LIMB_BITS 52
#define WIDTH 8

typedef __m512i v;
typedef __mmask8 flags;

#define LOW(sum, x, y) _mm512_madd52lo_epu64(sum, x, y)
#define HIGH(sum, x, y) _mm512_madd52hi_epu64(sum, x, y)
#define ADD(x, y) _mm512_add_epi64(x, y)
#define SUB(x, y) _mm512_sub_epi64(x, y)
#define AND(x, y) _mm512_and_si512(x, y)
#define SHIFT(x) _mm512_srli_epi64(x, LIMB_BITS)
#define SIGN(x) _mm512_srli_epi64(x, 63)
#define ALL(x) _mm512_set1_epi64((long long)(x))
#define ZERO _mm512_setzero_si512()
#define DIFFERENT(x, y) _mm512_cmpneq_epi64_mask(x, y)
#define EITHER(x, y) ((flags)((x) | (y)))
#define CHOOSE(where, x, y) _mm512_mask_blend_epi64(where, x, y)

/* sum = (sum + x·y + z·w + m·N)/R for the m that makes this whole; sum has two limbs more, zero at first; `products`
   says how many of the two count. Two limbs of x a round; limbs of the sum are not carried. */
INLINE void reduce(size_t limbs, int products, v *restrict sum, const v *x, const v *y, const v *z, const v *w,
                   const v *n, v k0, v *restrict m)
{
    const v zero = ZERO, full = ALL(LIMB_MASK);
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

/* sum += b·n, a limb longer than n */
INLINE void add_product(size_t limbs, v *sum, v b, const v *n)
{
    v over = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        sum[j] = ADD(LOW(sum[j], b, n[j]), over);
        over = HIGH(ZERO, b, n[j]);
    }
    sum[limbs] = ADD(sum[limbs], over);
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

INLINE void gather_eight(const uint64_t *const from[8], size_t j, __mmask8 present, v *x)
{
    v r[8];
    for (int lane = 0; lane < 8; lane++) r[lane] = _mm512_maskz_loadu_epi64(present, from[lane] + j);
    transpose(r);
    for (int k = 0; k < 8; k++) x[j + k] = r[k];
}

INLINE void scatter_eight(const v *x, size_t j, __mmask8 present, uint64_t *const to[8])
{
    v r[8];
    for (int k = 0; k < 8; k++) r[k] = x[j + k];
    transpose(r);
    for (int lane = 0; lane < 8; lane++) _mm512_mask_storeu_epi64(to[lane] + j, present, r[lane]);
}

/* Rows are a multiple of four words, so that the last ones can be half a vector. */
INLINE void gather(size_t words, const uint64_t *const from[8], v *x)
{
    size_t j = 0;
    for (; j + 8 <= words; j += 8) gather_eight(from, j, 0xff, x);
    if (j < words) gather_eight(from, j, 0x0f, x);
}

INLINE void scatter(size_t words, const v *x, uint64_t *const to[8])
{
    size_t j = 0;
    for (; j + 8 <= words; j += 8) scatter_eight(x, j, 0xff, to);
    if (j < words) scatter_eight(x, j, 0x0f, to);
}

#include "squares.h"

#endif
