"""Every op's mathematics, as plain functions on NumPy arrays.

Nothing here knows about Tensor, graphs, layers or models.

An op ``foo`` is one folder of at most four files, so that ``ls minilm/_kernels/foo`` is the whole story:

    foo.py            the reference: NumPy, readable, with the equations on top; and the wrapper of the loops
    foo.md            the derivation of its backward, in the same symbols
    foo_numba.py      the same two functions as compiled loops (JIT)
    foo_cython.pyx    the same two functions as compiled loops (ahead of time)

The reference file defines

    foo_forward(*arrays, **static) -> (out, saved)
    foo_backward(dout, saved, needs) -> one gradient per array, None where needs[i] is False
    foo_compiled(loops) -> the same two functions around the loops of foo_numba or foo_cython

A backward that can add a gradient to one that is there, for less than making it and adding it after, takes ``into`` as
well: for each array the gradient that it has already, or None.  It returns that array where it added to it.

A reference whose op runs on the loops of another says so in ``LOOPS``, and has no loops of its own.
An op of several outputs returns a tuple of them as ``out``; ``dout`` is then a list, None where no gradient came.
An array that is optional (a bias, a mask) may be None; an array of integers (labels, token ids) gets the gradient None.
What an optimizer computes has one function instead, ``foo(*lists, **static)``, on all arrays of lists in one call; a
rule writes into its arrays.

Contract, tested for every op and backend:
  1. inputs are never written to; outputs never alias inputs
  2. out and every gradient keep the dtype of what they belong to
  3. ``saved`` is a flat tuple that belongs to the kernel: only its own backward may look inside
  4. no globals, no printing; randomness only from a seed, through ``random.py``, the same on every backend;
     on one backend the same bits on any number of threads
  5. empty, one, odd, strided and read-only arrays all work; a row that is wholly masked gives zeros, never NaN

Letters: B batch, T query positions, S key positions, H heads, G key/value heads, D head size, C channels, F hidden,
V vocabulary, N rows (all leading axes together).
"""
