/* fednb.crypto._lanes: squares.h and curve25519.c over buffers. It checks every length and index, then leaves the GIL. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "lanes.h"

#define ROW_BYTES(c) (2 * (c).limbs * sizeof(uint64_t))

static int refuse(const char *what)
{
    PyErr_SetString(PyExc_ValueError, what);
    return 0;
}

static const char *const names[KINDS] = {"ifma", "avx2"};

#if HAVE_LANES

static const squares *const kinds[KINDS] = {&squares_ifma, &squares_avx2};

int lanes_available(int kind)
{
    __builtin_cpu_init();
    return kind == IFMA ? __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512ifma")
                        : kind == AVX2 && __builtin_cpu_supports("avx2");
}

#else

int lanes_available(int kind) { return (void)kind, 0; }

#endif

static PyObject *available(PyObject *self, PyObject *unused)
{
    (void)self, (void)unused;
    PyObject *found = PyList_New(0);
    for (int kind = 0; found && kind < KINDS; kind++) {
        PyObject *name = lanes_available(kind) ? PyUnicode_FromString(names[kind]) : NULL;
        if (name && PyList_Append(found, name)) Py_CLEAR(found);
        Py_XDECREF(name);
    }
    return found;
}

#if HAVE_LANES

static int open_buffer(const Py_buffer *buffer, context *c, const squares **with)
{
    const uint64_t *words = buffer->buf;
    if (buffer->len < 3 * (Py_ssize_t)sizeof(uint64_t) || (uintptr_t)words % sizeof(uint64_t)) return refuse("no context");
    if (words[0] >= KINDS) return refuse("no context");
    if (!lanes_available((int)words[0])) {
        PyErr_Format(PyExc_RuntimeError, "this processor has no %s", words[0] == IFMA ? "AVX-512 IFMA" : "AVX2");
        return 0;
    }
    *with = kinds[words[0]];
    c->limbs = words[1];
    c->words = words;
    if (c->limbs < 4 || c->limbs > MAX_LIMBS || c->limbs % 4
        || (size_t)buffer->len != CONTEXT_WORDS(c->limbs) * sizeof(uint64_t))
        return refuse("no context");
    return 1;
}

/* How many rows `buffer` holds, each of `bytes`. */
static int rows(const Py_buffer *buffer, size_t bytes, size_t alignment, size_t *count)
{
    if (bytes == 0 || (size_t)buffer->len % bytes) return refuse("a buffer is no whole number of rows");
    if ((uintptr_t)buffer->buf % alignment) return refuse("a buffer is not aligned");
    *count = (size_t)buffer->len / bytes;
    return 1;
}

static int residues(const Py_buffer *buffer, context c, size_t *count)
{
    return rows(buffer, ROW_BYTES(c), sizeof(uint64_t), count);
}

static int halves(const Py_buffer *buffer, context c, size_t *count)
{
    return rows(buffer, ROW_BYTES(c) / 2, sizeof(uint64_t), count);
}

static PyObject *done(Py_buffer *buffers, int count, int good)
{
    for (int i = 0; i < count; i++) PyBuffer_Release(&buffers[i]);
    if (!good) return NULL;
    Py_RETURN_NONE;
}

static PyObject *load(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    Py_ssize_t width;
    context c;
    const squares *with;
    size_t count, expected;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*nw*", &b[0], &b[1], &width, &b[2])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[2], c, &count)
               && (width > 0 && (size_t)width <= 13 * c.limbs ? 1 : refuse("the width does not fit the context"))
               && rows(&b[1], (size_t)width, 1, &expected)
               && (expected == count ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->load(c, b[1].buf, (size_t)width, b[2].buf, count);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 3, good);
}

static PyObject *store(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    Py_ssize_t width;
    context c;
    const squares *with;
    size_t count, expected;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*nw*", &b[0], &b[1], &width, &b[2])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[1], c, &count)
               && (width > 0 && (size_t)width <= 13 * c.limbs ? 1 : refuse("the width does not fit the context"))
               && rows(&b[2], (size_t)width, 1, &expected)
               && (expected == count ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->store(c, b[1].buf, b[2].buf, (size_t)width, count);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 3, good);
}

static int in_table(const Py_buffer *index, size_t count, size_t entries)
{
    const int64_t *values = index->buf;
    for (size_t i = 0; i < count; i++)
        if (values[i] < 0 || (size_t)values[i] >= entries) return refuse("an index is outside of the table");
    return 1;
}

static PyObject *multiply_rows(PyObject *args, int short_values)
{
    Py_buffer b[4];
    context c;
    const squares *with;
    size_t n, same, out;
    int (*const count)(const Py_buffer *, context, size_t *) = short_values ? halves : residues;
    if (!PyArg_ParseTuple(args, "y*y*y*w*", &b[0], &b[1], &b[2], &b[3])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && count(&b[1], c, &n) && count(&b[2], c, &same) && count(&b[3], c, &out)
               && (n == same && n == out ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        if (short_values)
            with->multiply_halves(c, b[1].buf, b[2].buf, b[3].buf, n);
        else
            with->multiply(c, b[1].buf, b[2].buf, NULL, b[3].buf, n);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 4, good);
}

static PyObject *multiply(PyObject *self, PyObject *args)
{
    (void)self;
    return multiply_rows(args, 0);
}

static PyObject *multiply_halves(PyObject *self, PyObject *args)
{
    (void)self;
    return multiply_rows(args, 1);
}

static PyObject *multiply_taken(PyObject *self, PyObject *args)
{
    Py_buffer b[5];
    context c;
    const squares *with;
    size_t n, entries, same, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*y*y*w*", &b[0], &b[1], &b[2], &b[3], &b[4])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[1], c, &n) && residues(&b[2], c, &entries)
               && rows(&b[3], sizeof(int64_t), sizeof(int64_t), &same) && residues(&b[4], c, &out)
               && (n == same && n == out ? 1 : refuse("buffers do not go together"))
               && in_table(&b[3], n, entries);
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->multiply(c, b[1].buf, b[2].buf, b[3].buf, b[4].buf, n);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 5, good);
}

static PyObject *combine(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    context c;
    const squares *with;
    size_t count, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*w*", &b[0], &b[1], &b[2])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[1], c, &count) && residues(&b[2], c, &out)
               && (count < 24 && out == (size_t)1 << count ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->combine(c, b[1].buf, count, b[2].buf);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 3, good);
}

static PyObject *square(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    Py_ssize_t times;
    context c;
    const squares *with;
    size_t n, out;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*nw*", &b[0], &b[1], &times, &b[2])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[1], c, &n) && residues(&b[2], c, &out)
               && (n == out && times >= 0 ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->square(c, b[1].buf, (size_t)times, b[2].buf, n);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 3, good);
}

static int in_tables(const Py_buffer *cells, size_t size)
{
    const int32_t *cell = cells->buf;
    for (size_t i = 0; i < (size_t)cells->len / sizeof *cell; i++)
        if (cell[i] < 0 || (size_t)cell[i] >= size) return refuse("a cell is outside of its table");
    return 1;
}

static PyObject *buckets(PyObject *self, PyObject *args)
{
    Py_buffer b[4];
    context c;
    const squares *with;
    int short_values;
    Py_ssize_t size, share, shares;
    size_t values, chosen, tables, count = 0;
    void *memory = NULL;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*py*nw*nn", &b[0], &b[1], &short_values, &b[2], &size, &b[3], &share, &shares))
        return NULL;
    int good = open_buffer(&b[0], &c, &with) && (short_values ? halves : residues)(&b[1], c, &values)
               && rows(&b[2], sizeof(int32_t), sizeof(int32_t), &chosen) && residues(&b[3], c, &tables)
               && (size > 0 && tables % (size_t)size == 0 && values < UINT32_MAX && size < UINT32_MAX && share >= 0
                           && share < shares && shares < UINT16_MAX
                       ? 1
                       : refuse("buffers do not go together"));
    if (good) {
        count = tables / (size_t)size;
        good = (chosen == values * count ? 1 : refuse("buffers do not go together")) && in_tables(&b[2], (size_t)size);
    }
    if (good && !(memory = PyMem_RawMalloc(with->buckets_memory(c, values, (size_t)size, (size_t)shares) + 64))) {
        PyErr_NoMemory();
        good = 0;
    }
    if (good) {
        void *aligned = (void *)(((uintptr_t)memory + 63) / 64 * 64);
        Py_BEGIN_ALLOW_THREADS;
        with->buckets(c, b[1].buf, short_values, b[2].buf, values, b[3].buf, count, (size_t)size,
                      (size_t)share, (size_t)shares, aligned);
        Py_END_ALLOW_THREADS;
    }
    PyMem_RawFree(memory);
    return done(b, 4, good);
}

static PyObject *remainders(PyObject *self, PyObject *args)
{
    Py_buffer b[4];
    Py_ssize_t width;
    context c;
    const squares *with;
    size_t count, more, expected;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*nw*w*", &b[0], &b[1], &width, &b[2], &b[3])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && halves(&b[2], c, &count) && halves(&b[3], c, &more)
               && (width > 0 && (size_t)width <= 13 * c.limbs ? 1 : refuse("the width does not fit the context"))
               && rows(&b[1], (size_t)width, 1, &expected)
               && (expected == count && more == count ? 1 : refuse("buffers do not go together"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        with->remainders(c, b[1].buf, (size_t)width, b[2].buf, b[3].buf, count);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 4, good);
}

/* power(context, a, digits, window, out): digits of `window` bits, highest first, a row for each of `a`, or one for all */
static PyObject *raise_to(PyObject *args, int secret)
{
    Py_buffer b[4];
    int window;
    context c;
    const squares *with;
    size_t n, out, digits = 0;
    void *memory = NULL;
    if (!PyArg_ParseTuple(args, "y*y*y*iw*", &b[0], &b[1], &b[2], &window, &b[3])) return NULL;
    int good = open_buffer(&b[0], &c, &with) && residues(&b[1], c, &n) && residues(&b[3], c, &out)
               && (n == out && window > 0 && window <= 8 ? 1 : refuse("buffers do not go together"))
               && (n == 0 || rows(&b[2], secret ? 1 : n, 1, &digits));
    if (good) {
        const uint8_t *digit = b[2].buf;
        for (Py_ssize_t i = 0; good && i < b[2].len; i++)
            if (digit[i] >> window) good = refuse("a digit is longer than the window");
    }
    if (good && !(memory = PyMem_RawMalloc(with->power_memory(c, (unsigned)window) + 64))) {
        PyErr_NoMemory();
        good = 0;
    }
    if (good) {
        void *aligned = (void *)(((uintptr_t)memory + 63) / 64 * 64);
        Py_BEGIN_ALLOW_THREADS;
        (secret ? with->power_secret : with->power)(c, b[1].buf, b[2].buf, digits, (unsigned)window, b[3].buf, n, aligned);
        Py_END_ALLOW_THREADS;
    }
    PyMem_RawFree(memory);
    return done(b, 4, good);
}

static PyObject *power(PyObject *self, PyObject *args)
{
    (void)self;
    return raise_to(args, 0);
}

static PyObject *power_secret(PyObject *self, PyObject *args)
{
    (void)self;
    return raise_to(args, 1);
}

static int same_count(const Py_buffer *points, size_t *count, const Py_buffer *out, size_t bytes)
{
    size_t other;
    if (!lanes_available(IFMA)) {
        PyErr_SetString(PyExc_RuntimeError, "this processor has no AVX-512 IFMA");
        return 0;
    }
    return rows(points, 32, 1, count) && rows(out, bytes, 1, &other)
           && (*count == other ? 1 : refuse("buffers do not go together"));
}

static PyObject *multiply_points(PyObject *self, PyObject *args)
{
    Py_buffer b[3];
    size_t count;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*y*w*", &b[0], &b[1], &b[2])) return NULL;
    int good = same_count(&b[0], &count, &b[2], 32) && (b[1].len == 32 ? 1 : refuse("a scalar has 32 bytes"));
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        curve_multiply(b[0].buf, b[1].buf, b[2].buf, count);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 3, good);
}

static PyObject *on_curve(PyObject *self, PyObject *args)
{
    Py_buffer b[2];
    size_t count;
    (void)self;
    if (!PyArg_ParseTuple(args, "y*w*", &b[0], &b[1])) return NULL;
    int good = same_count(&b[0], &count, &b[1], 1);
    if (good) {
        Py_BEGIN_ALLOW_THREADS;
        curve_contains(b[0].buf, b[1].buf, count);
        Py_END_ALLOW_THREADS;
    }
    return done(b, 2, good);
}

#endif

/* Raised with every change of what a function here takes or gives; fednb/crypto/lanes.py says which it was written for. */
#define VERSION 5

static PyObject *version(PyObject *self, PyObject *args)
{
    (void)self;
    (void)args;
    return PyLong_FromLong(VERSION);
}

static PyMethodDef methods[] = {
    {"version", version, METH_NOARGS, "Of the functions here, taken together."},
    {"available", available, METH_NOARGS, "Which kinds of instructions this processor and this build have."},
#if HAVE_LANES
    {"load", load, METH_VARARGS, "load(context, bytes, width, out)"},
    {"store", store, METH_VARARGS, "store(context, a, width, bytes)"},
    {"multiply", multiply, METH_VARARGS, "multiply(context, a, b, out)"},
    {"multiply_taken", multiply_taken, METH_VARARGS, "multiply_taken(context, a, table, index, out)"},
    {"combine", combine, METH_VARARGS, "combine(context, values, out)"},
    {"square", square, METH_VARARGS, "square(context, a, times, out)"},
    {"buckets", buckets, METH_VARARGS, "buckets(context, values, halves, cells, size, tables, share, shares)"},
    {"remainders", remainders, METH_VARARGS, "remainders(context, bytes, width, out, more)"},
    {"multiply_halves", multiply_halves, METH_VARARGS, "multiply_halves(context, a, b, out)"},
    {"power", power, METH_VARARGS, "power(context, a, digits, window, out)"},
    {"power_secret", power_secret, METH_VARARGS, "power_secret(context, a, digits, window, out)"},
    {"multiply_points", multiply_points, METH_VARARGS, "multiply_points(points, scalar, out)"},
    {"on_curve", on_curve, METH_VARARGS, "on_curve(points, flags)"},
#endif
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "fednb.crypto._lanes", "Many multiplications at a time.", 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__lanes(void) { return PyModuleDef_Init(&definition); }
