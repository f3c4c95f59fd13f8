/* Numbers side by side in the lanes of vector registers: of AVX-512, multiplied by IFMA, or of AVX2.

   Only functions marked LANES or INLINE use these instructions, those that a file's TARGET names, so the rest compiles
   for, and runs on, any x86-64; `lanes_available` says at run time which may be called. */

#ifndef FEDNB_LANES_H
#define FEDNB_LANES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define HAVE_LANES 1
#else
#define HAVE_LANES 0
#endif

#define LANES __attribute__((target(TARGET)))
#define INLINE static inline __attribute__((always_inline)) LANES

/* Kinds of instructions; the numbers are part of a context. */
enum { IFMA, AVX2, KINDS };

int lanes_available(int kind);

/* squares.h: residues modulo N², in Montgomery form. A residue is 2·limbs words; a context describes the modulus. */

#define MAX_LIMBS 160 /* keys of up to 8192 bits */
#define CONTEXT_WORDS(limbs) (3 + 9 * (size_t)(limbs))
#define EMPTY UINT64_MAX /* the first word of a row that holds nothing yet */

/* of the limbs in registers */
#define LIMB_MASK ((1ULL << LIMB_BITS) - 1)
#define MOST (PER * MAX_LIMBS)

typedef struct {
    size_t limbs; /* of 52 bits; a multiple of four, with room for eight bits above N */
    const uint64_t *words;
} context;

typedef struct {
    void (*load)(context c, const uint8_t *bytes, size_t width, uint64_t *out, size_t count);
    void (*store)(context c, const uint64_t *in, uint8_t *bytes, size_t width, size_t count);
    /* out[i] = a[i]·b[index[i]], or a[i]·b[i] without an index; out may be a */
    void (*multiply)(context c, const uint64_t *a, const uint64_t *b, const int64_t *index, uint64_t *out, size_t count);
    /* out[i] = the product of those values whose bit is set in i, the last value's being the lowest; 2**count of them */
    void (*combine)(context c, const uint64_t *values, size_t count, uint64_t *out);
    void (*square)(context c, const uint64_t *a, size_t times, uint64_t *out, size_t count);
    /* For each table t and row i: tables[t][cells[i][t]] *= values[i]. What is multiplied into an EMPTY row is put there.
       With `halves` a value is a lower half alone. It fills the cells, or of many tables the tables, of one
       share: 0 <= share < shares, and all of them can be filled at the same time. `memory` holds buckets_memory bytes, aligned to 64. */
    size_t (*buckets_memory)(context c, size_t rows, size_t size, size_t shares);
    void (*buckets)(context c, const uint64_t *values, int halves, const int32_t *cells, size_t rows, uint64_t *tables,
                    size_t count, size_t size, size_t share, size_t shares, void *memory);
    /* Of residues x: lower halves `out` and numbers `more`, such that x + more·N = out·R */
    void (*remainders)(context c, const uint8_t *bytes, size_t width, uint64_t *out, uint64_t *more, size_t count);
    /* out[i]·R = a[i]·b[i] modulo N, of halves, or numbers below R; out may be a */
    void (*multiply_halves)(context c, const uint64_t *a, const uint64_t *b, uint64_t *out, size_t count);
    /* Digits, highest first. `memory` holds power_memory bytes, aligned to 64. */
    size_t (*power_memory)(context c, unsigned window);
    void (*power)(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window, uint64_t *out,
                  size_t count, void *memory);
    /* One exponent for all, in a time and with an order of memory accesses that do not depend on it. */
    void (*power_secret)(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window,
                         uint64_t *out, size_t count, void *memory);
} squares;

extern const squares squares_ifma, squares_avx2;

/* curve25519.c: points are u-coordinates of 32 little-endian bytes */

void curve_multiply(const uint8_t *points, const uint8_t scalar[32], uint8_t *out, size_t count);
void curve_contains(const uint8_t *points, uint8_t *flags, size_t count);

#endif
