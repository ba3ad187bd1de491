"""The table of the largest errors against transformers:  python -m tests.models.error_table > docs/errors.md

Every case of every family's tests is run; of each family and head the largest error over its configurations is kept.
"""

import tempfile
from collections import defaultdict
from importlib import import_module
from pathlib import Path

import numpy as np
import transformers

from minilm.models import MODEL_TYPES

from . import judge

HEADER = """# Largest errors against transformers

Small random checkpoints are written by transformers {transformers}, loaded by minilm, and run by both: the largest
difference of any number over the largest number of its array. *Outputs* are logits, hidden states and pooled vectors;
*gradients* are those of all parameters, of one number made of all outputs. Configurations: how many odd ones there
are. The bar is 2e-5 in float32, 1e-10 in float64; tests hold every case to it.

A gradient that is 0 on paper, as that of a key's bias, is the rounding noise of others: it is measured against the
gradient of its matrix, or a thousandth of the largest gradient of the model. What transformers computes in float32 even
of a float64 model (angles of rotary positions, norms, softmax) is computed in float64 for the comparison.

Made by `python -m tests.models.error_table > docs/errors.md`.

| head | configurations | outputs, float32 | gradients, float32 | outputs, float64 | gradients, float64 |
|---|---|---|---|---|---|"""


def main():
    print(HEADER.format(transformers=transformers.__version__))
    for family in MODEL_TYPES:
        module = import_module(f".test_{'gpt2_heads' if family == 'gpt2' else family}", __package__)
        worst: dict = defaultdict(lambda: defaultdict(float))
        counts: dict = defaultdict(int)
        for case in module.CASES:
            counts[case.cls.__name__] += 1
            for dtype in (np.float32, np.float64):
                with tempfile.TemporaryDirectory() as folder:
                    errors = judge.judge(case, Path(folder), dtype)
                for name, e in errors.items():
                    kind = dtype, name.startswith("gradient of")
                    worst[case.cls.__name__][kind] = max(worst[case.cls.__name__][kind], e)
        for head, found in worst.items():
            cells = [
                f"{found[dtype, gradient]:.1e}" for dtype in (np.float32, np.float64) for gradient in (False, True)
            ]
            print(f"| {head} | {counts[head]} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
