"""Load a checkpoint of 500 MB:  python -m benchmarks.load

GPT-2 124M, float32.  Told are: how much memory that belongs to the process alone grew, until the first token is there,
as a share of the file; and the time to the first token, with the file in the page cache and without (Linux, where the
cache can be dropped for one file), beside the time that reading the file takes.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

FIRST_TOKEN = """
import sys, time
import numpy as np
import minilm
from minilm.models import gpt2
from minilm.pretrained import load

def memory(kind):
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith(kind))

before, resident, start = memory("RssAnon"), memory("VmRSS"), time.perf_counter()
model = load(sys.argv[1])
loaded = time.perf_counter()
with minilm.no_grad():
    model(np.array([[1, 2, 3]]), logits_to_keep=1)
print(loaded - start, time.perf_counter() - start, memory("RssAnon") - before, memory("VmRSS") - resident)
"""


def forget(path):
    """Drop the file's pages from the cache."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def seconds_to_read(path):
    start, buffer = time.perf_counter(), bytearray(1 << 22)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass
    return time.perf_counter() - start


def main():
    import minilm
    from minilm.models.gpt2 import GPT2Config, GPT2LMHeadModel

    with tempfile.TemporaryDirectory() as folder:
        minilm.save(GPT2LMHeadModel(GPT2Config(), rng=np.random.default_rng(0)), folder)
        path = Path(folder, "model.safetensors")
        size = path.stat().st_size
        print(f"{size / 1e6:.0f} MB")
        for cached in (True, False, True, False):
            forget(path) if not cached else None
            reading = seconds_to_read(path)
            forget(path) if not cached else None
            done = subprocess.run(
                [sys.executable, "-c", FIRST_TOKEN, folder], capture_output=True, text=True, check=True
            )
            load, first, anonymous, resident = map(float, done.stdout.split())
            where = "in the page cache" if cached else "from the disk"
            print(
                f"{where:<18} load {load:.3f} s, first token {first:.3f} s, reading the file alone {reading:.3f} s; "
                f"memory: {anonymous / size:.3f} of the file for the process alone, {resident / size:.3f} with the "
                "file's own pages"
            )


if __name__ == "__main__":
    main()
