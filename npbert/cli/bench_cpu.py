"""``npbert bench inference``, ``training``, ``ops``, ``tokenizer``, ``import``; `bench_report.py` prints."""

import argparse
import os
import sys
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.errors import CommandError
from npbert.cli.models import HOW_TO_INSTALL_WEIGHTS, add_encoder_option

if TYPE_CHECKING:
    from npbert.bench.comparison import Comparison
    from npbert.bench.machine import Machine
    from npbert.bench.peers import Peer

BACKENDS: Final = ("reference", "cpu")
DEFAULT_ROUNDS: Final = 5


def add_measuring_options(
    parser: argparse.ArgumentParser, rounds: int = DEFAULT_ROUNDS, threads: bool = True
) -> None:
    """Declare what all benchmarks on a CPU have in common; ``--threads`` where there can be several."""
    parser.add_argument(
        "--rounds",
        type=positive,
        default=rounds,
        metavar="N",
        help=f"times that each contender is measured, in turns (default: {rounds})",
    )
    if threads:
        parser.add_argument(
            "--threads",
            type=positive,
            metavar="N",
            help="threads for each contender (default: one for each core)",
        )
    else:
        parser.set_defaults(threads=1)
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
    """Return a command that starts over without settings of the environment that would disturb it.

    OpenBLAS reads its settings when NumPy is loaded: they cannot be taken back later.
    """

    def run(arguments: argparse.Namespace) -> int:
        from npbert.bench.machine import disturbing_settings

        _check_plot(arguments)
        disturbing = disturbing_settings(os.environ)
        if not disturbing:
            return measure(arguments)
        if arguments.argv is None:
            raise CommandError(
                f"{', '.join(disturbing)}: unset before Python starts, to measure what users get"
            )
        print(f"npbert bench: measured without {', '.join(disturbing)}", file=sys.stderr, flush=True)
        environment = {name: value for name, value in os.environ.items() if name not in disturbing}
        # In the place of this process, so that whoever stops this one stops that.
        os.execve(sys.executable, [sys.executable, "-m", "npbert", *arguments.argv], environment)

    return run


def _check_plot(arguments: argparse.Namespace) -> None:
    """Refuse a plot that cannot be written, before anything is measured."""
    if arguments.plot is None:
        return
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        raise CommandError('--plot needs matplotlib: pip install "npbert[plot]"')
    if not arguments.plot.resolve().parent.is_dir():
        raise CommandError(f"{arguments.plot}: there is no directory {arguments.plot.resolve().parent}")


# --- inference ------------------------------------------------------------------------------------------

INFERENCE_DESCRIPTION = """\
Measure the time from texts to vectors: a sentence encoder's `encode`, in bulk
and for single texts of 16 and 128 tokens (latency), against each of
sentence-transformers, transformers and ONNX Runtime that is installed, and
against the floor, the matrix products alone.

With --scaling: npbert and the floor alone, as the number of tokens, texts,
layers and workers grows."""

INFERENCE_EXAMPLES = """\
npbert bench inference
npbert bench inference --texts reviews.txt --count 400 --rounds 7 --memory
npbert bench inference --peer "ONNX*" --json
npbert bench inference --peer none --invariance
npbert bench inference --scaling --plot scaling.png"""

DEFAULT_TEXTS: Final = 128


def add_inference_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench inference``."""
    add_encoder_option(parser)
    add_texts_options(parser, DEFAULT_TEXTS)
    add_backends_option(parser)
    add_peers_option(parser)
    parser.add_argument("--no-latency", action="store_true", help="only the texts in bulk")
    parser.add_argument("--memory", action="store_true", help="the peak memory of each, too")
    parser.add_argument("--scaling", action="store_true", help="growing sizes; npbert and the floor alone")
    parser.add_argument(
        "--invariance",
        action="store_true",
        help="npbert with batch_invariant=True and False, too: what it costs",
    )
    add_measuring_options(parser)


def run_inference(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench import inference
    from npbert.bench.peers.sentence_encoders import PEERS
    from npbert.cli.bench_report import show

    peers, missing = _peers(arguments, PEERS)
    directory = model_directory(arguments.model)
    backends = arguments.backend or ["cpu"]
    if arguments.scaling:
        return _run_scaling(arguments, directory, backends)
    texts, source = read_chosen_texts(arguments)
    with _measuring(arguments, peers) as (threads, machine):
        setting = inference.prepare(directory, backends, peers, threads, arguments.invariance)
        names = (*setting.engines, *(peer.name for peer in peers if peer.name in setting.peers))
        peaks = inference.peak_memory(directory, names, texts, threads) if arguments.memory else {}
        bulk = inference.compare_encoders(setting, texts, arguments.rounds, peaks)
        comparisons = [bulk._replace(title=f"{source}: {bulk.title}")]
        if not arguments.no_latency:
            comparisons += inference.compare_latencies(setting, arguments.rounds)
    return show("inference", arguments, machine, comparisons, missing | setting.failures)


def _run_scaling(arguments: argparse.Namespace, directory: Path, backends: list[str]) -> int:
    from npbert.bench.scaling import PARAMETERS, compare_growth
    from npbert.cli.bench_report import show
    from npbert.cli.models import load_encoder

    with _measuring(arguments, []) as (threads, machine):
        bert = load_encoder(str(directory), backend="reference")
        comparisons = list(compare_growth(bert, backends, threads, arguments.rounds))
    return show("inference --scaling", arguments, machine, comparisons, {}, growing=PARAMETERS)


# --- training -------------------------------------------------------------------------------------------

TRAINING_DESCRIPTION = """\
Measure `loss_and_grads`: a pre-training batch of 32 x 128 tokens, 15 % of them
masked, vocabulary 30,522, on 4 layers of 256 and on 6 of 384; and sequence
classification of 32 texts with MiniLM, where its weights are installed. Against
transformers' forward and backward on PyTorch, and against the floor, the matrix
products alone. No dropout, so that the gradients can be compared.

With --whole-step: all that training does with a batch, with clipping and AdamW;
without dropout, and with it."""

TRAINING_EXAMPLES = """\
npbert bench training
npbert bench training --size 2x128 --no-memory
npbert bench training --size 4x256 --whole-step
npbert bench training --texts reviews.txt --rounds 9 --json"""

SIZES: Final = ("4x256", "6x384")
CLASSIFICATION: Final = "classification"


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench training``."""
    parser.add_argument(
        "--size",
        action="append",
        type=_size,
        metavar="LAYERSxWIDTH",
        help=f"of pre-training, or {CLASSIFICATION} (default: {', '.join(SIZES)}, {CLASSIFICATION}; may be "
        "repeated)",
    )
    parser.add_argument(
        "--batch", metavar="TEXTSxTOKENS", type=_pair, default=(32, 128), help="(default: 32x128)"
    )
    add_encoder_option(parser)
    add_texts_options(parser)
    add_backends_option(parser)
    add_peers_option(parser)
    parser.add_argument(
        "--whole-step", action="store_true", help="clipping and a step of AdamW, too; then also with dropout"
    )
    parser.add_argument("--no-memory", action="store_true", help="not the peak memory of each")
    add_measuring_options(parser)


def run_training(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench.peers import torch_steps, torch_training
    from npbert.cli.bench_report import show

    peers, missing = _peers(arguments, torch_steps.PEERS if arguments.whole_step else torch_training.PEERS)
    batch, tokens = arguments.batch
    comparisons: list[Comparison] = []
    with _measuring(arguments, peers) as (threads, machine):
        for size in arguments.size or [*map(_size, SIZES), CLASSIFICATION]:
            if size == CLASSIFICATION:
                directory = _classified_model(arguments, missing)
                if directory is None:
                    continue
                texts, _ = read_chosen_texts(arguments, batch)
                kind, settings = (
                    CLASSIFICATION,
                    {"directory": str(directory), "texts": texts, "tokens": tokens},
                )
            else:
                layers, hidden = size
                kind = "pretraining"
                settings = {"layers": layers, "hidden": hidden, "batch": batch, "tokens": tokens}
            comparisons += _compare_training(arguments, kind, settings, peers, threads)
    return show("training", arguments, machine, comparisons, missing)


def _compare_training(
    arguments: argparse.Namespace, kind: str, settings: dict[str, Any], peers: "list[Peer]", threads: int
) -> "Iterator[Comparison]":
    from npbert.bench import training, training_steps

    backends, rounds = arguments.backend or ["cpu"], arguments.rounds
    names = [*(f"npbert {name}" for name in backends), *(peer.name for peer in peers)]
    peaks: dict[str, int] = {}
    for dropout in (False, True) if arguments.whole_step else ():
        # Before this process makes the problem: they would take the memory at the same time.
        if not arguments.no_memory:
            peaks = training_steps.peak_memory(kind, names, threads, dropout, **settings)
        problem = training.PROBLEMS[kind](**settings)
        yield training_steps.compare_steps(problem, backends, peers, rounds, threads, dropout, peaks)
    if not arguments.whole_step:
        if not arguments.no_memory:
            peaks = training.peak_memory(kind, names, threads, **settings)
        problem = training.PROBLEMS[kind](**settings)
        yield training.compare_training(problem, backends, peers, rounds, threads, peaks)


def _classified_model(arguments: argparse.Namespace, missing: dict[str, str]) -> Path | None:
    try:
        return model_directory(arguments.model)
    except CommandError:
        if arguments.size is not None:
            raise
        missing["sequence classification"] = f"not measured, no model: {HOW_TO_INSTALL_WEIGHTS}"
        return None


def _size(text: str) -> Any:
    return text if text == CLASSIFICATION else _pair(text)


def _pair(text: str) -> tuple[int, int]:
    first, cross, second = text.partition("x")
    if not cross:
        raise argparse.ArgumentTypeError(f"{text!r} is not two numbers with an x between them, such as 4x256")
    return positive(first), positive(second)


# --- ops ------------------------------------------------------------------------------------------------

OPS_DESCRIPTION = """\
Measure each op, forward and backward, at the sizes of MiniLM and of BERT-base,
32 x 128 tokens, against PyTorch's eager ops, which record gradients as in
training; and, where it is made of matrix products, against these alone."""

OPS_EXAMPLES = """\
npbert bench ops
npbert bench ops --op "gelu*" --op layernorm --size MiniLM
npbert bench ops --batch 8x64 --backend cpu --backend reference"""


def add_ops_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench ops``."""
    parser.add_argument(
        "--op", action="append", metavar="NAME", help='only these; * and ? are wildcards: "linear*"'
    )
    parser.add_argument("--size", action="append", choices=("MiniLM", "BERT-base"), help="default: both")
    parser.add_argument(
        "--batch", metavar="TEXTSxTOKENS", type=_pair, default=(32, 128), help="(default: 32x128)"
    )
    add_backends_option(parser)
    add_peers_option(parser)
    add_measuring_options(parser)


def run_ops(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench import ops
    from npbert.bench.peers.torch_ops import PEERS
    from npbert.cli.bench import selected
    from npbert.cli.bench_report import show

    names = selected(list(ops.CASES), arguments.op, "--op")
    peers, missing = _peers(arguments, PEERS)
    backends = arguments.backend or ["cpu"]
    comparisons: list[Comparison] = []
    with _measuring(arguments, peers) as (threads, machine):
        for size in ops.SIZES:
            if arguments.size is None or size.name in arguments.size:
                comparisons += ops.compare_ops(
                    size, names, backends, peers, arguments.rounds, threads, *arguments.batch
                )
    return show("ops", arguments, machine, comparisons, missing, one_table_each="size")


# --- tokenizer ------------------------------------------------------------------------------------------

TOKENIZER_DESCRIPTION = """\
Measure how many tokens a second the tokenizer makes on one core, of words met
for the first time and of words met before, against the tokenizers library."""

TOKENIZER_EXAMPLES = """\
npbert bench tokenizer
npbert bench tokenizer --texts reviews.csv.bz2 --count 13905 --model ./bert-base-uncased"""

DEFAULT_TOKENIZED: Final = 2000


def add_tokenizer_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench tokenizer``."""
    add_encoder_option(parser)
    add_texts_options(parser, DEFAULT_TOKENIZED)
    add_peers_option(parser)
    add_measuring_options(parser, threads=False)


def run_tokenizer(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench import tokenizing
    from npbert.checkpoint import transformer_directory
    from npbert.cli.bench_report import METHOD_ALONE, show

    peers, missing = _peers(arguments, tokenizing.PEERS)
    directory = transformer_directory(model_directory(arguments.model))
    texts, _ = read_chosen_texts(arguments)
    with _measuring(arguments, peers) as (_, machine):
        comparisons = list(tokenizing.compare_tokenizers(directory, texts, peers, arguments.rounds))
    return show("tokenizer", arguments, machine, comparisons, missing, METHOD_ALONE)


# --- import ---------------------------------------------------------------------------------------------

IMPORT_DESCRIPTION = """\
Measure `import npbert` next to `import numpy`, which it cannot do without, and
next to what the peers' imports take: in fresh interpreters, in turns."""

IMPORT_EXAMPLES = """\
npbert bench import
npbert bench import --rounds 31 --peer none --json"""

IMPORT_ROUNDS: Final = 15


def add_import_options(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``npbert bench import``."""
    add_peers_option(parser)
    add_measuring_options(parser, IMPORT_ROUNDS, threads=False)


def run_import(arguments: argparse.Namespace) -> int:
    """Measure and show."""
    from npbert.bench import imports
    from npbert.cli.bench_report import METHOD_ALONE, show

    peers, missing = _peers(arguments, imports.PEERS)
    with _measuring(arguments, peers) as (_, machine):
        comparisons = list(imports.compare_imports(arguments.rounds, [peer.name for peer in peers]))
    return show("import", arguments, machine, comparisons, missing, METHOD_ALONE)


# --- what they share ------------------------------------------------------------------------------------


def add_texts_options(parser: argparse.ArgumentParser, count: int | None = None) -> None:
    """Declare ``--texts``, ``--column``, ``--where`` and, if there is a default of it, ``--count``."""
    parser.add_argument(
        "--texts",
        metavar="FILE",
        type=Path,
        help="UTF-8, a text a line, or a .csv, or one of these as .bz2 (default: the reviews in "
        "$NPBERT_CORPORA, else texts made of npbert's documentation)",
    )
    parser.add_argument("--column", default="text", metavar="NAME", help="of a .csv (default: text)")
    parser.add_argument(
        "--where",
        type=_column_and_value,
        metavar="COLUMN=VALUE",
        help="only these rows of a .csv: category=plot",
    )
    if count is not None:
        parser.add_argument(
            "--count",
            type=positive,
            default=count,
            metavar="N",
            help=f"use so many texts, from all over the file (default: {count})",
        )


def _column_and_value(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not column or not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is no column and value, such as category=plot")
    return column, value


def read_chosen_texts(arguments: argparse.Namespace, count: int | None = None) -> tuple[list[str], str]:
    """Return the texts that the command line asks for, and what to call them."""
    from npbert.bench.texts import CORPUS, read_texts, sample_texts, spread

    count = count or arguments.count
    path = arguments.texts
    corpora = os.environ.get("NPBERT_CORPORA")
    if path is None and corpora is not None and (Path(corpora) / CORPUS).exists():
        path = Path(corpora) / CORPUS
    if path is None:
        if arguments.where is not None:
            raise CommandError("--where chooses rows of a .csv, and no --texts is given")
        return sample_texts(count), "npbert's documentation"
    try:
        return spread(read_texts(path, arguments.column, arguments.where), count), path.name
    except UnicodeDecodeError as error:
        raise CommandError(f"{path}: byte {error.start} is not UTF-8") from None


def model_directory(source: str | None) -> Path:
    """Return the directory of the model that the command line asks for."""
    from npbert.checkpoint import find_installed_model
    from npbert.checkpoint.source import find_directory

    if source is not None:
        return find_directory(source)
    installed = find_installed_model()
    if installed is None:
        raise CommandError(f"no model: give --model DIR, or install one: {HOW_TO_INSTALL_WEIGHTS}")
    return installed


def _peers(arguments: argparse.Namespace, peers: Iterable["Peer"]) -> tuple[list["Peer"], dict[str, str]]:
    """Return the peers that were asked for and can take part, and what to install for the others."""
    from npbert.bench.peers import split_by_presence
    from npbert.cli.bench import selected

    named = {peer.name: peer for peer in peers}
    if arguments.peer == ["none"]:
        return [], {}
    return split_by_presence([named[name] for name in selected(list(named), arguments.peer, "--peer")])


@contextmanager
def _measuring(
    arguments: argparse.Namespace, peers: Iterable["Peer"]
) -> Generator[tuple[int, "Machine"], None, None]:
    """Give NumPy the threads that were asked for; yield how many, and what this runs on."""
    from npbert.bench.machine import describe_machine, threads_of_numpy
    from npbert.cpu.workers import usable_cpus

    threads = arguments.threads or usable_cpus()
    packages = sorted({package for peer in peers for package in peer.packages})
    with threads_of_numpy(threads):
        yield threads, describe_machine(threads, packages)


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
    "training": Benchmark(
        add_training_options,
        run_training,
        "the loss and all gradients of a batch, against transformers",
        TRAINING_DESCRIPTION,
        TRAINING_EXAMPLES,
    ),
    "ops": Benchmark(
        add_ops_options,
        run_ops,
        "op by op, forward and backward, against PyTorch",
        OPS_DESCRIPTION,
        OPS_EXAMPLES,
    ),
    "tokenizer": Benchmark(
        add_tokenizer_options,
        run_tokenizer,
        "tokens a second, against the tokenizers library",
        TOKENIZER_DESCRIPTION,
        TOKENIZER_EXAMPLES,
    ),
    "import": Benchmark(
        add_import_options,
        run_import,
        "the time of `import npbert`, against NumPy's and the peers'",
        IMPORT_DESCRIPTION,
        IMPORT_EXAMPLES,
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
