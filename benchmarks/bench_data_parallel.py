"""What training on several processes costs and brings: one process with threads, and ranks with MPI between.

    python benchmarks/bench_data_parallel.py [--ranks 2] [--rounds 3] [--steps 4] [--json]

A step is that of `npbert pretrain`: batches of 32 x 128 tokens, one of each rank, forward, backward with
dropout, the sum over all ranks, clipping, AdamW; in float32, with 4 layers by 256 and a vocabulary of 30,522
(11.3 million parameters). The contenders go through the same batches and come to the same bits, which is
checked:

- one thread: one process that accumulates
- threads: the same, with as many threads as there are ranks
- ranks: ``mpirun -n RANKS``, each with its share of the processors

They take turns, each time in fresh processes and after a step to warm up. Beside the time of a step: the time
of the sum alone, when no rank waits for another. Needs mpi4py and mpirun.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from npbert.bert import Bert
from npbert.cli.parallel import on_all_ranks
from npbert.config import BertConfig
from npbert.cpu.workers import workers
from npbert.params import init_params
from npbert.training.communicator import Alone, checksum
from npbert.training.loop import TrainingSettings, take_step
from npbert.training.optimizers import OPTIMIZERS

ROOT = Path(__file__).resolve().parent.parent
CONFIG = BertConfig(
    hidden_size=256, num_hidden_layers=4, num_attention_heads=4, intermediate_size=1024, vocab_size=30_522
)
BATCH, TOKENS, MASKED = 32, 128, 0.15
SUMS = 5
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    "PYTHONPATH": str(ROOT),
}


def random_batch(rng: np.random.Generator) -> dict[str, Any]:
    """Return a batch for pre-training, of random words."""
    ids = rng.integers(1000, CONFIG.vocab_size, size=(BATCH, TOKENS))
    labels = np.where(rng.random(ids.shape) < MASKED, ids, -100)
    return {"input_ids": ids, "labels": labels, "next_sentence_label": rng.integers(0, 2, size=BATCH)}


def measure(arguments: argparse.Namespace) -> int:
    """Train for some steps, alone or as one of the ranks; rank 0 prints the figures."""
    ranks = arguments.ranks
    bert = Bert(CONFIG, init_params(CONFIG, "pretraining", seed=0), None, "pretraining")
    optimizer = OPTIMIZERS["adamw"](bert.params, share_out=bert.share_out)
    settings = TrainingSettings(steps=arguments.steps, accumulate=arguments.size // ranks.size)
    rng = np.random.default_rng(1)
    seconds = []
    for step in range(arguments.steps + 1):
        batches = [random_batch(rng) for _ in range(arguments.size)]
        ranks.wait_for_all()
        start = time.perf_counter()
        take_step(bert, batches, optimizer, 1e-4, step, settings, ranks)
        seconds.append(time.perf_counter() - start)
    sums = []
    for _ in range(SUMS):
        grads = {name: value.copy() for name, value in bert.params.items()}
        ranks.wait_for_all()
        start = time.perf_counter()
        ranks.sum_gradients(grads)
        sums.append(time.perf_counter() - start)
    print(json.dumps({"steps": seconds[1:], "sums": sums, "bits": checksum(bert.params)}))
    return 0


def measure_alone(arguments: argparse.Namespace) -> int:
    """Measure one process with a number of threads."""
    arguments.ranks = Alone()
    with workers(arguments.threads):
        return measure(arguments)


def run(launcher: list[str], options: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """Run this script again and return its figures."""
    words = ["--steps", str(arguments.steps), "--ranks", str(arguments.size), *options]
    command = [*launcher, sys.executable, __file__, *words]
    done = subprocess.run(command, env={**os.environ, **ENVIRONMENT}, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    figures: dict[str, Any] = json.loads(done.stdout)
    return figures


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--ranks", dest="size", type=int, default=2, help="processes (default: 2)")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each contender (default: 3)")
    parser.add_argument("--steps", type=int, default=4, help="measured steps of each run (default: 4)")
    parser.add_argument("--json", action="store_true", help="print all times")
    parser.add_argument("--threads", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--together", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    arguments.command, arguments.debug, arguments.backend = "bench_data_parallel", False, "cpu"
    if arguments.together:
        return on_all_ranks(measure)(arguments)
    if arguments.threads:
        return measure_alone(arguments)

    count = str(arguments.size)
    contenders = {
        "one thread": ([], ["--threads", "1"]),
        f"{count} threads": ([], ["--threads", count]),
        f"{count} ranks": (["mpirun", "-n", count], ["--together"]),
    }
    results: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
    for _ in range(arguments.rounds):
        for name, (launcher, options) in contenders.items():
            results[name].append(run(launcher, options, arguments))
    bits = {figures["bits"] for runs in results.values() for figures in runs}
    if len(bits) != 1:
        raise SystemExit(f"not all came to the same parameters: {sorted(bits)}")
    if arguments.json:
        print(json.dumps(results, indent=2))
        return 0
    report(results, arguments.size * BATCH * TOKENS)
    return 0


def report(results: dict[str, list[dict[str, Any]]], tokens: int) -> None:
    """Print medians and ranges."""
    slowest = None
    for name, runs in results.items():
        steps = [seconds for figures in runs for seconds in figures["steps"]]
        median = statistics.median(steps)
        slowest = slowest or median
        print(
            f"{name:12} {median:6.3f} s a step ({min(steps):.3f} to {max(steps):.3f}), "
            f"{tokens / median:8,.0f} tokens/s, {slowest / median:.2f}x"
        )
    sums = [seconds for figures in runs for seconds in figures["sums"]]
    size = sum(value.nbytes for value in init_params(CONFIG, "pretraining", seed=0).values())
    print(
        f"sum of {size / 1e6:.0f} MB over the ranks: {statistics.median(sums) * 1e3:.0f} ms "
        f"({min(sums) * 1e3:.0f} to {max(sums) * 1e3:.0f})"
    )
    print("all come to the same parameters, to the last bit")


if __name__ == "__main__":
    sys.exit(main())
