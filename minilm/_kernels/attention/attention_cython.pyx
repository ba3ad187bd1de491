# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, initializedcheck=False
"""The loops of attention, for Cython: blocks of 64 queries against blocks of 64 keys, with an online softmax.

The mathematics and the names are those of attention.py.  A block of scores is kept transposed, A[i, j] for key s0 + i
and query t0 + j, so that the softmax of 64 queries runs along vectors and only q (and do) is ever transposed.  Under
``causal`` the columns below ``first`` of a row of the block are hidden; they are neither computed nor read.  A row of
``pieces`` is t0, t1, s0, s1, offset, as layout.pieces makes it: blocks never reach beyond the keys that a piece sees.
A single query, which is what decoding asks for, has a loop of its own over the rows of k and v.

The rows of a head lie far apart in memory.  So its keys and values are copied once, one after the other; what several
blocks add to is summed beside them and moved at the end; and while the processor works on a piece, the same piece of
the next head is asked for.  Each thread takes heads that follow each other: rows of neighbouring heads share lines of
the cache, which two cores would take from one another, and the next product reads the rows that a thread has made.
"""

from cython cimport floating
from cython.parallel cimport prange
from libc.math cimport INFINITY, log
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset

from ..arrays cimport Grid, grid, reads, writes
from .attention_tiles cimport (
    BLOCK, ROWS, STEP, Place, ahead, also_ask, ask, at, beside, clear, copy_rows, dot, dots, draw, end_key, exp,
    far_away, fence, first_column, first_key, hide, move, place, product, slopes, softmax, soon, threads_for, transpose
)

QUERIES = BLOCK  # of one piece of the forward

cdef struct Heads:  # what both passes read
    Grid q, k, v, bias
    Py_ssize_t H, T, S, D, Dv  # as in attention.py
    Py_ssize_t Dp, Dvp  # D and Dv, filled up to whole vectors: the length of a row that was copied
    Py_ssize_t n, longest  # pieces, and keys of one
    const int64_t *pieces
    double scale, kept
    bint causal
    Py_ssize_t window
    uint32_t threshold
    uint64_t seed

cdef struct Space:  # of one thread
    void *memory
    bint failed, copied
    Py_ssize_t head, first, end  # whose keys and values were copied, and which


cdef Heads _heads(q, k, v, bias, const int64_t[:, ::1] pieces, double scale, bint causal, Py_ssize_t window,
                  uint32_t threshold, double kept, uint64_t seed) except *:
    cdef Heads x
    cdef Py_ssize_t i
    x.q, x.k, x.v, x.bias = grid(q, False), grid(k, False), grid(v, False), grid(bias, False)
    if not x.q.kind == x.k.kind == x.v.kind == x.bias.kind:
        raise TypeError(f"attention: q, k, v, bias of one dtype; got {q.dtype}, {k.dtype}, {v.dtype}, {bias.dtype}")
    x.H, x.T, x.S, x.D, x.Dv = x.q.shape[1], x.q.shape[2], x.k.shape[2], x.q.shape[3], x.v.shape[3]
    x.Dp, x.Dvp = (x.D + STEP - 1) // STEP * STEP, (x.Dv + STEP - 1) // STEP * STEP
    x.n, x.longest = pieces.shape[0], 0
    x.pieces = &pieces[0, 0] if x.n else NULL
    for i in range(x.n):
        x.longest = max(x.longest, pieces[i, 3] - pieces[i, 2])
    x.scale, x.causal, x.window, x.threshold, x.kept, x.seed = scale, causal, window, threshold, kept, seed
    return x


cdef floating *_scratch(Space *mine, Py_ssize_t size, const floating *of_type) noexcept nogil:
    """Memory that starts with a line of the cache; it lasts as long as the thread's loop."""
    if mine.memory == NULL:
        mine.memory = malloc((size + STEP) * sizeof(floating))
    mine.failed = mine.memory == NULL
    return <floating *> ((<size_t> mine.memory + 63) // 64 * 64)


def forward(q, k, v, bias, pieces, double scale, bint causal, Py_ssize_t window, uint32_t threshold, double kept,
            uint64_t seed, o, lse):
    cdef Heads x = _heads(q, k, v, bias, pieces, scale, causal, window, threshold, kept, seed)
    cdef Grid out = grid(o, True)
    cdef Py_ssize_t heads = x.q.shape[0] * x.H
    cdef char *L = writes(lse, heads * x.T, x.q.unit)
    cdef int failed
    with nogil:
        if x.q.kind == b"f":
            failed = _forward(&x, heads * x.n, &out, <float *> L)
        else:
            failed = _forward(&x, heads * x.n, &out, <double *> L)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef int _forward(const Heads *x, Py_ssize_t work, const Grid *o, floating *lse) noexcept nogil:
    cdef int failed = 0, n, threads = threads_for(work, min(x.T, 64) * x.S * (x.D + x.Dv))
    cdef bint stream = far_away(o.at, x.Dv * x.q.unit, work // x.n * x.T) if work else False
    if threads == 1:
        return _forward_share(x, 0, work, stream, o, lse)
    for n in prange(threads, schedule="static", num_threads=threads):
        failed += _forward_share(x, work * n // threads, work * (n + 1) // threads, stream, o, lse)
    return failed


cdef int _forward_share(const Heads *x, Py_ssize_t begin, Py_ssize_t end, bint stream, const Grid *o,
                        floating *lse) noexcept nogil:
    cdef Py_ssize_t w
    cdef int failed = 0
    cdef Space mine
    memset(&mine, 0, sizeof(Space))
    for w in range(begin, end):
        failed += _forward_piece(x, w // x.n, x.pieces + 5 * (w % x.n), stream, o, lse + w // x.n * x.T, &mine)
    free(mine.memory)
    fence()
    return failed


cdef int _forward_piece(const Heads *x, Py_ssize_t head, const int64_t *piece, bint stream, const Grid *o,
                        floating *lse, Space *mine) noexcept nogil:
    if piece[1] - piece[0] == 1 and not x.threshold:
        _forward_query(x, head // x.H, head % x.H, piece, o, lse)
    elif piece[1] > piece[0]:
        _forward_block(x, head // x.H, head % x.H, piece, stream, o, lse, mine)
        return mine.failed
    return 0


cdef void _forward_query(const Heads *x, Py_ssize_t b, Py_ssize_t h, const int64_t *piece, const Grid *o,
                         floating *lse) noexcept nogil:
    """One query, without dropout: every key between the first and the last that it sees counts, and no other."""
    cdef Py_ssize_t t = piece[0], D = x.D, Dv = x.Dv, g = h // (x.H // x.k.shape[1]), unit = sizeof(floating)
    cdef Py_ssize_t i, d, s0, m, end = end_key(piece, t + 1, x.causal), k_row = x.k.strides[2] // unit
    cdef floating A[64]  # BLOCK
    cdef const floating *query = <floating *> at(&x.q, b, h, t)
    cdef const floating *keys
    cdef floating top = -INFINITY, base, shrink
    cdef double total = 0
    cdef floating *row = <floating *> at(o, b, h, t)
    for d in range(Dv):
        row[d] = 0
    for s0 in range(first_key(piece, t, x.window), end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        keys = <floating *> at(&x.k, b, g, s0)
        if x.v.strides[2] == Dv * unit:
            soon(at(&x.v, b, g, s0), m * Dv * unit)
        dots(m, D, keys, k_row, query, <floating> x.scale, A)
        if x.bias.shape[0]:
            for i in range(m):
                A[i] += (<floating *> at(&x.bias, b, h, t))[s0 + i]
        shrink = top
        for i in range(m):
            top = A[i] if A[i] > top else top
        base = 0 if top == -INFINITY else top
        shrink = exp(shrink - base)
        for i in range(m):
            A[i] = exp(A[i] - base)
        total *= shrink
        for i in range(m):
            total += A[i]
        for d in range(Dv):
            row[d] *= shrink
        if s0 + 64 < end and k_row == D:
            soon(at(&x.k, b, g, s0 + 64), min(<Py_ssize_t> 64, end - s0 - 64) * D * unit)
        product(1, Dv, m, A, 1, 1, <floating *> at(&x.v, b, g, s0), x.v.strides[2] // unit, row, Dv, True)
    if total == 0:  # saw no key; lse = inf makes its P zero in the backward
        lse[t] = INFINITY
        return
    lse[t] = <floating> (top + log(total))
    base = <floating> (1 / total)
    for d in range(Dv):
        row[d] *= base


cdef void _forward_block(const Heads *x, Py_ssize_t b, Py_ssize_t h, const int64_t *piece, bint stream, const Grid *o,
                         floating *lse, Space *mine) noexcept nogil:
    cdef Py_ssize_t D = x.D, Dv = x.Dv, Dp = x.Dp, Dvp = x.Dvp, t0 = piece[0], n = piece[1] - t0, offset = piece[4]
    cdef Py_ssize_t g = h // (x.H // x.k.shape[1]), width = (n + STEP - 1) // STEP * STEP
    cdef Py_ssize_t begin = first_key(piece, t0, x.window), end = end_key(piece, t0 + n, x.causal)
    cdef Py_ssize_t i, j, d, s0, m, diagonal, visible, head = b * x.H + h
    cdef floating *qT = _scratch(mine, BLOCK * (Dp + Dvp + 2 * BLOCK + 6) + x.longest * (Dp + Dvp), lse)  # times scale
    cdef floating *A = qT + Dp * BLOCK  # (BLOCK, BLOCK)
    cdef floating *keep = A + BLOCK * BLOCK  # (BLOCK + 4, BLOCK)
    cdef floating *top = keep + (BLOCK + 4) * BLOCK
    cdef floating *shrink = top + BLOCK
    cdef Place sum = beside(shrink + BLOCK, Dvp, t0), k = place(&x.k, b, g), v = place(&x.v, b, g)
    cdef Place out = place(o, b, h)
    cdef double total[BLOCK]  # a double: an error of the sum would be one of δ, and every row of dA would add up to it
    cdef floating *row
    cdef floating *kept_row
    cdef ahead next
    if mine.failed:
        return
    next.arrays, next.left = 0, 0
    if n == BLOCK and piece[3] - piece[2] > BLOCK:  # others read keys and values once, or nearly so
        _copy(x, b, g, piece[2], end, shrink + BLOCK + BLOCK * Dvp, mine, &k, &v)
        _look_ahead(x, head + 1, piece, t0, n, 16 * ((end - begin + 63) // 64), &next)
    else:
        sum = out
    transpose(<floating *> at(&x.q, b, h, t0), n, D, x.q.strides[2] // x.q.unit, <floating> x.scale, qT)
    for j in range(BLOCK):
        top[j] = -INFINITY
        total[j] = 0
    if begin >= end:
        clear(sum, Dv, t0, t0 + n, lse)
    for s0 in range(begin, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        diagonal = s0 - offset - t0 if x.causal else -BLOCK
        _scores(x, b, h, t0, n, s0, m, offset, k, qT, A, &next)
        softmax(m, width, diagonal, A, top, shrink, total)
        if x.threshold:
            draw(x.seed, x.threshold, <floating> x.kept, head, t0, s0, m, width, diagonal, keep)
            for i in range(m):
                row = A + i * BLOCK
                kept_row = keep + (s0 % 4 + i) * BLOCK
                for j in range(first_column(i, diagonal), width):
                    row[j] *= kept_row[j]
        for j in range(0, n, 8):  # ROWS
            ask(&next)
            if s0 > begin:
                for i in range(j, min(j + ROWS, n)):
                    row = <floating *> sum.at + (t0 + i) * sum.row
                    for d in range(Dv):
                        row[d] *= shrink[i]
            visible = max(min(m, t0 + min(j + ROWS, n) + offset - s0), 0) if x.causal else m
            product(min(<Py_ssize_t> ROWS, n - j), Dv, visible, A + j, 1, BLOCK, <floating *> v.at + s0 * v.row, v.row,
                    <floating *> sum.at + (t0 + j) * sum.row, sum.row, s0 > begin)
    for j in range(n):
        lse[t0 + j] = <floating> (top[j] + log(total[j])) if total[j] else INFINITY  # no key: P is 0 in the backward
        top[j] = <floating> (1 / total[j]) if total[j] else 0
    copy_rows(n, Dv, <floating *> sum.at + t0 * sum.row, sum.row, top, <floating *> out.at + t0 * out.row, out.row,
              stream and sum.at != out.at)


cdef void _copy(const Heads *x, Py_ssize_t b, Py_ssize_t g, Py_ssize_t first, Py_ssize_t end, floating *to, Space *mine,
                Place *k, Place *v) noexcept nogil:
    """Keys and values from ``first`` to ``end``, but for those that were copied for the last piece."""
    cdef Py_ssize_t head = b * x.k.shape[1] + g, s = first
    cdef Place near_k = beside(to, x.Dp, first), near_v = beside(to + x.longest * x.Dp, x.Dvp, first)
    if mine.copied and mine.head == head and mine.first == first:
        s = mine.end
    if s < end:
        move(k[0], near_k, x.D, s, end, False, to)
        move(v[0], near_v, x.Dv, s, end, False, to)
    mine.copied, mine.head, mine.first, mine.end = True, head, first, max(s, end)
    k[0], v[0] = near_k, near_v


cdef void _look_ahead(const Heads *x, Py_ssize_t head, const int64_t *piece, Py_ssize_t t0, Py_ssize_t n,
                      Py_ssize_t times, ahead *next) noexcept nogil:
    """Ask for the same n queries of the next head, and as many of its keys and values, in so many ``times``."""
    cdef Py_ssize_t b = head // x.H, h = head % x.H, g = h // (x.H // x.k.shape[1])
    cdef Py_ssize_t s = max(piece[2], min(t0 + piece[4], piece[3] - n))
    if b == x.q.shape[0] or times == 0:
        return
    also_ask(next, &x.q, b, h, t0)
    also_ask(next, &x.k, b, g, s)
    also_ask(next, &x.v, b, g, s)
    next.left, next.each = n, (n + times - 1) // times


cdef struct Slopes:  # what the backward has more
    Grid o, do_, dq, dk, dv, dA
    bint stream


def backward(do, q, k, v, bias, o, lse, pieces, double scale, bint causal, Py_ssize_t window, uint32_t threshold,
             double kept, uint64_t seed, dq, dk, dv, dA):
    cdef Heads x = _heads(q, k, v, bias, pieces, scale, causal, window, threshold, kept, seed)
    cdef Slopes y
    cdef Py_ssize_t rows = x.q.shape[0] * x.H * x.T, work = x.q.shape[0] * x.k.shape[1] * x.n
    cdef char *L = reads(lse, rows, x.q.unit)
    cdef int failed
    y.o, y.do_, y.dA = grid(o, False), grid(do, False), grid(dA, True)
    y.dq, y.dk, y.dv = grid(dq, True), grid(dk, True), grid(dv, True)
    y.stream = x.D == x.Dv and far_away(y.dq.at, y.dq.shape[3] * y.dq.unit, 3 * rows) and not (
        (<size_t> y.dk.at | <size_t> y.dv.at) % 64)
    if y.do_.kind != x.q.kind:
        raise TypeError(f"attention: do and q of one dtype; got {do.dtype} and {q.dtype}")
    with nogil:
        if x.q.kind == b"f":
            failed = _backward(&x, &y, work, <float *> L)
        else:
            failed = _backward(&x, &y, work, <double *> L)
    if failed:
        raise MemoryError("attention: no memory for a block of scores")


cdef int _backward(const Heads *x, const Slopes *y, Py_ssize_t work, const floating *lse) noexcept nogil:
    cdef int failed = 0, n, threads = threads_for(work, x.T * x.S * (x.D + x.Dv))
    if threads == 1:
        return _backward_share(x, y, 0, work, lse)
    for n in prange(threads, schedule="static", num_threads=threads):
        failed += _backward_share(x, y, work * n // threads, work * (n + 1) // threads, lse)
    return failed


cdef int _backward_share(const Heads *x, const Slopes *y, Py_ssize_t begin, Py_ssize_t end,
                         const floating *lse) noexcept nogil:
    cdef Py_ssize_t w
    cdef int failed = 0
    cdef Space mine
    memset(&mine, 0, sizeof(Space))
    for w in range(begin, end):
        failed += _backward_piece(x, y, w // x.n, x.pieces + 5 * (w % x.n), lse, &mine)
    free(mine.memory)
    fence()
    return failed


cdef int _backward_piece(const Heads *x, const Slopes *y, Py_ssize_t pair, const int64_t *piece, const floating *lse,
                         Space *mine) noexcept nogil:
    """All queries of a sequence, in the heads that share its keys and values."""
    cdef Py_ssize_t h, t0, b = pair // x.k.shape[1], g = pair % x.k.shape[1], shared = x.H // x.k.shape[1]
    cdef Py_ssize_t s = piece[2], end = piece[3], size = BLOCK * (3 * x.Dp + 2 * x.Dvp + 3 * BLOCK + 6)
    cdef Place k = place(&x.k, b, g), v = place(&x.v, b, g), dk = place(&y.dk, b, g), dv = place(&y.dv, b, g)
    cdef Place sum_k = dk, sum_v = dv
    cdef bint once = (piece[1] - piece[0]) * shared <= BLOCK  # one block: nothing is read, or added to, a second time
    cdef floating *scratch
    cdef floating *more
    scratch = _scratch(mine, size + 2 * x.longest * (x.Dp + x.Dvp), lse)
    if mine.failed:
        return 1
    if not once:
        _copy(x, b, g, s, end, scratch + size, mine, &k, &v)
        more = scratch + size + x.longest * (x.Dp + x.Dvp)
        sum_k, sum_v = beside(more, x.Dp, s), beside(more + x.longest * x.Dp, x.Dvp, s)
    clear(sum_k, y.dk.shape[3], s, end, lse)
    clear(sum_v, y.dv.shape[3], s, end, lse)
    for h in range(g * shared, (g + 1) * shared):
        for t0 in range(piece[0], piece[1], 64):  # BLOCK
            _backward_block(x, y, b, h, t0, piece, once, lse + (b * x.H + h) * x.T, k, v, sum_k, sum_v, scratch)
    if not once:
        move(sum_k, dk, y.dk.shape[3], s, end, y.stream, lse)
        move(sum_v, dv, y.dv.shape[3], s, end, y.stream, lse)
    return 0


cdef void _backward_block(const Heads *x, const Slopes *y, Py_ssize_t b, Py_ssize_t h, Py_ssize_t t0,
                          const int64_t *piece, bint once, const floating *lse, Place k, Place v, Place dk, Place dv,
                          floating *scratch) noexcept nogil:
    cdef Py_ssize_t D = x.D, Dv = x.Dv, Dp = x.Dp, Dvp = x.Dvp, n = min(<Py_ssize_t> BLOCK, piece[1] - t0)
    cdef Py_ssize_t begin = first_key(piece, t0, x.window), end = end_key(piece, t0 + n, x.causal), offset = piece[4]
    cdef Py_ssize_t width = (n + STEP - 1) // STEP * STEP, head = b * x.H + h
    cdef Py_ssize_t i, j, s0, m, first, diagonal, visible, seen, rows
    cdef floating *qT = scratch  # (D, BLOCK), times scale
    cdef floating *doT = qT + Dp * BLOCK  # (Dv, BLOCK)
    cdef floating *P = doT + Dvp * BLOCK  # (BLOCK, BLOCK), then R
    cdef floating *dR = P + BLOCK * BLOCK  # then dA c
    cdef floating *keep = dR + BLOCK * BLOCK
    cdef floating *delta = keep + (BLOCK + 4) * BLOCK
    cdef floating *L = delta + BLOCK
    cdef floating *more = L + BLOCK
    cdef Place q = place(&x.q, b, h), do = place(&y.do_, b, h), dq = place(&y.dq, b, h), sum_q = dq, near
    cdef floating *row
    cdef floating *grad
    cdef floating c = <floating> x.scale
    cdef ahead next
    next.arrays, next.left = 0, 0
    if not once:
        _look_ahead(x, head + 1, piece, t0, n, 32 * ((end - begin + 63) // 64), &next)
        if next.left:
            also_ask(&next, &y.o, (head + 1) // x.H, (head + 1) % x.H, t0)
            also_ask(&next, &y.do_, (head + 1) // x.H, (head + 1) % x.H, t0)
        near = beside(more, Dp, t0)
        move(q, near, D, t0, t0 + n, False, lse)
        q, near = near, beside(more + BLOCK * Dp, Dvp, t0)
        move(do, near, Dv, t0, t0 + n, False, lse)
        do, sum_q = near, beside(more + BLOCK * (Dp + Dvp), Dp, t0)
    transpose(<floating *> q.at + t0 * q.row, n, D, q.row, c, qT)
    transpose(<floating *> do.at + t0 * do.row, n, Dv, do.row, 1, doT)
    for j in range(BLOCK):
        delta[j] = dot(Dv, <floating *> do.at + (t0 + j) * do.row, <floating *> at(&y.o, b, h, t0 + j)) if j < n else 0
        L[j] = lse[t0 + j] if j < n else INFINITY
    if begin >= end:
        clear(sum_q, y.dq.shape[3], t0, t0 + n, lse)
    for s0 in range(begin, end, 64):  # BLOCK
        m = min(<Py_ssize_t> BLOCK, end - s0)
        diagonal = s0 - offset - t0 if x.causal else -BLOCK
        _scores(x, b, h, t0, n, s0, m, offset, k, qT, P, &next)
        for i in range(0, m, 8):  # ROWS
            ask(&next)
            first = first_column(i, diagonal)
            if first < width:
                product(min(<Py_ssize_t> ROWS, m - i), width - first, Dv, <floating *> v.at + (s0 + i) * v.row,
                        v.row, 1, doT + first, BLOCK, dR + i * BLOCK + first, BLOCK, False)
        if x.threshold:
            draw(x.seed, x.threshold, <floating> x.kept, head, t0, s0, m, width, diagonal, keep)
        for i in range(m):
            row = P + i * BLOCK
            grad = dR + i * BLOCK
            first = first_column(i, diagonal)
            slopes(first, width, L, delta, keep + (s0 % 4 + i) * BLOCK if x.threshold else NULL,
                   1 if y.dA.shape[3] else c, row, grad)
            if y.dA.shape[3]:
                for j in range(first, n):
                    (<floating *> at(&y.dA, b, h, t0 + j))[s0 + i] = grad[j]
                for j in range(first, width):
                    grad[j] *= c
        for i in range(0, m, 8):  # ROWS
            ask(&next)
            rows = min(<Py_ssize_t> ROWS, m - i)
            seen = max(s0 + i - offset - t0, 0) if x.causal else 0  # the first query that sees one of these keys
            if seen < n:
                if y.dv.shape[3]:
                    product(rows, Dv, n - seen, P + i * BLOCK + seen, BLOCK, 1,
                            <floating *> do.at + (t0 + seen) * do.row, do.row, <floating *> dv.at + (s0 + i) * dv.row,
                            dv.row, True)
                if y.dk.shape[3]:
                    product(rows, D, n - seen, dR + i * BLOCK + seen, BLOCK, 1,
                            <floating *> q.at + (t0 + seen) * q.row, q.row, <floating *> dk.at + (s0 + i) * dk.row,
                            dk.row, True)
        for j in range(0, n, 8):  # ROWS
            ask(&next)
            visible = max(min(m, t0 + min(j + ROWS, n) + offset - s0), 0) if x.causal else m
            if y.dq.shape[3]:
                product(min(<Py_ssize_t> ROWS, n - j), D, visible, dR + j, 1, BLOCK, <floating *> k.at + s0 * k.row,
                        k.row, <floating *> sum_q.at + (t0 + j) * sum_q.row, sum_q.row, s0 > begin)
    if not once:
        move(sum_q, dq, y.dq.shape[3], t0, t0 + n, y.stream, lse)


cdef void _scores(const Heads *x, Py_ssize_t b, Py_ssize_t h, Py_ssize_t t0, Py_ssize_t n, Py_ssize_t s0, Py_ssize_t m,
                  Py_ssize_t offset, Place k, const floating *qT, floating *A, ahead *next) noexcept nogil:
    """A[i, j] = c ⟨k_i, q_j⟩ + bias, or -inf where hidden, from column ``first`` of each row on."""
    cdef Py_ssize_t i, j, first, width = (n + STEP - 1) // STEP * STEP
    cdef Py_ssize_t seen, diagonal = s0 - offset - t0 if x.causal else -BLOCK
    cdef floating extra
    for i in range(0, m, 8):  # ROWS
        ask(next)
        first = first_column(i, diagonal)
        if first < width:
            product(min(<Py_ssize_t> ROWS, m - i), width - first, x.D, <floating *> k.at + (s0 + i) * k.row, k.row, 1,
                    qT + first, BLOCK, A + i * BLOCK + first, BLOCK, False)
    if x.bias.shape[0]:
        for i in range(m):
            first = first_column(i, diagonal)
            if x.bias.strides[2] == 0:
                extra = (<floating *> at(&x.bias, b, h, t0))[s0 + i]
                for j in range(first, width):
                    A[i * BLOCK + j] += extra
            else:
                for j in range(first, n):
                    A[i * BLOCK + j] += (<floating *> at(&x.bias, b, h, t0 + j))[s0 + i]
    for i in range(m):
        seen = s0 + i - offset - t0  # under ``causal`` by this query first; from seen + window on by none
        first = first_column(i, diagonal)
        if seen + x.window < width or x.causal and seen > first:
            hide(first, width, seen if x.causal else 0, seen + x.window, A + i * BLOCK)
