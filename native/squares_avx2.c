/* Four residues at a time, in limbs of 26 bits, multiplied by AVX2, which all processors of the kind have had since about
   2015: 32 bits by 32, four at a time, is as much in a cycle as one product of 64 bits by 64, or twice as much, and
   needs no carries. */

#include "lanes.h"

#if HAVE_LANES

#include <immintrin.h>

#define TARGET "avx2"
#define SQUARES squares_avx2
#define PER 2
#define LIMB_BITS 26
#define WIDTH 4

typedef __m256i v;
typedef __m256i flags;

#define TIMES(x, y) _mm256_mul_epu32(x, y) /* of the lower 32 bits */
#define MORE(sum, x, y) ADD(sum, TIMES(x, y))
#define ADD(x, y) _mm256_add_epi64(x, y)
#define SUB(x, y) _mm256_sub_epi64(x, y)
#define AND(x, y) _mm256_and_si256(x, y)
#define SHIFT(x) _mm256_srli_epi64(x, LIMB_BITS)
#define SIGN(x) _mm256_srli_epi64(x, 63)
#define ALL(x) _mm256_set1_epi64x((long long)(x))
#define ZERO _mm256_setzero_si256()
#define DIFFERENT(x, y) _mm256_xor_si256(_mm256_cmpeq_epi64(x, y), ALL(-1))
#define EITHER(x, y) _mm256_or_si256(x, y)
#define CHOOSE(where, x, y) _mm256_blendv_epi8(x, y, where)

/* As in squares_ifma.c. A product of limbs has the place of its lower one alone. */
INLINE void reduce(size_t limbs, int products, v *restrict sum, const v *x, const v *y, const v *z, const v *w,
                   const v *n, v k0, v *restrict m)
{
    const v zero = ZERO, full = ALL(LIMB_MASK);
    v x0 = zero, x1 = zero, z0 = zero, z1 = zero, y1 = zero, w1 = zero;

    for (size_t i = 0; i < limbs; i += 2) {
        v low = sum[0], next = sum[1];
        if (products > 0) {
            x0 = x[i], x1 = x[i + 1], y1 = y[1];
            low = MORE(low, x0, y[0]);
            next = MORE(MORE(next, x0, y1), x1, y[0]);
        }
        if (products > 1) {
            z0 = z[i], z1 = z[i + 1], w1 = w[1];
            low = MORE(low, z0, w[0]);
            next = MORE(MORE(next, z0, w1), z1, w[0]);
        }
        v n1 = n[1];
        const v m0 = AND(TIMES(low, k0), full);
        low = MORE(low, m0, n[0]);
        next = ADD(MORE(next, m0, n1), SHIFT(low));
        const v m1 = AND(TIMES(next, k0), full);
        next = MORE(next, m1, n[0]);
        sum[2] = ADD(sum[2], SHIFT(next));
        if (m) m[i] = m0, m[i + 1] = m1;

#pragma GCC unroll 8
        for (size_t j = 2; j < limbs; j++) {
            v a = sum[j], b = zero;
            const v n2 = n[j];
            if (products > 0) {
                const v y2 = y[j];
                a = MORE(a, x0, y2), b = TIMES(x1, y1);
                y1 = y2;
            }
            if (products > 1) {
                const v w2 = w[j];
                a = MORE(a, z0, w2), b = MORE(b, z1, w1);
                w1 = w2;
            }
            a = MORE(a, m0, n2), b = MORE(b, m1, n1);
            n1 = n2;
            sum[j - 2] = ADD(a, b);
        }
        v a = MORE(sum[limbs], m1, n1);
        if (products > 0) a = MORE(a, x1, y1);
        if (products > 1) a = MORE(a, z1, w1);
        sum[limbs - 2] = a;
        sum[limbs - 1] = sum[limbs + 1];
        sum[limbs] = sum[limbs + 1] = zero;
    }
}

/* sum += b·n */
INLINE void add_product(size_t limbs, v *sum, v b, const v *n)
{
    for (size_t j = 0; j < limbs; j++) sum[j] = MORE(sum[j], b, n[j]);
}

/* Four rows of four words to four columns, in place. */
INLINE void transpose(v r[4])
{
    const v a = _mm256_unpacklo_epi64(r[0], r[1]), b = _mm256_unpackhi_epi64(r[0], r[1]);
    const v c = _mm256_unpacklo_epi64(r[2], r[3]), d = _mm256_unpackhi_epi64(r[2], r[3]);
    r[0] = _mm256_permute2x128_si256(a, c, 0x20), r[1] = _mm256_permute2x128_si256(b, d, 0x20);
    r[2] = _mm256_permute2x128_si256(a, c, 0x31), r[3] = _mm256_permute2x128_si256(b, d, 0x31);
}

INLINE void gather(size_t words, const uint64_t *const from[4], v *x)
{
    const v full = ALL(LIMB_MASK);
    for (size_t j = 0; j < words; j += 4) {
        v r[4];
        for (int lane = 0; lane < 4; lane++) r[lane] = _mm256_loadu_si256((const v *)(const void *)(from[lane] + j));
        transpose(r);
        for (int k = 0; k < 4; k++) x[2 * (j + k)] = AND(r[k], full), x[2 * (j + k) + 1] = SHIFT(r[k]);
    }
}

INLINE void scatter(size_t words, const v *x, uint64_t *const to[4])
{
    for (size_t j = 0; j < words; j += 4) {
        v r[4];
        for (int k = 0; k < 4; k++)
            r[k] = EITHER(x[2 * (j + k)], _mm256_slli_epi64(x[2 * (j + k) + 1], LIMB_BITS));
        transpose(r);
        for (int lane = 0; lane < 4; lane++) _mm256_storeu_si256((v *)(void *)(to[lane] + j), r[lane]);
    }
}

#include "squares.h"

#endif
