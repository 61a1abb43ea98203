"""Real texts, where the environment variable NPBERT_CORPORA says that there are some."""

import bz2
import csv
import io
from pathlib import Path

REVIEWS = "rotten_tomatoes_corpus_full.csv.bz2"


def read_reviews(directory: Path, count: int) -> list[str]:
    """Return ``count`` of the Rotten Tomatoes texts, spread over the whole corpus."""
    text = bz2.decompress((directory / REVIEWS).read_bytes()).decode("utf-8")
    texts = [row["text"] for row in csv.DictReader(io.StringIO(text, newline=""))]
    return [texts[index * len(texts) // count] for index in range(count)]
