"""Measure how many tokens a second the tokenizer makes on one core.

    python benchmarks/bench_tokenizer.py --vocab MODEL_DIRECTORY --corpus reviews.csv.bz2

The corpus is a text file with one text a line, or a .csv/.csv.bz2 with a header, of which one column
is read. Each repeat starts with an empty word cache, so that a figure holds for texts met for the
first time. Where the `tokenizers` library is installed it is measured too, on one thread as well.
"""

import argparse
import bz2
import csv
import importlib.util
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from npbert.tokenizer import WordPieceTokenizer


def read_texts(path: Path, column: str) -> list[str]:
    """Return the texts of a corpus."""
    data = path.read_bytes()
    if path.suffix == ".bz2":
        data, path = bz2.decompress(data), path.with_suffix("")
    lines = data.decode("utf-8").split("\n")
    if path.suffix == ".csv":
        rows = csv.DictReader(line + "\n" for line in lines)
        if column not in (rows.fieldnames or ()):
            raise SystemExit(
                f"{path} has no column {column!r}; its columns are {', '.join(rows.fieldnames or ())}"
            )
        return [row[column] for row in rows]
    return lines


def report(name: str, tokens: int, repeats: int, run: Callable[[], Callable[[], object]]) -> None:
    """Print the median and the spread of tokens a second; `run` prepares, what it returns is timed."""
    rates = []
    for _ in range(repeats):
        timed = run()
        start = time.perf_counter()
        timed()
        rates.append(tokens / (time.perf_counter() - start))
    print(f"{name:<34} {statistics.median(rates):>11,.0f} tokens/s  ({min(rates):,.0f} to {max(rates):,.0f})")


def report_peer(vocab: dict[str, int], lower: bool, texts: Sequence[str], tokens: int, repeats: int) -> None:
    """Measure the `tokenizers` library, if it is there."""
    if importlib.util.find_spec("tokenizers") is None:
        print("tokenizers is not installed; not compared")
        return
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    import tokenizers

    def new_peer() -> tokenizers.Tokenizer:
        return tokenizers.Tokenizer.from_str(
            tokenizers.BertWordPieceTokenizer(vocab, lowercase=lower).to_str()
        )

    def ids() -> Callable[[], object]:
        peer = new_peer()
        return lambda: [encoding.ids for encoding in peer.encode_batch_fast(list(texts))]

    def offsets() -> Callable[[], object]:
        peer = new_peer()
        return lambda: [(e.ids, e.offsets, e.tokens) for e in peer.encode_batch(list(texts))]

    report(f"tokenizers {tokenizers.__version__}, ids", tokens, repeats, ids)
    report(f"tokenizers {tokenizers.__version__}, ids, offsets", tokens, repeats, offsets)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="text lines, .csv or .csv.bz2")
    parser.add_argument("--vocab", type=Path, required=True, help="directory of a tokenizer (vocab.txt)")
    parser.add_argument("--column", default="text", help="column of a .csv corpus (default: text)")
    parser.add_argument("--repeats", type=int, default=5, help="times to measure (default: 5)")
    arguments = parser.parse_args()

    texts = read_texts(arguments.corpus, arguments.column)
    tokenizer = WordPieceTokenizer.from_directory(arguments.vocab)
    tokens = sum(map(len, tokenizer.encode_ids(texts, add_special_tokens=False)))
    print(f"{len(texts):,} texts, {tokens:,} tokens; median of {arguments.repeats} (least to most)")

    def ids() -> Callable[[], object]:
        fresh = WordPieceTokenizer.from_directory(arguments.vocab)
        return lambda: fresh.encode_ids(texts)

    def warm_ids() -> Callable[[], object]:
        return lambda: tokenizer.encode_ids(texts)

    def offsets() -> Callable[[], object]:
        fresh = WordPieceTokenizer.from_directory(arguments.vocab)
        return lambda: [fresh.encode(text) for text in texts]

    report("npbert, ids", tokens, arguments.repeats, ids)
    report("npbert, ids, words met before", tokens, arguments.repeats, warm_ids)
    report("npbert, ids, offsets and all", tokens, arguments.repeats, offsets)
    report_peer(tokenizer.vocab, tokenizer.do_lower_case, texts, tokens, arguments.repeats)


if __name__ == "__main__":
    main()
