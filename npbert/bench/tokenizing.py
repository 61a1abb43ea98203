"""``npbert bench tokenizer``: tokens a second, on one core.

Each measurement starts with an empty cache of words, so that it holds for texts met for the first time; where
its name does not say otherwise.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from npbert.bench.comparison import Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.peers import Peer
from npbert.bench.peers.rust_tokenizers import PEERS
from npbert.tokenizer import WordPieceTokenizer

__all__ = ["PEERS", "compare_tokenizers"]

BASE: Final = "npbert"


class Fresh:
    """A tokenizer that is made anew before it is timed."""

    def __init__(self, make: Callable[[], Any], use: Callable[[Any], Any]) -> None:
        self._make, self._use = make, use
        self._tokenizer: Any = None

    def renew(self) -> None:
        """Make a new one."""
        self._tokenizer = self._make()

    def __call__(self) -> Any:
        """Use it."""
        return self._use(self._tokenizer)


def compare_tokenizers(
    directory: Path, texts: Sequence[str], peers: Sequence[Peer], rounds: int
) -> Iterator[Comparison]:
    """Compare tokenizers: ids alone, then ids with the offsets of each token in its text.

    Parameters
    ----------
    directory : Path
        Of a tokenizer's files.
    texts : sequence of str
    peers : sequence of Peer
    rounds : int
    """
    texts = list(texts)
    make = partial(WordPieceTokenizer.from_directory, directory)
    tokenizer = make()
    expected = tokenizer.encode_ids(texts)
    tokens = sum(map(len, expected))
    facts = {"texts": len(texts), "tokens": tokens}

    def wrong_ids(found: list[list[int]]) -> str:
        return "" if found == expected else _first_difference(found, expected)

    def wrong_encodings(found: list[Any]) -> str:
        return wrong_ids([ids for ids, _ in found])

    jobs = {
        "ids": (lambda one: one.encode_ids(texts), wrong_ids),
        "ids and offsets": (
            lambda one: [(e.ids, e.offsets) for e in map(one.encode, texts)],
            wrong_encodings,
        ),
    }
    for job, (use, check) in jobs.items():
        fresh = Fresh(make, use)
        contenders = [Contender(BASE, fresh, check, fresh.renew)]
        if job == "ids":
            warm = partial(tokenizer.encode_ids, texts)
            contenders.append(Contender("npbert, words met before", warm, check))
        for peer in peers:
            other = Fresh(*peer.build(tokenizer, texts, job))
            contenders.append(Contender(peer.name, other, check, other.renew))
        yield Comparison(
            title=f"{job}: {len(texts):,} texts, {tokens:,} tokens",
            facts=facts | {"job": job},
            outcomes=tuple(contest(contenders, rounds)),
            base=BASE,
            tokens=tokens,
        )


def _first_difference(found: Sequence[Any], expected: Sequence[Any]) -> str:
    if len(found) != len(expected):
        return f"wrong: {len(found)} texts, not {len(expected)}"
    number = next(i for i, (one, other) in enumerate(zip(found, expected, strict=True)) if one != other)
    return f"wrong: text {number} has other ids"
