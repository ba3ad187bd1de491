"""What attention_numba.py does with a block: products, a few rows of c += a b with c held in registers, and scratch.

LLVM does not keep the sums of a product in registers of its own accord, so one tile of c is written in LLVM's own
vectors.  These are as wide as the processor's; on any other processor LLVM takes them apart.
"""

from llvmlite import binding, ir
from numba import float32, float64, njit, types, void
from numba.core import cgutils
from numba.core.imputils import impl_ret_new_ref
from numba.extending import intrinsic
from numba.np.arrayobj import populate_array

from ..vecmath_numba import EXACT

_FEATURES = binding.get_host_cpu_features()
BYTES = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16  # of a vector
HIGH = 8 if BYTES == 64 or _FEATURES.get("neon") else 4  # rows of a tile: 16 sums in 32 registers, or 8 in 16
_INT = ir.IntType(64)
BLOCK = 64  # queries, and keys, of a block
STEP = 16  # a multiple of every vector's length


def _address(builder, array, row, column):
    """The address of a number of a matrix, whatever its strides."""
    strides = (builder.extract_value(array.strides, axis) for axis in (0, 1))
    offset = builder.add(*(builder.mul(n, stride) for n, stride in zip((row, column), strides, strict=True)))
    return cgutils.pointer_add(builder, array.data, offset)


def _right(builder, pointer, by, kind):
    return cgutils.pointer_add(builder, pointer, ir.Constant(_INT, by), kind.as_pointer())


def _same(builder, x, vector):
    """x in every lane of a vector."""
    one = builder.insert_element(ir.Constant(vector, ir.Undefined), x, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(one, one, ir.Constant(ir.VectorType(ir.IntType(32), vector.count), None))


def _signature(real):
    read = types.Array(real, 2, "A", readonly=True)
    return void(read, read, real[:, :])


@intrinsic
def scratch(typing, like, count):
    """Rows of BLOCK numbers of the type of ``like``, not cleared, which start where a line of the cache does.

    np.empty is replaced in tests, by a function that Numba does not know.
    """

    def code(context, builder, signature, arguments):
        size, kind = like.dtype.bitwidth // 8, signature.return_type
        one, line = context.get_constant(types.int64, size), context.get_constant(types.uint32, 64)
        many = builder.mul(arguments[1], context.get_constant(types.int64, BLOCK))
        info = context.nrt.meminfo_alloc_aligned(builder, builder.mul(many, one), line)
        x = context.make_array(kind)(context, builder)
        at = builder.bitcast(context.nrt.meminfo_data(builder, info), x.data.type)
        populate_array(x, at, [many], [one], one, info)
        return impl_ret_new_ref(context, builder, kind, x._getvalue())

    return types.Array(like.dtype, 1, "C")(like, types.int64), code


@intrinsic
def rows(typing, x, i, j):
    """x as rows of BLOCK numbers, from row i and column j on.

    What is known when the loops are compiled, such as how far two constant rows are apart, stays known; a slice hides
    it behind its checks, and each loop would ask first whether rows overlap.
    """

    def code(context, builder, signature, arguments):
        kind, size = signature.return_type, x.dtype.bitwidth // 8
        count, width, row, one = (context.get_constant(types.int64, n) for n in (2**31, BLOCK, BLOCK * size, size))
        of, view = context.make_array(x)(context, builder, arguments[0]), context.make_array(kind)(context, builder)
        at = builder.gep(of.data, [builder.add(builder.mul(arguments[1], width), arguments[2])])
        populate_array(view, at, [count, width], [row, one], one, None)
        return view._getvalue()

    return types.Array(x.dtype, 2, "C")(x, types.int64, types.int64), code


@intrinsic(prefer_literal=True)
def _tile(typing, rows, vectors, a, b, c, i, j):
    """Rows i ... of c += a b, and ``vectors`` vectors of its columns from j on; one column where that is 0."""

    def code(context, builder, signature, arguments):
        kind, size = context.get_data_type(c.dtype), c.dtype.bitwidth // 8
        vector = ir.VectorType(kind, BYTES // size) if vectors.literal_value else kind
        high, wide = range(rows.literal_value), range(vectors.literal_value or 1)
        a_, b_, c_ = (
            context.make_array(t)(context, builder, x) for t, x in zip((a, b, c), arguments[2:5], strict=True)
        )
        i_, j_ = arguments[5:]
        each = [builder.add(i_, ir.Constant(_INT, r)) for r in high]
        zero, one = ir.Constant(_INT, 0), ir.Constant(_INT, 1)
        a0, b0 = [_address(builder, a_, i_, zero) for i_ in each], _address(builder, b_, zero, j_)
        before = builder.block
        head, body, done = (builder.append_basic_block(name) for name in ("head", "body", "done"))
        builder.branch(head)
        builder.position_at_end(head)
        k, sums = builder.phi(_INT), [[builder.phi(vector) for _ in wide] for _ in high]
        k.add_incoming(zero, before)
        builder.cbranch(builder.icmp_signed("<", k, builder.extract_value(a_.shape, 1)), body, done)
        builder.position_at_end(body)
        row = cgutils.pointer_add(builder, b0, builder.mul(k, builder.extract_value(b_.strides, 0)))
        b_k = [builder.load(_right(builder, row, w * BYTES, vector), align=size) for w in wide]
        a_k = builder.mul(k, builder.extract_value(a_.strides, 1))
        for r in high:
            x = builder.load(cgutils.pointer_add(builder, a0[r], a_k, kind.as_pointer()))
            x = x if vector is kind else _same(builder, x, vector)
            for w in wide:
                old = sums[r][w]
                new = builder.fadd(old, builder.fmul(x, b_k[w], flags=["contract"]), flags=["contract"])
                old.add_incoming(ir.Constant(vector, None), before)
                old.add_incoming(new, body)
        k.add_incoming(builder.add(k, one), body)
        builder.branch(head)
        builder.position_at_end(done)
        for r in high:
            row = _address(builder, c_, each[r], j_)
            for w in wide:
                to = _right(builder, row, w * BYTES, vector)
                builder.store(builder.fadd(builder.load(to, align=size), sums[r][w]), to, align=size)
        return context.get_dummy_value()

    return void(rows, vectors, a, b, c, types.int64, types.int64), code


def _band(rows):
    @njit
    def band(a, b, c, i):
        lanes, N, j = BYTES // c.itemsize, c.shape[1], 0
        while j + 2 * lanes <= N:
            _tile(rows, 2, a, b, c, i, j)
            j += 2 * lanes
        while j + lanes <= N:
            _tile(rows, 1, a, b, c, i, j)
            j += lanes
        while j < N:
            _tile(rows, 0, a, b, c, i, j)
            j += 1

    return band


_rows, _row = _band(HIGH), _band(1)


@njit([_signature(float32), _signature(float64)], cache=True, error_model="numpy")
def add_product(a, b, c):  # (M, K), (K, N), (M, N)
    """c += a b, whatever the strides; the last axis of b and of c is contiguous."""
    M, i = c.shape[0], 0
    while i + HIGH <= M:
        _rows(a, b, c, i)
        i += HIGH
    while i < M:
        _row(a, b, c, i)
        i += 1


@intrinsic
def _turn(typing, x, j, d, c, xT):
    """The square of as many rows and columns as a vector has lanes at row j and column d of x, times c, into xT."""

    def code(context, builder, signature, arguments):
        kind, size = context.get_data_type(x.dtype), x.dtype.bitwidth // 8
        lanes = BYTES // size
        vector, half = ir.VectorType(kind, lanes), lanes // 2
        x_, xT_ = (context.make_array(t)(context, builder, arguments[n]) for t, n in ((x, 0), (xT, 4)))
        j_, d_, c_ = arguments[1:4]
        halves = [
            ir.Constant(
                ir.VectorType(ir.IntType(32), lanes), [n for l in range(half) for n in (at + l, at + l + lanes)]
            )
            for at in (0, half)
        ]
        lines = []
        for l in range(lanes):
            row = _right(builder, _address(builder, x_, builder.add(j_, ir.Constant(_INT, l)), d_), 0, vector)
            lines.append(builder.fmul(builder.load(row, align=size), _same(builder, c_, vector)))
        for _ in range(half.bit_length()):  # each time the lanes of two rows take turns
            pairs = zip(lines[:half], lines[half:], strict=True)
            lines = [builder.shuffle_vector(p, q, turns) for p, q in pairs for turns in halves]
        for l in range(lanes):
            row = _right(builder, _address(builder, xT_, builder.add(d_, ir.Constant(_INT, l)), j_), 0, vector)
            builder.store(lines[l], row, align=size)
        return context.get_dummy_value()

    return void(x, types.int64, types.int64, x.dtype, xT), code


@njit(**EXACT)
def transpose(x, c, xT):  # (n, D) -> (D, BLOCK)
    """xT = c times the transpose of rows, and zeros up to a multiple of STEP columns."""
    (n, D), lanes = x.shape, BYTES // x.itemsize
    for j in range(0, n, lanes):
        whole, last = D - D % lanes if j + lanes <= n else 0, min(j + lanes, n)
        for d in range(0, whole, lanes):
            _turn(x, j, d, c, xT)
        for i in range(j, last):
            for d in range(whole, D):
                xT[d, i] = c * x[i, d]
    for d in range(D if n % STEP else 0):
        for i in range(n, n + STEP - n % STEP):
            xT[d, i] = 0
