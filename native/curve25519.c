/* Curve25519 (Bernstein 2006) on eight points at a time: v² = u³ + 486662·u² + u modulo p = 2**255 - 19.

   Numbers are five limbs of 51 bits. Between operations a limb stays below 2**51 + 2**14, so that a sum of two needs
   one carry before IFMA, which reads 52 bits, may have it. All carries of an operation are done at once: a limb's
   excess goes one limb up, and that one's own excess was taken before. */

#include "lanes.h"

#include <string.h>

#if HAVE_LANES

#include <immintrin.h>

#define TARGET "avx512f,avx512ifma"
#define LIMB_BITS 51

typedef __m512i v;
typedef struct {
    v limb[5];
} field;

#define LOW(sum, x, y) _mm512_madd52lo_epu64(sum, x, y)
#define HIGH(sum, x, y) _mm512_madd52hi_epu64(sum, x, y)
#define ADD(x, y) _mm512_add_epi64(x, y)
#define SUB(x, y) _mm512_sub_epi64(x, y)
#define LEFT(x, bits) _mm512_slli_epi64(x, bits)
#define RIGHT(x, bits) _mm512_srli_epi64(x, bits)
#define AND(x, y) _mm512_and_si512(x, y)
#define OR(x, y) _mm512_or_si512(x, y)
#define ALL(x) _mm512_set1_epi64((long long)(x))
#define ZERO _mm512_setzero_si512()

/* what lies above 255 bits comes back below, 19 times */
INLINE v times_19(v x) { return ADD(ADD(LEFT(x, 4), LEFT(x, 1)), x); }

INLINE field carried(const v t[5])
{
    const v full = ALL(LIMB_MASK);
    field out;
    out.limb[0] = LOW(AND(t[0], full), RIGHT(t[4], 51), ALL(19)); /* an excess has few bits */
    for (int i = 1; i < 5; i++) out.limb[i] = ADD(AND(t[i], full), RIGHT(t[i - 1], 51));
    return out;
}

INLINE field constant(uint64_t small)
{
    field out = {{ALL(small), ZERO, ZERO, ZERO, ZERO}};
    return out;
}

INLINE field add(field a, field b)
{
    v t[5];
    for (int i = 0; i < 5; i++) t[i] = ADD(a.limb[i], b.limb[i]);
    return carried(t);
}

/* a - b + 4·p, no limb of which is negative */
INLINE field subtract(field a, field b)
{
    v t[5];
    t[0] = SUB(ADD(a.limb[0], ALL(4 * (LIMB_MASK - 18))), b.limb[0]);
    for (int i = 1; i < 5; i++) t[i] = SUB(ADD(a.limb[i], ALL(4 * LIMB_MASK)), b.limb[i]);
    return carried(t);
}

/* Σ low[k]·2**51k + Σ high[k]·2**(51k + 52) */
INLINE field folded(const v low[9], const v high[9])
{
    v t[10], out[5];
    t[0] = low[0];
    for (int k = 1; k < 9; k++) t[k] = ADD(low[k], LEFT(high[k - 1], 1));
    t[9] = LEFT(high[8], 1);
    for (int i = 0; i < 5; i++) out[i] = ADD(t[i], times_19(t[i + 5]));
    return carried(out);
}

INLINE field multiply(field a, field b)
{
    v low[9], high[9];
    for (int k = 0; k < 9; k++) low[k] = high[k] = ZERO;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
#pragma GCC unroll 5
        for (int j = 0; j < 5; j++) {
            low[i + j] = LOW(low[i + j], a.limb[i], b.limb[j]);
            high[i + j] = HIGH(high[i + j], a.limb[i], b.limb[j]);
        }
    return folded(low, high);
}

INLINE field square(field a)
{
    v low[9], high[9];
    for (int k = 0; k < 9; k++) low[k] = high[k] = ZERO;
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++)
#pragma GCC unroll 5
        for (int j = i + 1; j < 5; j++) {
            low[i + j] = LOW(low[i + j], a.limb[i], a.limb[j]);
            high[i + j] = HIGH(high[i + j], a.limb[i], a.limb[j]);
        }
    for (int k = 0; k < 9; k++) low[k] = LEFT(low[k], 1), high[k] = LEFT(high[k], 1);
#pragma GCC unroll 5
    for (int i = 0; i < 5; i++) {
        low[2 * i] = LOW(low[2 * i], a.limb[i], a.limb[i]);
        high[2 * i] = HIGH(high[2 * i], a.limb[i], a.limb[i]);
    }
    return folded(low, high);
}

INLINE field multiply_small(field a, uint64_t small)
{
    const v b = ALL(small);
    v t[5];
    for (int i = 0; i < 5; i++) t[i] = LOW(ZERO, a.limb[i], b);
    t[0] = LOW(t[0], LEFT(HIGH(ZERO, a.limb[4], b), 1), ALL(19));
    for (int i = 1; i < 5; i++) t[i] = ADD(t[i], LEFT(HIGH(ZERO, a.limb[i - 1], b), 1));
    return carried(t);
}

LANES static field square_often(field a, int times)
{
    for (int i = 0; i < times; i++) a = square(a);
    return a;
}

/* a**(2**250 - 1), and a**11 on the way */
LANES static field power_250(field a, field *eleventh)
{
    const field a2 = square(a);
    const field a9 = multiply(square_often(a2, 2), a);
    const field a11 = *eleventh = multiply(a9, a2);
    const field x5 = multiply(square(a11), a9); /* xk is a**(2**k - 1) */
    const field x10 = multiply(square_often(x5, 5), x5);
    const field x20 = multiply(square_often(x10, 10), x10);
    const field x40 = multiply(square_often(x20, 20), x20);
    const field x50 = multiply(square_often(x40, 10), x10);
    const field x100 = multiply(square_often(x50, 50), x50);
    const field x200 = multiply(square_often(x100, 100), x100);
    return multiply(square_often(x200, 50), x50);
}

/* a**(p - 2), which is 1/a, or 0 */
LANES static field inverse(field a)
{
    field a11;
    const field x250 = power_250(a, &a11);
    return multiply(square_often(x250, 5), a11);
}

/* the one representative below p */
LANES static field canonical(field a)
{
    const v full = ALL(LIMB_MASK);
    v over = ZERO;
    for (int i = 0; i < 5; i++) {
        const v t = ADD(a.limb[i], over);
        a.limb[i] = AND(t, full);
        over = RIGHT(t, 51);
    }
    a.limb[0] = ADD(a.limb[0], times_19(over)); /* now below 2**255 + 19 */
    over = RIGHT(ADD(a.limb[0], ALL(19)), 51);
    for (int i = 1; i < 5; i++) over = RIGHT(ADD(a.limb[i], over), 51); /* 1 from p on */
    over = times_19(over);
    for (int i = 0; i < 5; i++) {
        const v t = ADD(a.limb[i], over);
        a.limb[i] = AND(t, full);
        over = RIGHT(t, 51);
    }
    return a;
}

/* Eight points of which `count` are there; the highest bit is not part of u. */
LANES static field load(const uint8_t *bytes, size_t count)
{
    uint64_t word[4][8] = {{0}};
    const v full = ALL(LIMB_MASK);
    field out;
    for (size_t lane = 0; lane < count; lane++)
        for (int i = 0; i < 4; i++) memcpy(&word[i][lane], bytes + 32 * lane + 8 * i, 8);
    const v a = _mm512_loadu_si512(word[0]), b = _mm512_loadu_si512(word[1]);
    const v c = _mm512_loadu_si512(word[2]), d = _mm512_loadu_si512(word[3]);
    out.limb[0] = AND(a, full);
    out.limb[1] = AND(OR(RIGHT(a, 51), LEFT(b, 13)), full);
    out.limb[2] = AND(OR(RIGHT(b, 38), LEFT(c, 26)), full);
    out.limb[3] = AND(OR(RIGHT(c, 25), LEFT(d, 39)), full);
    out.limb[4] = AND(RIGHT(d, 12), full);
    return out;
}

LANES static void store(field a, uint8_t *bytes, size_t count)
{
    uint64_t word[4][8];
    a = canonical(a);
    _mm512_storeu_si512(word[0], OR(a.limb[0], LEFT(a.limb[1], 51)));
    _mm512_storeu_si512(word[1], OR(RIGHT(a.limb[1], 13), LEFT(a.limb[2], 38)));
    _mm512_storeu_si512(word[2], OR(RIGHT(a.limb[2], 26), LEFT(a.limb[3], 25)));
    _mm512_storeu_si512(word[3], OR(RIGHT(a.limb[3], 39), LEFT(a.limb[4], 12)));
    for (size_t lane = 0; lane < count; lane++)
        for (int i = 0; i < 4; i++) memcpy(bytes + 32 * lane + 8 * i, &word[i][lane], 8);
}

/* without a branch on the secret */
INLINE void swap_if(__mmask8 swap, field *a, field *b)
{
    for (int i = 0; i < 5; i++) {
        const v x = a->limb[i], y = b->limb[i];
        a->limb[i] = _mm512_mask_blend_epi64(swap, x, y);
        b->limb[i] = _mm512_mask_blend_epi64(swap, y, x);
    }
}

/* RFC 7748, section 5, with one scalar for all points */
LANES void curve_multiply(const uint8_t *points, const uint8_t scalar[32], uint8_t *out, size_t count)
{
    uint8_t clamped[32];
    memcpy(clamped, scalar, 32);
    clamped[0] &= 248, clamped[31] &= 127, clamped[31] |= 64;
    for (size_t first = 0; first < count; first += 8) {
        const size_t here = count - first < 8 ? count - first : 8;
        const field u = load(points + 32 * first, here);
        field x2 = constant(1), z2 = constant(0), x3 = u, z3 = constant(1);
        unsigned before = 0;
        for (int t = 254; t >= 0; t--) {
            const unsigned bit = clamped[t / 8] >> t % 8 & 1;
            const __mmask8 swap = (__mmask8)(0 - (before ^ bit));
            before = bit;
            swap_if(swap, &x2, &x3);
            swap_if(swap, &z2, &z3);
            const field a = add(x2, z2), b = subtract(x2, z2), c = add(x3, z3), d = subtract(x3, z3);
            const field aa = square(a), bb = square(b), da = multiply(d, a), cb = multiply(c, b);
            const field e = subtract(aa, bb);
            x3 = square(add(da, cb));
            z3 = multiply(u, square(subtract(da, cb)));
            x2 = multiply(aa, bb);
            z2 = multiply(e, add(bb, multiply_small(e, 121666)));
        }
        /* the last bit was zero: nothing is left swapped */
        store(multiply(x2, inverse(z2)), out + 32 * first, here);
    }
}

/* flags[i] = whether u³ + 486662·u² + u is a square: Euler's criterion, (p - 1)/2 = 2**254 - 10 */
LANES void curve_contains(const uint8_t *points, uint8_t *flags, size_t count)
{
    for (size_t first = 0; first < count; first += 8) {
        const size_t here = count - first < 8 ? count - first : 8;
        const field u = load(points + 32 * first, here);
        field a11;
        const field w = multiply(u, add(multiply(u, add(u, constant(486662))), constant(1)));
        const field w2 = square(w), w6 = multiply(square(w2), w2);
        const field symbol = canonical(multiply(square_often(power_250(w, &a11), 4), w6));
        v rest = ZERO;
        for (int i = 1; i < 5; i++) rest = OR(rest, symbol.limb[i]);
        const __mmask8 square_or_zero = _mm512_cmple_epu64_mask(symbol.limb[0], ALL(1)) & ~_mm512_test_epi64_mask(rest, rest);
        for (size_t lane = 0; lane < here; lane++) flags[first + lane] = square_or_zero >> lane & 1;
    }
}

#endif
