"""``npbert bench inference``: texts to vectors, in bulk and one by one."""

import json
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.bench.comparison import FLOOR, Comparison
from npbert.bench.contest import Contender, contest
from npbert.bench.floor import Floor, chunks_of, forward_products
from npbert.bench.machine import threads_of_numpy
from npbert.bench.memory import peak_bytes_of
from npbert.bench.peers import Peer
from npbert.bench.peers.sentence_encoders import PEERS, Checkpoint, Encode
from npbert.bench.texts import text_of_length
from npbert.bert import Bert
from npbert.checkpoint import read_pooling, transformer_directory
from npbert.loading import load

Array = NDArray[Any]

LATENCY_TOKENS: Final = (16, 128)
CHECKED_TEXTS: Final = 16  # the longest, the shortest, and between
TOLERANCE: Final = 1e-5  # of the largest element; different sums in float32 differ by 2e-7
MIN_SECONDS: Final = 0.1  # of one contender in one round of the latency


class Setting(NamedTuple):
    """What is loaded once: a model, as npbert's engines and as the peers'.

    Attributes
    ----------
    engines : dict of str to Bert
        By name, such as "npbert cpu"; the first is what the others are compared with.
    textbook : Bert
        The textbook in float64, which decides who is right.
    peers : dict of str to callable
    failures : dict of str to str
        Peers that could not be prepared, and why.
    """

    engines: dict[str, Bert]
    textbook: Bert
    peers: dict[str, Encode]
    failures: dict[str, str]


def prepare(
    directory: Path, backends: Sequence[str], peers: Sequence[Peer], threads: int, invariance: bool = False
) -> Setting:
    """Load a checkpoint into npbert's engines and into peers.

    With ``invariance`` the first engine is a peer of its own, with `batch_invariant` on, and off.
    """
    engines = {f"npbert {name}": load(directory, task="encoder", backend=name) for name in backends}
    textbook = load(directory, task="encoder", dtype=np.float64, backend="reference")
    checkpoint = _checkpoint(directory, textbook.max_tokens, threads)
    encoders: dict[str, Encode] = {}
    if invariance:
        name, bert = next(iter(engines.items()))
        for setting in (True, False):
            encoders[f"{name}, batch_invariant={setting}"] = partial(bert.encode, batch_invariant=setting)
    failures: dict[str, str] = {}
    for peer in peers:
        try:
            encoders[peer.name] = _build(peer, checkpoint)
        except Exception as error:  # of a library: the others can still be compared
            failures[peer.name] = f"{type(error).__name__}: {error}"
    return Setting(engines, textbook, encoders, failures)


def compare_encoders(
    setting: Setting, texts: Sequence[str], rounds: int, peaks: Mapping[str, int] | None = None
) -> Comparison:
    """Compare the time from texts to vectors.

    Parameters
    ----------
    setting : Setting
    texts : sequence of str
    rounds : int
    peaks : mapping of str to int, optional
        From `peak_memory`.
    """
    lengths = token_counts(setting.textbook, texts)
    facts = {"texts": len(texts), "tokens": sum(lengths), "longest": max(lengths), "layers": _layers(setting)}
    title = f"{len(texts)} texts, mean {sum(lengths) / len(texts):.0f} tokens, longest {max(lengths)}"
    comparison = _compare(setting, title, facts, texts, rounds, min_seconds=0.0)
    return comparison._replace(peak_bytes=dict(peaks or {}))


def compare_latencies(setting: Setting, rounds: int) -> Iterator[Comparison]:
    """Compare the time for a single text, of 16 and of 128 tokens."""
    tokenizer = setting.textbook.tokenizer
    assert tokenizer is not None
    for tokens in LATENCY_TOKENS:
        if tokens > setting.textbook.max_tokens:
            continue
        text = text_of_length(tokenizer, tokens)
        facts = {"texts": 1, "tokens": tokens, "layers": _layers(setting)}
        yield _compare(setting, f"1 text, {tokens} tokens", facts, [text], rounds, MIN_SECONDS)


def peak_memory(
    directory: Path, contenders: Sequence[str], texts: Sequence[str], threads: int
) -> dict[str, int]:
    """Return the peak memory of encoding some texts, by contender, each in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "texts.json"
        path.write_text(json.dumps(list(texts)), encoding="utf-8")
        return {
            name: peak_bytes_of(
                "npbert.bench.inference:encode_once",
                directory=str(directory),
                contender=name,
                texts=str(path),
                threads=threads,
            )
            for name in contenders
        }


def encode_once(directory: str, contender: str, texts: str, threads: int) -> None:
    """Encode the texts of a file, for the memory of it."""
    lines = json.loads(Path(texts).read_text(encoding="utf-8"))
    with threads_of_numpy(threads):
        if contender.startswith("npbert "):
            load(directory, task="encoder", backend=contender.removeprefix("npbert ")).encode(lines)
            return
        checkpoint = _checkpoint(Path(directory), load(directory, task="encoder").max_tokens, threads)
        [peer] = [peer for peer in PEERS if peer.name == contender]
        _build(peer, checkpoint)(lines)


def token_counts(bert: Bert, texts: Sequence[str]) -> list[int]:
    """Return how many tokens of each text the model sees."""
    assert bert.tokenizer is not None
    return [len(row) for row in bert.tokenizer.encode_ids(list(texts), max_length=bert.max_tokens)]


def _compare(
    setting: Setting,
    title: str,
    facts: dict[str, Any],
    texts: Sequence[str],
    rounds: int,
    min_seconds: float,
) -> Comparison:
    lengths = token_counts(setting.textbook, texts)
    floor = Floor([forward_products(setting.textbook.config, chunk) for chunk in chunks_of(lengths)])
    check = VectorCheck(setting.textbook, texts, lengths)
    encoders: dict[str, Encode] = {name: bert.encode for name, bert in setting.engines.items()}
    contenders = [
        Contender(name, partial(encode, texts), check) for name, encode in (encoders | setting.peers).items()
    ]
    contenders.append(Contender(FLOOR, floor.run))
    return Comparison(
        title=title,
        facts=facts,
        outcomes=tuple(contest(contenders, rounds, min_seconds)),
        base=next(iter(setting.engines)),
        tokens=sum(lengths),
        flops=floor.flops,
    )


class VectorCheck:
    """Tells whether vectors are those of the textbook, on some of the texts."""

    def __init__(self, textbook: Bert, texts: Sequence[str], lengths: Sequence[int]) -> None:
        order = np.argsort(lengths, kind="stable")
        picked = np.unique(np.linspace(0, len(texts) - 1, CHECKED_TEXTS).round().astype(int))
        self._rows = order[picked]
        self._expected = textbook.encode([texts[row] for row in self._rows])
        self._shape = (len(texts), textbook.config.hidden_size)

    def __call__(self, vectors: Any) -> str:
        """Return what is wrong with the vectors of all texts, "" for nothing."""
        found = np.asarray(vectors)
        if found.shape != self._shape:
            return f"wrong: the shape is {found.shape}, not {self._shape}"
        if not np.isfinite(found).all():
            return "wrong: not all numbers are finite"
        error = np.abs(found[self._rows] - self._expected).max() / np.abs(self._expected).max()
        return f"wrong: off by {error:.1e} of the largest element" if error > TOLERANCE else ""


def _layers(setting: Setting) -> int:
    return setting.textbook.config.num_hidden_layers


def _checkpoint(directory: Path, max_tokens: int, threads: int) -> Checkpoint:
    return Checkpoint(directory, read_pooling(directory), max_tokens, threads)


def _build(peer: Peer, checkpoint: Checkpoint) -> Encode:
    # sentence-transformers reads all of the checkpoint, the others the BERT in it.
    if peer.name != "sentence-transformers":
        checkpoint = checkpoint._replace(directory=transformer_directory(checkpoint.directory))
    encode: Encode = peer.build(checkpoint)
    return encode
