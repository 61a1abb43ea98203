"""A training run that is killed again and again, and must come to the bits of one that was not.

    python -m tests.training.kill_and_resume --kills 20

trains a small model twice through the command line. The first run is left alone. The second is killed with
SIGKILL at random moments of its life, and each time started again with --resume. At the end every parameter
must be the same to the last bit, and no temporary file may be left.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

import npbert
from npbert.training.metrics import read_metrics
from tests.training.small import VOCABULARY, small_config, write_corpus


class Kill(NamedTuple):
    """What a kill found: the step of the last checkpoint, and whether something was half-written."""

    saved: int
    half_written: bool


def command(directory: Path, out: Path, steps: int) -> list[str]:
    options = {
        "--corpus": directory / "corpus.txt",
        "--held-out": directory / "held_out.txt",
        "--config": directory / "config.json",
        "--vocab": directory / "vocab.txt",
        "--out": out,
        "--steps": steps,
        "--batch-size": 4,
        "--buffer-tokens": 200,
        "--learning-rate": 0.003,
        "--save-every": 3,
        "--log-every": 2,
        "--evaluate-every": 10,
        "--patience": 1000,
    }
    words = [str(word) for option in options.items() for word in option]
    return [sys.executable, "-m", "npbert", "pretrain", *words, "--resume"]


def write_inputs(directory: Path) -> None:
    write_corpus(directory / "corpus.txt", documents=40)
    write_corpus(directory / "held_out.txt", documents=4, seed=1)
    (directory / "config.json").write_text(json.dumps(small_config().to_dict()))
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")


def run_whole(words: list[str]) -> float:
    """Run to the end; return the seconds that it took."""
    start = time.monotonic()
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start


def run_killed(words: list[str], out: Path, steps: int, kills: int, seconds: float, seed: int) -> list[Kill]:
    """Start the run ``kills`` times and kill it, then let it end.

    A moment is drawn from the time that the run still needs, so that the last kills find it still running.
    """
    rng = random.Random(seed)
    result = []
    for number in range(kills):
        process = subprocess.Popen(words, stdout=subprocess.DEVNULL)
        wait_until_it_trains(process, out)
        left = seconds * (1 - saved_step(out) / steps)
        time.sleep(rng.uniform(0, 2 * left / (kills - number + 1)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        result.append(Kill(saved_step(out), bool(temporary_files(out))))
    subprocess.run(words, check=True, stdout=subprocess.DEVNULL)
    return result


def wait_until_it_trains(process: subprocess.Popen[bytes], out: Path) -> None:
    """Wait until the program has put its hands on the directory: importing NumPy is no moment to test."""
    metrics = out / "metrics.jsonl"
    before = metrics.stat().st_mtime_ns if metrics.exists() else 0
    while process.poll() is None and not (metrics.exists() and metrics.stat().st_mtime_ns != before):
        time.sleep(0.002)


def saved_step(out: Path) -> int:
    steps = [int(path.name.partition("-")[2]) for path in out.glob("checkpoint-*")]
    return max(steps, default=0)


def temporary_files(out: Path) -> list[str]:
    return sorted(path.name for path in out.rglob("*") if path.name.startswith("."))


def different_parameters(first: Path, second: Path) -> list[str]:
    a, b = npbert.load(first), npbert.load(second)
    assert a.params.keys() == b.params.keys()
    return [name for name in a.params if not np.array_equal(a.params[name], b.params[name])]


def different_records(first: Path, second: Path) -> list[int]:
    """Steps whose records differ in more than the time they took."""
    records = [read_metrics(path / "metrics.jsonl") for path in (first, second)]
    for record in (*records[0], *records[1]):
        record.pop("tokens_per_second", None)
    if len(records[0]) != len(records[1]):
        return [-1]
    return [a["step"] for a, b in zip(*records, strict=True) if a != b]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        write_inputs(directory)
        whole, killed = directory / "whole", directory / "killed"
        seconds = run_whole(command(directory, whole, arguments.steps))
        words = command(directory, killed, arguments.steps)
        kills = run_killed(words, killed, arguments.steps, arguments.kills, seconds, arguments.seed)
        print(f"killed {len(kills)} times; saved then: steps {', '.join(str(kill.saved) for kill in kills)}")
        print(f"kills in the midst of writing a file: {sum(kill.half_written for kill in kills)}")
        parameters = different_parameters(whole, killed)
        records = different_records(whole, killed)
        left = temporary_files(killed)
        print(f"parameters that differ: {len(parameters)}; records of the metrics: {len(records)}")
        print(f"temporary files left: {len(left)}")
    return 1 if parameters or records or left else 0


if __name__ == "__main__":
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.exit(main())
