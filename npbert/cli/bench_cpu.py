"""``npbert bench inference`` and the others on a CPU: their options, and what they find as tables or JSON."""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.console import Cell, Column, Styled, heading, say, table
from npbert.cli.errors import FAILED, OK, CommandError
from npbert.cli.models import HOW_TO_INSTALL_WEIGHTS

BACKENDS: Final = ("reference", "cpu")
DEFAULT_ROUNDS: Final = 5

COLUMNS: Final = (
    Column("who"),
    Column("ms", "right"),
    Column("p10 to p90", "right"),
    Column("tokens/s", "right"),
    Column("GFLOP/s", "right"),
    Column("times the first", "right"),
    Column("p10 to p90", "right"),
    Column("peak MB", "right"),
)
METHOD: Final = """\
Results are checked before anything is timed; what is wrong is not timed. Medians, and between which values
the middle 80 % are. Contenders take turns; a time is divided by that of the first one in the same round.
GFLOP/s counts the matrix products alone, without padding, for all alike; the floor computes only them."""


def add_measuring_options(parser: argparse.ArgumentParser, rounds: int = DEFAULT_ROUNDS) -> None:
    """Declare what all benchmarks on a CPU have in common."""
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        metavar="N",
        help=f"times that each contender is measured, in turns (default: {rounds})",
    )
    parser.add_argument(
        "--threads",
        type=positive,
        metavar="N",
        help="threads for each contender (default: one for each core)",
    )
    parser.add_argument("--plot", metavar="FILE.png", type=Path, help="write a plot, too (needs matplotlib)")
    add_json(parser)


def add_backends_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--backend``, which may be repeated."""
    parser.add_argument(
        "--backend",
        choices=BACKENDS,
        action="append",
        help="npbert's engine (default: cpu; may be repeated: others are compared with the first)",
    )


def add_peers_option(parser: argparse.ArgumentParser) -> None:
    """Declare ``--peer``."""
    parser.add_argument(
        "--peer",
        action="append",
        metavar="NAME",
        help='only these peers; * and ? are wildcards: "ONNX*"; none for none (default: all installed)',
    )


def measured_in_clean_process(
    measure: Callable[[argparse.Namespace], int],
) -> Callable[[argparse.Namespace], int]:
    """Return a command that runs in another process, if settings of this one's environment would disturb it.

    OpenBLAS reads its settings when NumPy is loaded: they cannot be taken back in this process.
    """

    def run(arguments: argparse.Namespace) -> int:
        from npbert.bench.machine import disturbing_settings

        check_plot(arguments)
        disturbing = disturbing_settings(os.environ)
        if not disturbing:
            return measure(arguments)
        print(f"npbert bench: measured without {', '.join(disturbing)}", file=sys.stderr)
        environment = {name: value for name, value in os.environ.items() if name not in disturbing}
        command = [sys.executable, "-m", "npbert", *arguments.argv]
        return subprocess.run(command, env=environment, check=False).returncode

    return run


def check_plot(arguments: argparse.Namespace) -> None:
    """Refuse a plot that cannot be written, before anything is measured."""
    if arguments.plot is None:
        return
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise CommandError('--plot needs matplotlib: pip install "npbert[plot]"')
    if not arguments.plot.resolve().parent.is_dir():
        raise CommandError(f"{arguments.plot}: there is no directory {arguments.plot.resolve().parent}")


def selected_peers(arguments: argparse.Namespace, peers: Iterable[Any]) -> list[Any]:
    """Return the peers that ``--peer`` asks for."""
    from npbert.cli.bench import selected

    named = {peer.name: peer for peer in peers}
    if arguments.peer == ["none"]:
        return []
    return [named[name] for name in selected(list(named), arguments.peer, "--peer")]


def threads_of(arguments: argparse.Namespace) -> int:
    """Return how many threads each contender gets."""
    from npbert.cpu.workers import usable_cpus

    return arguments.threads or usable_cpus()


def show(report: Any, arguments: argparse.Namespace) -> int:
    """Print a report, plot it if asked to, and return the exit code: 1 if a result of npbert's is wrong."""
    if arguments.plot is not None:
        from npbert.bench.plot import plot_report

        plot_report(report, arguments.plot)
    if arguments.json:
        print(json.dumps(report.as_dict(), indent=2))
    else:
        _say_machine(report.machine)
        for comparison in report.comparisons:
            heading(comparison.title)
            _show_comparison(comparison)
        say()
        for name, why in report.missing.items():
            say(f"{name}: {why}")
        say(report.method, "dim")
        if arguments.plot is not None:
            say(f"\nPlot: {arguments.plot}")
    failed = any(
        outcome.failure and outcome.name.startswith("npbert")
        for comparison in report.comparisons
        for outcome in comparison.outcomes
    )
    return FAILED if failed else OK


def _say_machine(machine: Any) -> None:
    load = "" if machine.load is None else f", load {machine.load:.1f} before the start"
    say(f"{machine.cpu}, {machine.cores} cores, {machine.threads} threads each{load}", "strong")
    for library in machine.blas:
        say(f"NumPy's products: {library}")
    say(", ".join(f"{name} {version}" for name, version in machine.versions.items()))


def _show_comparison(comparison: Any) -> None:
    rows = [_row(comparison, outcome) for outcome in comparison.outcomes]
    # Columns that nothing can be said about are left out.
    kept = [number for number in range(len(COLUMNS)) if number < 2 or any(row[number] for row in rows)]
    table([COLUMNS[number] for number in kept], [[row[number] for number in kept] for row in rows])
    for outcome in comparison.outcomes:
        if outcome.failure:
            say(f"{outcome.name}: {outcome.failure}", "bad")


def _row(comparison: Any, outcome: Any) -> list[Cell]:
    seconds, ratio = comparison.summary(outcome), comparison.ratio(outcome)
    peak = comparison.peak_bytes.get(outcome.name)
    megabytes = "" if peak is None else f"{peak / 1e6:.0f}"
    if seconds is None:
        return [outcome.name, Styled("not timed", "bad"), "", "", "", "", "", megabytes]
    is_base = outcome.name == comparison.base
    return [
        outcome.name,
        _milliseconds(seconds.median),
        f"{_milliseconds(seconds.p10)} to {_milliseconds(seconds.p90)}",
        f"{comparison.tokens / seconds.median:,.0f}" if comparison.tokens else "",
        f"{comparison.flops / seconds.median / 1e9:.0f}" if comparison.flops else "",
        "" if ratio is None else f"{ratio.median:.2f}",
        "" if ratio is None or is_base else f"{ratio.p10:.2f} to {ratio.p90:.2f}",
        megabytes,
    ]


def _milliseconds(seconds: float) -> str:
    value = seconds * 1000
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


# --- inference ------------------------------------------------------------------------------------------

INFERENCE_DESCRIPTION = """\
Measure the time from texts to vectors: a sentence encoder's `encode`, in bulk
and for single texts of 16 and 128 tokens (latency), against each of
sentence-transformers, transformers and ONNX Runtime that is installed, and
against the floor, the matrix products alone."""

INFERENCE_EXAMPLES = """\
npbert bench inference
npbert bench inference --texts reviews.txt --count 400 --rounds 7 --plot inference.png
npbert bench inference --peer "ONNX*" --json"""

DEFAULT_TEXTS: Final = 128


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench inference``."""
    from npbert.cli.models import add_encoder_option

    add_encoder_option(parser)
    add_texts_options(parser)
    add_backends_option(parser)
    add_peers_option(parser)
    parser.add_argument("--no-latency", action="store_true", help="only the texts in bulk")
    add_measuring_options(parser)


def add_texts_options(parser: argparse.ArgumentParser) -> None:
    """Declare ``--texts``, ``--column`` and ``--count``."""
    parser.add_argument(
        "--texts",
        metavar="FILE",
        type=Path,
        help="UTF-8, a text a line, or a .csv, or one of these as .bz2 (default: the reviews in "
        "$NPBERT_CORPORA, else texts made of npbert's documentation)",
    )
    parser.add_argument("--column", default="text", metavar="NAME", help="of a .csv (default: text)")
    parser.add_argument(
        "--count",
        type=positive,
        default=DEFAULT_TEXTS,
        metavar="N",
        help=f"use so many texts, from all over the file (default: {DEFAULT_TEXTS})",
    )


def read_chosen_texts(arguments: argparse.Namespace) -> tuple[list[str], str]:
    """Return the texts that the command line asks for, and what to call them."""
    from npbert.bench.texts import CORPUS, read_texts, sample_texts, spread

    path = arguments.texts
    corpora = os.environ.get("NPBERT_CORPORA")
    if path is None and corpora is not None and (Path(corpora) / CORPUS).exists():
        path = Path(corpora) / CORPUS
    if path is None:
        return sample_texts(arguments.count), "npbert's documentation"
    try:
        return spread(read_texts(path, arguments.column), arguments.count), path.name
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: byte {error.start} is not UTF-8") from None


def run_inference(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench import inference
    from npbert.bench.comparison import Report
    from npbert.bench.machine import describe_machine, threads_of_numpy
    from npbert.bench.peers import split_by_presence
    from npbert.bench.peers.sentence_encoders import PEERS

    peers, missing = split_by_presence(selected_peers(arguments, PEERS))
    directory = _model_directory(arguments.model)
    texts, source = read_chosen_texts(arguments)
    threads = threads_of(arguments)
    packages = sorted({package for peer in peers for package in peer.packages})
    with threads_of_numpy(threads):
        machine = describe_machine(threads, packages)
        setting = inference.prepare(directory, arguments.backend or ["cpu"], peers, threads)
        comparisons = [inference.compare_encoders(setting, texts, arguments.rounds)]
        comparisons[0] = comparisons[0]._replace(title=f"{source}: {comparisons[0].title}")
        if not arguments.no_latency:
            comparisons += inference.compare_latencies(setting, arguments.rounds)
    report = Report("inference", machine, METHOD, comparisons, missing | setting.failures)
    return show(report, arguments)


def _model_directory(source: str | None) -> Path:
    from npbert.checkpoint import find_installed_model
    from npbert.checkpoint.source import find_directory

    if source is not None:
        return find_directory(source)
    installed = find_installed_model()
    if installed is None:
        raise CommandError(f"no model: give --model DIR, or install one: {HOW_TO_INSTALL_WEIGHTS}")
    return installed


# --- all of them ----------------------------------------------------------------------------------------


class Benchmark(NamedTuple):
    """A command: its options, what it does, and what ``--help`` says."""

    add_options: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace], int]
    summary: str
    description: str
    examples: str


BENCHMARKS: Final = {
    "inference": Benchmark(
        add_inference_options,
        run_inference,
        "texts to vectors, against sentence-transformers, transformers and ONNX Runtime",
        INFERENCE_DESCRIPTION,
        INFERENCE_EXAMPLES,
    ),
}


def add_parsers(benchmarks: Any) -> None:
    """Declare the commands."""
    for name, benchmark in BENCHMARKS.items():
        parser = add_command(
            benchmarks,
            name,
            measured_in_clean_process(benchmark.run),
            summary=benchmark.summary,
            description=benchmark.description,
            examples=benchmark.examples,
        )
        benchmark.add_options(parser)
