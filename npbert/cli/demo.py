"""``npbert demo``: gradients proven, a tiny BERT trained with them, trained models at work; in a minute."""

import argparse
import time
from typing import TYPE_CHECKING, Any, Final

from npbert.checkpoint import find_installed_model
from npbert.checkpoint.shipped import NPBERT_TINY
from npbert.checkpoint.source import INSTALLED_MODEL
from npbert.cli import tiny_bert
from npbert.cli.arguments import add_command, add_seed
from npbert.cli.console import Cell, Column, Styled, heading, say, table
from npbert.cli.errors import FAILED, OK
from npbert.cli.gradcheck import check_cases
from npbert.cli.models import HOW_TO_INSTALL_WEIGHTS
from npbert.cli.search import best_matches
from npbert.loading import load
from npbert.progress import progress_bar

if TYPE_CHECKING:
    from npbert.gradcheck import Report

DESCRIPTION = """\
See npbert at work, without network, in about a minute: the gradients of its
ops and layers are checked; a tiny BERT is trained with them from scratch;
npbert-tiny, which npbert has pre-trained and ships, fills gaps in sentences;
and, where real weights are installed, texts are searched by meaning. Exit code
0 means that every gradient was right and that the tiny BERT learned."""

EXAMPLES = """\
npbert demo
npbert demo --seed 7"""

# Beside every op: the parts of the model and one task. npbert gradcheck has all.
PARTS_CHECKED: Final = (
    "embeddings",
    "self-attention",
    "feed-forward",
    "encoder layer",
    "pooler",
    "masked LM (labelled tokens scored)",
)
SHARE_TO_LEARN: Final = 0.9

# Definitions in words of our own: none is in the text that npbert-tiny has read.
GAPS: Final = (
    "a piano is a musical [MASK].",
    "a rose is a [MASK] with thorns.",
    "a surgeon is a [MASK] who operates on patients.",
    "an oak is a large [MASK].",
    "a tulip is a plant with showy [MASK].",
    "a river is a large stream of [MASK].",
    "the sahara is a [MASK] in africa.",
    "huge means very [MASK].",
    "slowly means in a slow [MASK].",
)
WORDS_SHOWN: Final = 3

# The queries share no word with the sentences: only what they mean can bring them together.
SENTENCES: Final = (
    "The kitten is napping on the sofa.",
    "Interest rates went up again last week.",
    "She plays the violin in an orchestra.",
    "Our flight was delayed by a thunderstorm.",
    "The goalkeeper saved two penalties.",
    "He baked bread with his grandmother.",
    "The telescope photographed a distant galaxy.",
    "Doctors recommend eight hours of rest.",
    "The mechanic replaced the brakes of our car.",
    "Voters elected a new mayor on Sunday.",
    "The novel tells of two brothers in wartime.",
    "Heavy rain flooded the cellar.",
)
QUERIES: Final = ("young cat asleep", "borrowing money costs more", "classical music concert")

NEXT_STEPS = """\
What next:
  npbert gradcheck                         every gradient: ops, layers, tasks
  npbert fill-mask "a cat is a [MASK]."    words for a gap
  npbert search FILE "what you look for"   rank the lines of a file by meaning
  npbert embed FILE -o OUT.npy             a vector for each line of a file
  npbert --help                            all commands
  npbert/ops                               the textbook: one operation a file"""


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "demo",
        run,
        summary="see npbert at work in a minute",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    add_seed(parser, "the checks and of the training")


def run(arguments: argparse.Namespace) -> int:
    """Show the four parts; the first two must succeed."""
    from threadpoolctl import threadpool_limits

    # For matrices this small one thread is the fastest, and what it computes does not depend on their number.
    with threadpool_limits(1):
        proven = _check_gradients(arguments.seed)
        learned = _train_tiny_bert(arguments.seed)
        _fill_gaps()
        _search()
    say()
    say(NEXT_STEPS)
    return OK if proven and learned else FAILED


def _check_gradients(seed: int) -> bool:
    from npbert.gradcheck.suite import ops

    heading("1. Every backward pass, against the derivative of its forward")
    start = time.perf_counter()
    names = [*(case.name for case in ops.CASES), *PARTS_CHECKED]
    results = check_cases(names, seed)
    seconds = time.perf_counter() - start

    groups: dict[str, list[Report]] = {}
    for name, report in results:
        groups.setdefault(group_of(name), []).append(report)
    columns = [
        Column("what"),
        Column("gradients", "right"),
        Column("worst relative error", "right"),
        Column(""),
    ]
    table(columns, [_group_row(name, reports) for name, reports in groups.items()])
    say()
    unproven = [report for _, report in results if not report.ok]
    if not unproven:
        gradients = sum(len(report.tensors) for _, report in results)
        say(f"All {gradients} gradients are right, to round-off, in {seconds:.1f} s.", "good")
        return True
    for report in unproven:
        say(f"{report}\n")
    say(f"{len(unproven)} of {len(results)} checks did not pass.", "bad")
    return False


def group_of(case: str) -> str:
    """Return the line of the short table that a case belongs to.

    Examples
    --------
    >>> group_of("layernorm (eps 0.3)"), group_of("activation relu")
    ('layernorm', 'activation')
    """
    return "activation" if case.startswith("activation ") else case.partition(" (")[0]


def _group_row(name: str, reports: "list[Report]") -> list[Cell]:
    errors = [report.max_error for report in reports if report.max_error is not None]
    right = all(report.ok for report in reports)
    return [
        name,
        str(sum(len(report.tensors) for report in reports)),
        f"{max(errors):.1e}" if errors else "",
        Styled("right", "good") if right else Styled("not proven", "bad"),
    ]


def _train_tiny_bert(seed: int) -> bool:
    heading("2. A tiny BERT learns with these gradients, from nothing, to fill masks")
    losses: list[float] = []
    bert = tiny_bert.untrained_bert(seed)
    before = tiny_bert.fill_every_gap(bert)
    start = time.perf_counter()
    with progress_bar("training", total=tiny_bert.STEPS) as advance:

        def report(loss: float) -> None:
            losses.append(loss)
            advance(1, note=f"loss {loss:.3f}")

        tiny_bert.train(bert, seed, report)
    seconds = time.perf_counter() - start
    after = tiny_bert.fill_every_gap(bert)

    columns = [
        Column("sentence"),
        Column("word"),
        Column("before"),
        Column("after"),
        Column("probability", "right"),
        Column(""),
    ]
    # Of each sentence, the last word; all are counted below.
    rows = [_gap_row(*gaps) for gaps in zip(before, after, strict=True) if gaps[0].text.endswith("[MASK]")]
    table(columns, rows)
    say()
    size = sum(value.size for value in bert.params.values())
    loss = f"loss {losses[0]:.2f} to {losses[-1]:.2f}"
    say(f"{size:,} parameters, {len(losses)} steps in {seconds:.1f} s: {loss}.")
    right_before, right_after = (sum(gap.right for gap in gaps) for gaps in (before, after))
    learned = right_after >= SHARE_TO_LEARN * len(after)
    say(
        f"Right before training: {right_before} of {len(after)} masked words; after: {right_after}.",
        "good" if learned else "bad",
    )
    return learned


def _gap_row(before: tiny_bert.Gap, after: tiny_bert.Gap) -> list[Cell]:
    mark = Styled("right", "good") if after.right else Styled("wrong", "bad")
    return [after.text, after.expected, before.predicted, after.predicted, f"{after.probability:.2f}", mark]


def _fill_gaps() -> None:
    heading(f"3. Words for gaps, with {NPBERT_TINY}, which npbert has pre-trained")
    start = time.perf_counter()
    try:
        bert = load(NPBERT_TINY)
    except FileNotFoundError as error:
        say(str(error))
        return
    rows = []
    for text in GAPS:
        (words,) = bert.fill_mask(text, WORDS_SHOWN)
        rows.append([text, *(f"{word.token} {word.probability:.2f}" for word in words)])
    table([Column("text"), Column("first guess"), Column("second"), Column("third")], rows)
    say()
    size = sum(value.size for value in bert.params.values())
    seconds = time.perf_counter() - start
    say(f"{NPBERT_TINY}, {size:,} parameters, {seconds:.1f} s. Right or wrong, it is what the model says.")


def _search() -> None:
    heading("4. Search by meaning, with real weights")
    directory = find_installed_model()
    if directory is None:
        say(f"No real weights here. To see it: {HOW_TO_INSTALL_WEIGHTS}, and npbert demo again.")
        return
    start = time.perf_counter()
    bert = load(directory)
    sentences = bert.encode(SENTENCES, progress=True)
    matches = best_matches(bert.encode(QUERIES), sentences, top_k=2)
    rows = [
        (query if rank == 0 else "", f"{match.score:.2f}", SENTENCES[match.position])
        for query, found in zip(QUERIES, matches, strict=True)
        for rank, match in enumerate(found)
    ]
    table([Column("query"), Column("cosine", "right"), Column("found", wraps=True)], rows)
    say()
    seconds = time.perf_counter() - start
    say(f"{INSTALLED_MODEL}, {len(SENTENCES)} sentences, {seconds:.1f} s. No query shares a word with them.")
