"""``npbert search``: the lines of a file that are closest in meaning to a query."""

import argparse
import json
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.cli.arguments import add_command, add_json, positive
from npbert.cli.console import Column, printable, say, table
from npbert.cli.errors import OK, CommandError, UsageError
from npbert.cli.models import add_backend_option, add_encoder_option, load_encoder
from npbert.cli.texts import name_of, read_lines

DESCRIPTION = """\
Rank the lines of a file by how close they are in meaning to a query: by the
cosine of the angle between their vectors, from -1 to 1. Lines without text are
passed over."""

EXAMPLES = """\
npbert search reviews.txt "a touching story"
npbert search reviews.txt "too long" "well acted" --top-k 10 --json"""


class Match(NamedTuple):
    """One text that a search found: its place among the texts, from 0, and its cosine with the query."""

    position: int
    score: float


def add_parser(commands: Any) -> None:
    """Declare the command."""
    parser = add_command(
        commands,
        "search",
        run,
        summary="find the lines of a file that mean what a query says",
        description=DESCRIPTION,
        examples=EXAMPLES,
    )
    parser.add_argument("corpus", metavar="CORPUS", help="texts, UTF-8, one a line; - for the standard input")
    parser.add_argument("queries", metavar="QUERY", nargs="+", help="what to look for")
    parser.add_argument(
        "--top-k", type=positive, default=5, metavar="K", help="lines to show for each query (default: 5)"
    )
    add_encoder_option(parser)
    add_backend_option(parser)
    add_json(parser)


def run(arguments: argparse.Namespace) -> int:
    """Encode corpus and queries, rank, and print."""
    for number, query in enumerate(arguments.queries, start=1):
        if not query.strip():
            raise UsageError(f"query {number} is empty")
    lines = read_lines(arguments.corpus)
    numbers = [number for number, line in enumerate(lines, start=1) if line.strip()]
    texts = [lines[number - 1] for number in numbers]
    if not texts:
        raise CommandError(f"{name_of(arguments.corpus)}: all lines are empty; there is nothing to search")
    bert = load_encoder(arguments.model, backend=arguments.backend)
    vectors = bert.encode(texts, progress=True)
    matches = best_matches(bert.encode(arguments.queries), vectors, arguments.top_k)

    if arguments.json:
        print(json.dumps(_as_json(arguments, numbers, texts, matches), indent=2))
        return OK
    columns = [Column("score", "right"), Column("line", "right"), Column("text", wraps=True)]
    for number, (query, found) in enumerate(zip(arguments.queries, matches, strict=True)):
        if number > 0:
            say()
        say(printable(query), "strong")
        rows = [
            (f"{match.score:.3f}", str(numbers[match.position]), texts[match.position]) for match in found
        ]
        table(columns, rows)
    return OK


def best_matches(queries: NDArray[Any], texts: NDArray[Any], top_k: int) -> list[list[Match]]:
    """Rank texts by the cosine of their vectors with those of queries.

    Parameters
    ----------
    queries : (Q, D) floating
    texts : (n, D) floating
    top_k : int
        How many texts to return for each query, if there are as many.

    Returns
    -------
    list of list of Match
        For each query, the best first; of equal ones, the first in the order of the texts.

    Examples
    --------
    >>> best_matches(np.array([[2.0, 0.0]]), np.array([[0.0, 1.0], [3.0, 4.0]]), top_k=1)
    [[Match(position=1, score=0.6)]]
    """
    scores = _unit(queries) @ _unit(texts).T  # (Q, n)
    order = np.argsort(-scores, axis=-1, kind="stable")[:, :top_k]  # (Q, k)
    return [
        [Match(int(position), float(scores[row, position])) for position in order[row]]
        for row in range(len(scores))
    ]


def _unit(vectors: NDArray[Any]) -> NDArray[Any]:
    """Scale each row to length 1, and leave a row of zeros as it is."""
    lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def _as_json(
    arguments: argparse.Namespace, numbers: list[int], texts: list[str], matches: list[list[Match]]
) -> dict[str, Any]:
    queries = [
        {
            "query": query,
            "results": [
                {"score": match.score, "line": numbers[match.position], "text": texts[match.position]}
                for match in found
            ],
        }
        for query, found in zip(arguments.queries, matches, strict=True)
    ]
    return {"corpus": arguments.corpus, "texts": len(texts), "queries": queries}
