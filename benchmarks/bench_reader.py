"""How much memory reading a corpus takes, by the size of the corpus.

    python benchmarks/bench_reader.py [--megabytes 1 32 1024] [--stages documents blocks batches]
                                      [--shapes documents "one document" "one line"] [--buffer-tokens 131072]

Corpora of made-up words are written to a temporary folder, one after another. Of each a process of its own
reads everything, and the most memory that it took is printed, Python and NumPy included:

documents   npbert.data.documents: the text
blocks      npbert.data.blocks: token ids, as many at a time as the buffer holds
batches     npbert.data.pretraining.PretrainingData: one epoch of masked pairs

A corpus that fits into the buffer takes less: with 131,072 tokens that is one of less than a megabyte, with
the 2**20 that PretrainingData has by default one of about four. The tokenizer remembers words, up to 131,072.
A gigabyte is read in seconds; to tokenize it takes minutes.
"""

import argparse
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Final

import numpy as np

from npbert.bench.memory import peak_bytes_of

MEGABYTE: Final = 1 << 20
SHAPES: Final = ("documents", "one document", "one line")
STAGES: Final = ("documents", "blocks", "batches")
WORDS: Final = 30_000
KNOWN_WORDS: Final = 8_000  # are one token each; the others are spelled
LETTERS: Final = "abcdefghijklmnopqrstuvwxyz"


@cache
def words() -> list[str]:
    """Return made-up words of two to nine letters."""
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list(LETTERS), size=rng.integers(2, 10))) for _ in range(WORDS)]


def sentences(megabyte: int) -> Iterator[str]:
    """Make about a megabyte of sentences of 4 to 30 words, each the rarer the later it is in the list."""
    rng = np.random.default_rng(megabyte)
    drawn = (WORDS ** rng.random(200_000)).astype(int) - 1  # as Zipf has it: P(rank) ~ 1 / rank
    text = [words()[word] for word in drawn]
    start = 0
    while start < len(text):
        end = start + int(rng.integers(4, 31))
        yield " ".join(text[start:end]) + "."
        start = end


def write_corpus(path: Path, megabytes: int, shape: str) -> None:
    """Write a corpus: documents of twelve sentences, or all in one, or all in one line."""
    between_sentences, between_documents = (" ", " ") if shape == "one line" else ("\n", "\n")
    if shape == "documents":
        between_documents = "\n\n"
    pool = []
    for number in range(min(megabytes, 16)):  # larger corpora repeat these
        some = list(sentences(number))
        documents = [between_sentences.join(some[start : start + 12]) for start in range(0, len(some), 12)]
        pool.append((between_documents.join(documents) + between_documents).encode())
    size = 0
    with path.open("wb") as file:
        while size < megabytes * MEGABYTE:
            size += file.write(pool[size // MEGABYTE % len(pool)][: megabytes * MEGABYTE - size])


def read(stage: str, path: str, buffer_tokens: int) -> None:
    """Read a whole corpus: what is measured."""
    from npbert.data.blocks import read_blocks
    from npbert.data.documents import read_documents
    from npbert.data.pretraining import PretrainingData
    from npbert.tokenizer import WordPieceTokenizer

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "."]
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    tokenizer = WordPieceTokenizer(list(dict.fromkeys([*special, *pieces, *words()[:KNOWN_WORDS]])))
    if stage == "documents":
        stream: Iterator[object] = read_documents([Path(path)])
    elif stage == "blocks":
        stream = read_blocks([Path(path)], tokenizer, block_tokens=buffer_tokens, sentence_tokens=62)
    else:
        stream = PretrainingData(path, tokenizer, buffer_tokens=buffer_tokens).one_pass()
    for _ in stream:
        pass


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__.split("\n")[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument("--megabytes", type=int, nargs="+", default=[1, 32, 1024], help="sizes of corpora")
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=list(STAGES), help="what to measure")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["documents"], help="of the corpora")
    parser.add_argument("--buffer-tokens", type=int, default=1 << 17, help="of blocks and batches")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return the exit status."""
    options = parse(arguments)
    # The process that is measured finds this file as a module.
    here = [str(Path(__file__).resolve().parent), os.environ.get("PYTHONPATH", "")]
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, here))
    print(f"{'corpus':>9}  {'shape':<12}  {'stage':<9}  {'peak':>7}  {'seconds':>7}")
    for shape in options.shapes:
        for megabytes in options.megabytes:
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / "corpus.txt"
                write_corpus(path, megabytes, shape)
                for stage in options.stages:
                    start = time.perf_counter()
                    peak = peak_bytes_of(
                        "bench_reader:read", stage=stage, path=str(path), buffer_tokens=options.buffer_tokens
                    )
                    seconds = time.perf_counter() - start
                    row = f"{megabytes:>6} MB  {shape:<12}  {stage:<9}"
                    print(f"{row}  {peak / MEGABYTE:4.0f} MB  {seconds:7.1f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
