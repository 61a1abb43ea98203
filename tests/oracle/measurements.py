"""What npbert claims about agreement with its peers, each claim as a measured figure and its budget.

The tests of this directory assert these figures, and benchmarks/verify_oracles.py prints them.
"""

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

import npbert
from npbert.checkpoint import find_installed_model
from tests import golden_files, models
from tests.oracle import huggingface
from tests.oracle.random_models import SHAPES, draw_problem
from tests.tolerances import (
    ENCODE_COSINE,
    ENCODE_FLOAT32,
    GRADIENT_TORCH,
    HIDDEN_STATE_REAL_WEIGHTS,
    HIDDEN_STATE_TORCH,
    SIX_DECIMALS,
)

HELLO_WORLD = (-0.034477, 0.031023, 0.006735, 0.026109, -0.039362)


class Figure(NamedTuple):
    """One claim: the error measured, and the largest that is allowed."""

    claim: str
    measured: float
    budget: float

    @property
    def holds(self) -> bool:
        """Whether it is within the budget; a NaN is not."""
        return self.measured <= self.budget


def model_directory() -> Path | None:
    """Return where the real weights are, if they are installed."""
    return find_installed_model()


# Random models ------------------------------------------------------------------------------------------


def random_models(seeds: range = range(3)) -> Figure:
    """Every loss on every shape: the worst relative error of a loss or gradient."""
    problems = [
        draw_problem(loss, shape, seed) for loss in models.LOSSES for shape in SHAPES for seed in seeds
    ]
    errors = [error for p in problems for error in huggingface.loss_and_gradient_errors(*p).values()]
    claim = f"loss and gradients, {len(problems)} random models of all tasks, {len(errors)} tensors, vs torch"
    return Figure(claim, max(errors), GRADIENT_TORCH)


def relative_positions() -> list[Figure]:
    """Relative positions against the file made with transformers 4: gradients, and everything else."""
    file = "relative_positions.safetensors"
    cases = [golden_files.read_case(file, case) for case in golden_files.case_names(file)]
    gradients = [error for case in cases for error in golden_files.gradient_errors(case).values()]
    outputs = [error for case in cases for error in golden_files.output_errors(case).values()]
    return [
        Figure("relative positions, gradients, vs transformers 4", max(gradients), GRADIENT_TORCH),
        Figure("relative positions, outputs, vs transformers 4", max(outputs), HIDDEN_STATE_TORCH),
    ]


# Real weights -------------------------------------------------------------------------------------------


def encode(model: Path, texts: list[str]) -> list[Figure]:
    """Embeddings of real texts in float32 against sentence-transformers."""
    sentence_transformers = pytest.importorskip(
        "sentence_transformers",
        reason="sentence-transformers is not installed (the extra 'oracle' has it)",
    )
    found = npbert.load(model).encode(texts)
    peer = sentence_transformers.SentenceTransformer(str(model), device="cpu")
    expected = peer.encode(texts, convert_to_numpy=True)
    assert found.dtype == expected.dtype == np.float32
    assert found.shape == expected.shape
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    norms = np.linalg.norm(found, axis=1) * np.linalg.norm(expected, axis=1)
    distance = 1 - np.sum(found * expected, axis=1) / norms
    of = f"embeddings of {len(texts):,} reviews, float32, vs sentence-transformers"
    return [
        Figure(f"{of}: largest difference", float(np.abs(found - expected).max()), ENCODE_FLOAT32),
        Figure(f"{of}: largest 1 - cosine", float(distance.max()), ENCODE_COSINE),
    ]


def hello_world(model: Path) -> Figure:
    """The first five numbers of a text that anyone can try."""
    found = npbert.load(model).encode("hello world")[:5]
    error = float(np.abs(found.astype(np.float64) - HELLO_WORLD).max())
    return Figure('"hello world", first five numbers to six decimals', error, SIX_DECIMALS)


def hidden_states(model: Path, texts: list[str]) -> list[Figure]:
    """Every hidden state and attention of a padded batch, in float64 on both sides."""
    bert = npbert.load(model, dtype=np.float64)
    assert bert.tokenizer is not None
    inputs = bert.tokenizer.batch(texts)
    assert inputs["attention_mask"].min() == 0, "no text is padded"
    wanted = {"output_hidden_states": True, "output_attentions": True}
    found = bert.forward(**inputs, **wanted)
    expected = huggingface.run(huggingface.build(bert.config, "encoder", bert.params), inputs, **wanted)
    layers = bert.config.num_hidden_layers
    texts_, tokens = inputs["input_ids"].shape
    on = f"{texts_} padded reviews of {tokens} tokens, float64, vs transformers"
    return [
        Figure(
            f"{layers + 1} hidden states, {on}: largest difference",
            _largest_difference(found.hidden_states, expected.hidden_states, layers + 1),
            HIDDEN_STATE_REAL_WEIGHTS,
        ),
        Figure(
            f"{layers} attentions, {on}: largest difference",
            _largest_difference(found.attentions, expected.attentions, layers),
            HIDDEN_STATE_REAL_WEIGHTS,
        ),
    ]


def real_weight_gradients(model: Path, texts: list[str]) -> Figure:
    """Sequence classification with a random head on the real body: every gradient."""
    encoder = npbert.load(model, dtype=np.float64)
    assert encoder.tokenizer is not None
    config = encoder.config.replace(num_labels=3, problem_type="single_label_classification")
    rng = np.random.default_rng(0)
    head = {
        "classifier.weight": 0.3 * rng.standard_normal((3, config.hidden_size)),
        "classifier.bias": rng.standard_normal(3),
    }
    arguments = encoder.tokenizer.batch(texts) | {"labels": np.arange(len(texts)) % 3}
    body = {f"bert.{name}": value for name, value in encoder.params.items()}
    errors = huggingface.loss_and_gradient_errors(config, "sequence_classification", body | head, arguments)
    claim = f"loss and gradients, {len(errors)} tensors of the real weights, float64, vs torch"
    return Figure(claim, max(errors.values()), GRADIENT_TORCH)


def _largest_difference(found: Any, expected: Any, count: int) -> float:
    assert len(found) == len(expected) == count
    differences = [np.abs(a - b.detach().numpy()).max() for a, b in zip(found, expected, strict=True)]
    return float(np.max(differences))  # a NaN stays one
