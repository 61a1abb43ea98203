"""The benchmarks for asv run; asv itself is not needed."""

import inspect
import itertools
import json
from pathlib import Path

import pytest

from benchmarks.history import bert as history

CONFIGURATION = Path(history.__file__).parent.parent / "asv.conf.json"
TIMED = ("time_", "peakmem_")
CLASSES = [history.Encode, history.Training, history.Textbook]
CASES = [
    pytest.param(kind, name, values, id=f"{kind.__name__}.{name}{values}")
    for kind in CLASSES
    for name, _ in inspect.getmembers(kind, inspect.isfunction)
    if name.startswith(TIMED)
    for values in itertools.product(*getattr(kind, "params", ()))
]


@pytest.mark.parametrize(("kind", "name", "values"), CASES)
def test_every_benchmark_runs(kind, name, values, monkeypatch):
    tiny = history.MINILM | {"hidden_size": 24, "num_hidden_layers": 1, "intermediate_size": 8}
    monkeypatch.setattr(history, "MINILM", tiny)
    monkeypatch.setattr(history, "TOKENS", 8)
    benchmark = kind()
    benchmark.setup(*values)
    try:
        getattr(benchmark, name)(*values)
    finally:
        benchmark.teardown(*values)


def test_texts_have_the_tokens_that_they_claim():
    benchmark = history.Encode()
    benchmark.setup(1, 16)
    benchmark.teardown()
    assert len(benchmark.bert.tokenizer.encode_ids(benchmark.texts)[0]) == 16


def test_configuration():
    configuration = json.loads(CONFIGURATION.read_text(encoding="utf-8"))
    assert (CONFIGURATION.parent / configuration["benchmark_dir"] / "bert.py").exists()
    assert (CONFIGURATION.parent / configuration["repo"] / "setup.py").exists()
