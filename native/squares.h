/* Arithmetic modulo N², some residues at a time, for odd N.

   A residue is a pair (a, b) that stands for a + b/R·N with R = 2**(52·limbs): a product needs a·a' and a·b' + b·a'
   alone, and reductions by N alone, which is 5/8 of the work of one number of double length. Montgomery's reduction
   divides by R, and its m says how much of N² that leaves out:

       a·a'        = a"·R - m·N
       a·b' + b·a' = t·R  modulo N          so (a + b/R·N)·(a' + b'/R·N) = (a" + (t - m)/R·N)·R  modulo N²

   Where neither b nor b' is there, t is nothing: a product of two such halves takes one reduction. Halves are lazily
   reduced: a below 4·N, b below R. With 2**8·N <= R, a product of such numbers has a below 2·N and t below 9·N, and b,
   which is t + R/2 + N at most, below R again (`less`). `squares_store` alone makes residues canonical.

   In memory a half is words of 52 bits. squares_ifma.c computes with them as they are, eight residues at a time;
   squares_avx2.c cuts each in two limbs of 26 bits, and takes four residues. Each defines what depends on that, and
   includes the rest, which is here:

       TARGET                                 the instructions that it uses
       SQUARES                                its name
       PER, LIMB_BITS                         limbs of a word, and their bits
       WIDTH, v                               residues at a time, and the type that holds a limb of each
       ADD, SUB, AND, SHIFT, SIGN, ALL, ZERO  arithmetic of `v`; SHIFT takes a limb's bits off, SIGN leaves the highest
       flags, DIFFERENT, EITHER, CHOOSE       a truth for each residue; CHOOSE takes its last argument where it holds
       gather, scatter                        words of rows of memory, to limbs and back
       reduce, add_product                    the two loops that all time goes into

   A lane of 64 bits takes sums of up to 2**12 products of 52 bits; there are at most 6·limbs + 4 of limbs of 52 bits,
   and half as many of 26, so that carries wait until the end. */

#include <string.h>

#define WORD_MASK ((1ULL << 52) - 1)

typedef struct {
    size_t limbs; /* of a half */
    size_t words; /* of a residue */
    v k0;         /* -1/N modulo 2**LIMB_BITS */
    v n[MOST];
    v large[MOST], small[MOST];    /* what `less` adds where m is from R/2 on, and below */
    const uint64_t *one, *r2, *r3; /* 1·R, R² and R³ modulo N², as pairs */
} modulus;

/* `count` words, the same in all lanes */
INLINE void spread_word(size_t count, const uint64_t *words, v *out)
{
    for (size_t j = 0; j < count; j++) {
        out[PER * j] = ALL(words[j] & LIMB_MASK);
        if (PER == 2) out[PER * j + 1] = ALL(words[j] >> LIMB_BITS);
    }
}

LANES static void open_context(context c, modulus *m)
{
    const uint64_t *words = c.words;
    m->limbs = PER * c.limbs;
    m->words = 2 * c.limbs;
    m->k0 = ALL(words[2] & LIMB_MASK);
    spread_word(c.limbs, words + 3, m->n);
    spread_word(c.limbs, words + 3 + c.limbs, m->large);
    spread_word(c.limbs, words + 3 + 2 * c.limbs, m->small);
    for (size_t j = 0; j < m->limbs; j++) {
        m->large[j] = ADD(m->large[j], ALL(LIMB_MASK));
        m->small[j] = ADD(m->small[j], ALL(j + 1 < m->limbs ? LIMB_MASK : LIMB_MASK >> 1));
    }
    m->one = words + 3 + 3 * c.limbs;
    m->r2 = m->one + m->words;
    m->r3 = m->r2 + m->words;
}

INLINE void carry(size_t limbs, const v *sum, v *out)
{
    const v full = ALL(LIMB_MASK);
    v over = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        const v t = ADD(sum[j], over);
        over = SHIFT(t);
        out[j] = AND(t, full);
    }
}

INLINE void clear(size_t limbs, v *sum)
{
    for (size_t j = 0; j < limbs; j++) sum[j] = ZERO;
}

/* out = sum - m modulo N, carried; out may be sum. It is sum + (R - 1 - m) + c with c = 1 - R modulo N, and where m is below
   R/2, that takes R's place in both. No limb borrows, and what comes out is below sum + R/2 + N. */
INLINE void less(const modulus *q, size_t limbs, const v *m, const v *sum, v *out)
{
    const flags high = DIFFERENT(AND(m[limbs - 1], ALL(LIMB_MASK - (LIMB_MASK >> 1))), ZERO);
    const v full = ALL(LIMB_MASK);
    v over = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        const v t = ADD(ADD(sum[j], over), SUB(CHOOSE(high, q->small[j], q->large[j]), m[j]));
        over = SHIFT(t);
        out[j] = AND(t, full);
    }
}

/* out = x/R modulo N, at most N; out may be x */
INLINE void divide(const modulus *q, size_t limbs, const v *x, v *m, v *out)
{
    v sum[MOST + 2];
    memcpy(sum, x, limbs * sizeof(v));
    sum[limbs] = sum[limbs + 1] = ZERO;
    reduce(limbs, 0, sum, NULL, NULL, NULL, NULL, q->n, q->k0, m);
    carry(limbs, sum, out);
}

/* How many products the upper half of a product takes: whether none, one or both factors have an upper half. */
enum { PAIR, HALF, WHOLE };

/* out = x·y; they may be one. y is a lower half alone where it is a HALF, and so is x in a PAIR of them: 4/5 and 2/5 of
   the work. */
INLINE void multiply_by(const modulus *q, size_t limbs, int kind, const v *x, const v *y, v *out)
{
    v sum[MOST + 2], m[MOST], low[MOST];
    clear(limbs + 2, sum);
    reduce(limbs, 1, sum, x, y, NULL, NULL, q->n, q->k0, m);
    carry(limbs, sum, low);
    clear(limbs + 2, sum);
    if (kind != PAIR) reduce(limbs, kind, sum, x + limbs, y, x, kind == WHOLE ? y + limbs : NULL, q->n, q->k0, NULL);
    less(q, limbs, m, sum, out + limbs);
    memcpy(out, low, limbs * sizeof(v));
}

/* out = x·x, with 2·a·b in place of a·b + b·a */
INLINE void square_by(const modulus *q, size_t limbs, const v *x, v *out)
{
    v sum[MOST + 2], m[MOST], low[MOST], twice[MOST];
    for (size_t j = 0; j < limbs; j++) sum[j] = ADD(x[j], x[j]);
    carry(limbs, sum, twice);
    clear(limbs + 2, sum);
    reduce(limbs, 1, sum, x, x, NULL, NULL, q->n, q->k0, m);
    carry(limbs, sum, low);
    clear(limbs + 2, sum);
    reduce(limbs, 1, sum, twice, x + limbs, NULL, NULL, q->n, q->k0, NULL);
    less(q, limbs, m, sum, out + limbs);
    memcpy(out, low, limbs * sizeof(v));
}

/* The lengths that keys of 2048, 3072 and 4096 bits and their primes have, with loops of known length; and any other. */
#define EACH_LENGTH(DO) DO(20) DO(32) DO(40) DO(60) DO(80)

#define MULTIPLY(NAME, KIND, LENGTH)                                                                         \
    LANES static __attribute__((noinline)) void NAME(const modulus *q, const v *x, const v *y, v *out)       \
    {                                                                                                        \
        multiply_by(q, PER *LENGTH, KIND, x, y, out);                                                        \
    }
#define DEFINE(LENGTH)                                                                                       \
    MULTIPLY(multiply_pair_##LENGTH, PAIR, LENGTH)                                                           \
    MULTIPLY(multiply_half_##LENGTH, HALF, LENGTH)                                                           \
    MULTIPLY(multiply_##LENGTH, WHOLE, LENGTH)                                                               \
    LANES static __attribute__((noinline)) void square_##LENGTH(const modulus *q, const v *x, v *out)        \
    {                                                                                                        \
        square_by(q, PER *LENGTH, x, out);                                                                   \
    }
EACH_LENGTH(DEFINE)

#define MULTIPLY_ALL(NAME, KIND, CASE)                                                                       \
    LANES static __attribute__((noinline)) void NAME(const modulus *q, const v *x, const v *y, v *out)       \
    {                                                                                                        \
        switch (q->limbs / PER) {                                                                            \
            EACH_LENGTH(CASE)                                                                                \
        default: multiply_by(q, q->limbs, KIND, x, y, out);                                                  \
        }                                                                                                    \
    }
#define PAIR_CASE(LENGTH) case LENGTH: multiply_pair_##LENGTH(q, x, y, out); return;
#define HALF_CASE(LENGTH) case LENGTH: multiply_half_##LENGTH(q, x, y, out); return;
#define WHOLE_CASE(LENGTH) case LENGTH: multiply_##LENGTH(q, x, y, out); return;
MULTIPLY_ALL(multiply_pair_all, PAIR, PAIR_CASE)
MULTIPLY_ALL(multiply_half_all, HALF, HALF_CASE)
MULTIPLY_ALL(multiply_all, WHOLE, WHOLE_CASE)

LANES static __attribute__((noinline)) void square_all(const modulus *q, const v *x, v *out)
{
    switch (q->limbs / PER) {
#define CASE(LENGTH) case LENGTH: square_##LENGTH(q, x, out); return;
        EACH_LENGTH(CASE)
#undef CASE
    default: square_by(q, q->limbs, x, out);
    }
}

/* Rows first, first + 1, ... of `rows`, the last one again where there are fewer. */
INLINE void gather_rows(size_t words, const uint64_t *rows, size_t first, size_t count, v *x)
{
    const uint64_t *from[WIDTH];
    for (size_t lane = 0; lane < WIDTH; lane++) from[lane] = rows + (first + lane < count ? first + lane : count - 1) * words;
    gather(words, from, x);
}

INLINE void scatter_rows(size_t words, const v *x, uint64_t *rows, size_t first, size_t count)
{
    uint64_t nowhere[2 * MAX_LIMBS], *to[WIDTH];
    for (size_t lane = 0; lane < WIDTH; lane++) to[lane] = first + lane < count ? rows + (first + lane) * words : nowhere;
    scatter(words, x, to);
}

INLINE void prefetch(size_t words, const uint64_t *row)
{
    for (size_t j = 0; j < words; j += 8) __builtin_prefetch(row + j, 0, 2);
}

/* 52 bits of a big-endian number of `width` bytes, from its bit 52·j on */
static inline uint64_t word_at(const uint8_t *bytes, size_t width, size_t j)
{
    const size_t start = 52 * j >> 3;
    uint64_t word = 0;
    if (start + 8 <= width) {
        memcpy(&word, bytes + width - start - 8, 8);
        word = __builtin_bswap64(word);
    } else {
        for (size_t i = start; i < width; i++) word |= (uint64_t)bytes[width - 1 - i] << 8 * (i - start);
    }
    return word >> (52 * j & 7) & WORD_MASK;
}

/* Residues first, first + 1, ... as words; lanes that are left over keep what they had in `rows`. */
LANES static void read_rows(size_t words, const uint8_t *bytes, size_t width, size_t first, size_t count, uint64_t *rows,
                            v *x)
{
    for (size_t lane = 0; lane < WIDTH && first + lane < count; lane++)
        for (size_t j = 0; j < words; j++) rows[lane * words + j] = word_at(bytes + (first + lane) * width, width, j);
    gather_rows(words, rows, 0, WIDTH, x);
}

LANES static void squares_load(context c, const uint8_t *bytes, size_t width, uint64_t *out, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs, words = q.words;
    v x[2 * MOST], pair[2 * MOST], r2[2 * MOST], r3[2 * MOST], sum[MOST + 2], m[MOST];
    uint64_t rows[16 * MAX_LIMBS];
    spread_word(words, q.r2, r2);
    spread_word(words, q.r3, r3);
    memset(rows, 0, sizeof rows);
    for (size_t i = 0; i < count; i += WIDTH) {
        read_rows(q.words, bytes, width, i, count, rows, x);
        /* low + high·R is low·R²/R + high·R³/R in Montgomery form */
        clear(limbs + 2, sum);
        reduce(limbs, 2, sum, x, r2, x + limbs, r3, q.n, q.k0, m);
        carry(limbs, sum, pair);
        clear(limbs + 2, sum);
        reduce(limbs, 2, sum, x, r2 + limbs, x + limbs, r3 + limbs, q.n, q.k0, NULL);
        less(&q, limbs, m, sum, pair + limbs);
        scatter_rows(words, pair, out, i, count);
    }
}

LANES static void squares_remainders(context c, const uint8_t *bytes, size_t width, uint64_t *out, uint64_t *more,
                                     size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs;
    v x[2 * MOST], m[MOST], low[MOST];
    uint64_t rows[16 * MAX_LIMBS];
    memset(rows, 0, sizeof rows);
    for (size_t i = 0; i < count; i += WIDTH) {
        read_rows(q.words, bytes, width, i, count, rows, x);
        divide(&q, limbs, x, m, low);
        for (size_t j = 0; j < limbs; j++) low[j] = ADD(low[j], x[limbs + j]);
        carry(limbs, low, low);
        scatter_rows(c.limbs, low, out, i, count);
        scatter_rows(c.limbs, m, more, i, count);
    }
}

LANES static void squares_multiply_halves(context c, const uint64_t *a, const uint64_t *b, uint64_t *out, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs;
    v x[MOST], y[MOST], sum[MOST + 2];
    for (size_t i = 0; i < count; i += WIDTH) {
        gather_rows(c.limbs, a, i, count, x);
        gather_rows(c.limbs, b, i, count, y);
        clear(limbs + 2, sum);
        reduce(limbs, 1, sum, x, y, NULL, NULL, q.n, q.k0, NULL);
        carry(limbs, sum, x);
        scatter_rows(c.limbs, x, out, i, count);
    }
}

/* x mod N, for x below 2·N */
INLINE void subtract_once(const modulus *q, size_t limbs, v *x)
{
    v less[MOST];
    const v full = ALL(LIMB_MASK);
    v borrow = ZERO;
    for (size_t j = 0; j < limbs; j++) {
        const v t = SUB(SUB(x[j], q->n[j]), borrow);
        borrow = SIGN(t);
        less[j] = AND(t, full);
    }
    const flags smaller = DIFFERENT(borrow, ZERO);
    for (size_t j = 0; j < limbs; j++) x[j] = CHOOSE(smaller, less[j], x[j]);
}

LANES static void squares_store(context c, const uint64_t *in, uint8_t *bytes, size_t width, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t limbs = q.limbs, words = q.words;
    v x[2 * MOST], sum[2 * MOST + 2], m[MOST], low[MOST], high[MOST];
    uint64_t rows[16 * MAX_LIMBS];
    uint8_t little[13 * MAX_LIMBS + 8];
    for (size_t i = 0; i < count; i += WIDTH) {
        gather_rows(words, in, i, count, x);
        /* out of Montgomery form: reductions of what there is, of b two. Halves up to N come out */
        divide(&q, limbs, x, m, low);
        divide(&q, limbs, x + limbs, NULL, high);
        less(&q, limbs, m, high, high);
        divide(&q, limbs, high, NULL, high);
        /* a = N is b + 1: subtract from a, and see whether that changed it */
        v before[MOST];
        memcpy(before, low, limbs * sizeof(v));
        subtract_once(&q, limbs, low);
        flags changed = DIFFERENT(ZERO, ZERO);
        for (size_t j = 0; j < limbs; j++) changed = EITHER(changed, DIFFERENT(before[j], low[j]));
        high[0] = CHOOSE(changed, high[0], ADD(high[0], ALL(1)));
        carry(limbs, high, high);
        subtract_once(&q, limbs, high);
        /* a + b·N */
        memcpy(sum, low, limbs * sizeof(v));
        for (size_t j = limbs; j < 2 * limbs + 2; j++) sum[j] = ZERO;
        for (size_t k = 0; k < limbs; k++) add_product(limbs, sum + k, high[k], q.n);
        carry(2 * limbs, sum, x);
        scatter_rows(words, x, rows, 0, WIDTH);
        for (size_t lane = 0; lane < WIDTH && i + lane < count; lane++) {
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

LANES static void squares_multiply(context c, const uint64_t *a, const uint64_t *b, const int64_t *index, uint64_t *out,
                            size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words;
    v x[2 * MOST], y[2 * MOST];
    for (size_t i = 0; i < count; i += WIDTH) {
        gather_rows(words, a, i, count, x);
        if (index) {
            const uint64_t *from[WIDTH];
            for (size_t lane = 0; lane < WIDTH; lane++) from[lane] = b + index[i + lane < count ? i + lane : i] * words;
            gather(words, from, y);
        } else {
            gather_rows(words, b, i, count, y);
        }
        for (size_t next = i + WIDTH; next < i + 2 * WIDTH && next < count; next++) {
            prefetch(words, a + next * words);
            prefetch(words, b + (index ? (size_t)index[next] : next) * words);
        }
        multiply_all(&q, x, y, x);
        scatter_rows(words, x, out, i, count);
    }
}

LANES static void squares_combine(context c, const uint64_t *values, size_t count, uint64_t *out)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words;
    v x[2 * MOST], y[2 * MOST];
    memcpy(out, q.one, words * sizeof(uint64_t));
    for (size_t done = 1, value = count; value-- > 0; done *= 2) {
        spread_word(words, values + value * words, y);
        for (size_t i = 0; i < done; i += WIDTH) {
            gather_rows(words, out, i, done, x);
            multiply_all(&q, x, y, x);
            scatter_rows(words, x, out + done * words, i, done);
        }
    }
}

LANES static void squares_square(context c, const uint64_t *a, size_t times, uint64_t *out, size_t count)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words;
    v x[2 * MOST];
    for (size_t i = 0; i < count; i += WIDTH) {
        gather_rows(words, a, i, count, x);
        for (size_t t = 0; t < times; t++) square_all(&q, x, x);
        scatter_rows(words, x, out, i, count);
    }
}

/* Values order[at], ... up to `stop` that are to be multiplied into one row. */
typedef struct {
    uint64_t *to;
    uint32_t at, stop;
} run;

#define PIECES 8 /* of a run that is longer than 1/LONG of the values */
#define LONG 32
#define LONGEST(rows) ((rows) / PIECES + 1 + PIECES) /* run that is left, in pieces or whole */
#define MANY 4     /* tables for each share, so that it takes whole ones */
#define PATIENCE 2 /* steps that lanes wait for others, so that they begin together */

/* Each lane takes a run, multiplies its values into its row, and takes the next; no row has two runs. Values are WHOLE,
   or lower halves: one at a time, or a PAIR of them. Rows leave the registers when one of them is done. */
LANES static void work_off(const modulus *q, const uint64_t *values, int kind, const uint32_t *order, const run *runs,
                           size_t count)
{
    const size_t words = q->words, length = kind == WHOLE ? words : words / 2, step = kind == PAIR ? 2 : 1;
    v x[2 * MOST], y[2 * MOST], z[MOST];
    uint64_t nowhere[2 * MAX_LIMBS] = {0}, *to[WIDTH];
    const uint64_t *from[WIDTH], *value[WIDTH], *other[WIDTH];
    run own[WIDTH];
    int filled = 0; /* whether x holds what is to be written */
    for (size_t lane = 0; lane < WIDTH; lane++) own[lane] = (run){nowhere, 0, 0};
    for (size_t next = 0;;) {
        int changes = 0, empty = 0;
        size_t left = 0;
        for (size_t lane = 0; lane < WIDTH; lane++)
            if (own[lane].stop - own[lane].at > left) left = own[lane].stop - own[lane].at;
        const int more = next < count && (!left || left > PATIENCE * step);
        for (size_t lane = 0; lane < WIDTH; lane++)
            changes |= own[lane].at == own[lane].stop && (more || own[lane].to != nowhere);
        if (changes || !filled) {
            for (size_t lane = 0; lane < WIDTH; lane++) to[lane] = own[lane].to;
            if (filled) scatter(words, x, to);
            int busy = 0;
            empty = 1;
            for (size_t lane = 0; lane < WIDTH; lane++) {
                run *r = &own[lane];
                if (r->at == r->stop) *r = more && next < count ? runs[next++] : (run){nowhere, 0, 0};
                const int idle = r->at == r->stop, blank = !idle && *r->to == EMPTY;
                busy |= !idle;
                empty &= idle || blank;
                from[lane] = blank ? q->one : r->to;
                if (blank) prefetch(words, r->to);
            }
            if (!busy) return;
            if (!empty) gather(words, from, x);
            filled = 1;
        }
        for (size_t lane = 0; lane < WIDTH; lane++) {
            run *r = &own[lane];
            value[lane] = other[lane] = nowhere;
            if (r->at == r->stop) continue;
            value[lane] = values + order[r->at] * length;
            if (kind == PAIR) other[lane] = values + order[r->at + 1] * length;
            r->at += (uint32_t)step;
            const run *then = r->at < r->stop ? r : next + lane < count ? &runs[next + lane] : NULL;
            if (!then) continue;
            if (then != r && *then->to != EMPTY) prefetch(words, then->to);
            for (size_t k = 0; k < step; k++) prefetch(length, values + order[then->at + k] * length);
        }
        gather(length, value, y);
        if (kind == PAIR) {
            gather(length, other, z);
            multiply_pair_all(q, y, z, y);
        }
        if (empty) {
            memcpy(x, y, (kind == HALF ? q->limbs : 2 * q->limbs) * sizeof(v));
            if (kind == HALF) clear(q->limbs, x + q->limbs);
        } else if (kind == HALF) {
            multiply_half_all(q, x, y, x);
        } else {
            multiply_all(q, x, y, x);
        }
    }
}

/* Longer runs first, so that lanes change together; of one length those with empty rows first. */
static void by_length(const run *runs, size_t count, run *sorted, uint32_t *places, size_t longest)
{
    memset(places, 0, (2 * longest + 3) * sizeof *places);
#define PLACE(r) (2 * (longest - ((r).stop - (r).at)) + (*(r).to != EMPTY))
    for (size_t i = 0; i < count; i++) places[PLACE(runs[i]) + 1]++;
    for (size_t i = 0; i < 2 * longest + 2; i++) places[i + 1] += places[i];
    for (size_t i = 0; i < count; i++) sorted[places[PLACE(runs[i])]++] = runs[i];
#undef PLACE
}

static size_t squares_buckets_memory(context c, size_t rows, size_t size, size_t shares)
{
    const size_t pieces = LONG * PIECES, most = (rows < size ? rows : size) + pieces;
    return pieces * 2 * c.limbs * sizeof(uint64_t) + (LONG + 3 * most) * sizeof(run) + shares * sizeof(size_t)
           + (pieces + size + 1 + rows + 2 * LONGEST(rows) + 3) * sizeof(uint32_t);
}

LANES static void squares_buckets(context c, const uint64_t *values, int halves, const int32_t *cells, size_t rows,
                                  uint64_t *tables, size_t count, size_t size, size_t share, size_t shares, void *memory)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words, most = rows / LONG, most_runs = (rows < size ? rows : size) + LONG * PIECES;
    uint64_t *parts = memory; /* what the second to last pieces of long runs come to */
    run *joins = (run *)(parts + LONG * PIECES * words), *runs = joins + LONG, *odd = runs + most_runs;
    run *sorted = odd + most_runs;
    size_t *loads = (size_t *)(sorted + most_runs); /* values by share */
    uint32_t *identity = (uint32_t *)(loads + shares), *ends = identity + LONG * PIECES, *order = ends + size + 1;
    uint32_t *places = order + rows;
    for (uint32_t i = 0; i < LONG * PIECES; i++) identity[i] = i;
    memset(loads, 0, shares * sizeof *loads);
    const int divided = count < MANY * shares;
    for (size_t t = 0; t < count; t++) {
        if (!divided && t % shares != share) continue;
        uint64_t *table = tables + t * size * words;
        /* rows by cell; afterwards those of `cell` end at ends[cell] */
        memset(ends, 0, (size + 1) * sizeof *ends);
        for (size_t i = 0; i < rows; i++) ends[cells[i * count + t] + 1]++;
        for (size_t cell = 0; cell < size; cell++) ends[cell + 1] += ends[cell];
        for (size_t i = 0; i < rows; i++) order[ends[cells[i * count + t]]++] = (uint32_t)i;

        size_t n = 0, pieces = 0, joined = 0, lone = 0, longest = 0;
        for (int longer = 1; longer >= 0; longer--)
            for (size_t cell = 0, start = 0; cell < size; start = ends[cell++]) {
                const size_t length = ends[cell] - start;
                if (!length || (length > most + PIECES) != longer) continue;
                size_t least = 0; /* whose share is least takes it */
                for (size_t s = 1; divided && s < shares; s++)
                    if (loads[s] < loads[least]) least = s;
                loads[least] += length;
                if (divided && least != share) continue;
                const size_t cut = longer ? PIECES : 1;
                for (size_t piece = 0; piece < cut; piece++) {
                    run r = {table + cell * words, (uint32_t)(start + length * piece / cut),
                             (uint32_t)(start + length * (piece + 1) / cut)};
                    if (piece) {
                        r.to = parts + pieces++ * words;
                        *r.to = EMPTY;
                    }
                    if (halves && (r.stop - r.at) % 2) {
                        r.stop--;
                        odd[lone++] = (run){r.to, r.stop, r.stop + 1};
                    }
                    if (r.stop - r.at > longest) longest = r.stop - r.at;
                    if (r.at < r.stop) runs[n++] = r;
                }
                if (longer) joins[joined++] = (run){table + cell * words, (uint32_t)(pieces - (PIECES - 1)), (uint32_t)pieces};
            }
        by_length(runs, n, sorted, places, longest);
        work_off(&q, values, halves ? PAIR : WHOLE, order, sorted, n);
        by_length(odd, lone, sorted, places, 1);
        work_off(&q, values, HALF, order, sorted, lone);
        work_off(&q, parts, WHOLE, identity, joins, joined);
    }
}

static size_t squares_power_memory(context c, unsigned window)
{
    return ((size_t)(WIDTH * PER) << window) * 2 * c.limbs * sizeof(uint64_t);
}

LANES static void squares_power(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window,
                         uint64_t *out, size_t count, void *memory)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words, entries = (size_t)1 << window;
    v x[2 * MOST], y[2 * MOST];
    uint64_t *table = memory; /* [entries][WIDTH][words] */
    for (size_t i = 0; i < count; i += WIDTH) {
        spread_word(words, q.one, y);
        gather_rows(words, a, i, count, x);
        for (size_t e = 0; e < entries; e++) {
            scatter_rows(words, y, table + WIDTH * e * words, 0, WIDTH);
            multiply_all(&q, y, x, y);
        }
        for (size_t place = 0; place < places; place++) {
            const uint64_t *from[WIDTH];
            for (size_t lane = 0; lane < WIDTH; lane++) {
                const size_t row = i + lane < count ? i + lane : count - 1;
                from[lane] = table + (WIDTH * (size_t)digits[row * places + place] + lane) * words;
            }
            if (place) {
                for (unsigned s = 0; s < window; s++) square_all(&q, y, y);
                gather(words, from, x);
                multiply_all(&q, y, x, y);
            } else {
                gather(words, from, y);
            }
        }
        if (!places) spread_word(words, q.one, y);
        scatter_rows(words, y, out, i, count);
    }
}

/* table[digit], of entries of `limbs` each, after having read all of them */
INLINE void pick(size_t limbs, const v *table, size_t entries, size_t digit, v *x)
{
    const v wanted = ALL(digit);
    for (size_t j = 0; j < limbs; j++) x[j] = table[j];
    for (size_t e = 1; e < entries; e++) {
        const flags others = DIFFERENT(wanted, ALL(e));
        for (size_t j = 0; j < limbs; j++) x[j] = CHOOSE(others, table[e * limbs + j], x[j]);
    }
}

LANES static void squares_power_secret(context c, const uint64_t *a, const uint8_t *digits, size_t places, unsigned window,
                                uint64_t *out, size_t count, void *memory)
{
    modulus q;
    open_context(c, &q);
    const size_t words = q.words, both = 2 * q.limbs, entries = (size_t)1 << window;
    v x[2 * MOST], y[2 * MOST], *table = memory; /* [entries][both] */
    for (size_t i = 0; i < count; i += WIDTH) {
        spread_word(words, q.one, table);
        gather_rows(words, a, i, count, x);
        for (size_t e = 1; e < entries; e++) multiply_all(&q, table + (e - 1) * both, x, table + e * both);
        spread_word(words, q.one, y);
        for (size_t place = 0; place < places; place++) {
            for (unsigned s = 0; place && s < window; s++) square_all(&q, y, y);
            pick(both, table, entries, digits[place], x);
            multiply_all(&q, y, x, y);
        }
        scatter_rows(words, y, out, i, count);
    }
}

const squares SQUARES = {
    squares_load,           squares_store,        squares_multiply,   squares_combine,         squares_square,
    squares_buckets_memory, squares_buckets,      squares_remainders, squares_multiply_halves, squares_power_memory,
    squares_power,          squares_power_secret,
};
