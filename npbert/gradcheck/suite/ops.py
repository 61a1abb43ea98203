"""Cases for the ops: awkward sizes, padding, masks, repeated ids, ignored labels, extreme logits."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from npbert import ops
from npbert.gradcheck.pair import Array
from npbert.gradcheck.suite.case import Case, Problem, held_row, normal, with_zeros
from npbert.ops.activations import ACTIVATIONS


def linear(rng: np.random.Generator, has_bias: bool) -> Problem:
    """A stack of rows, and a weight of which some entries are zero."""
    bias = normal(rng, 7) if has_bias else None
    args = (normal(rng, 2, 3, 31), with_zeros(rng, 7, 31), bias)
    return Problem(ops.linear_forward, ops.linear_backward, args)


def layernorm(rng: np.random.Generator, eps: float) -> Problem:
    """Rows of very different means and spreads; one is nearly constant, where eps decides."""
    x = normal(rng, 2, 3, 31)
    x *= np.array([0.01, 1.0, 30.0], dtype=np.float32)[:, None]
    x += np.array([[1.0], [-3.0], [0.0]], dtype=np.float32)
    args = (x, with_zeros(rng, 31), normal(rng, 31), eps)
    return Problem(ops.layernorm_forward, ops.layernorm_backward, args)


def _over_the_tails(rng: np.random.Generator) -> Array:
    return rng.uniform(-12, 12, (3, 31)).astype(np.float32)


def gelu(rng: np.random.Generator, form: str) -> Problem:
    """Both tails, where a gelu written as x (1 + erf) / 2 has lost all digits."""
    return Problem(ops.gelu_forward, ops.gelu_backward, (_over_the_tails(rng), form))


def activation(rng: np.random.Generator, name: str) -> Problem:
    """Both tails and every piece of the piecewise ones."""
    return Problem(ops.activation_forward, ops.activation_backward, (_over_the_tails(rng), name))


def _logits(rng: np.random.Generator, rows: int, classes: int) -> Array:
    """Draw ordinary logits, then one row of huge ones and one of equal ones."""
    logits = normal(rng, rows, classes)
    logits[0] *= 1e4
    logits[1] = 0.5
    return logits


def softmax(rng: np.random.Generator) -> Problem:
    """Huge and equal logits, masked classes, and a row that is masked altogether."""
    mask = rng.random((5, 7)) < 0.7
    mask[:4, 0] = True
    mask[4] = False
    return Problem(ops.softmax_forward, ops.softmax_backward, (_logits(rng, 5, 7), mask))


def _key_mask(texts: int, tokens: int) -> Array:
    """Return a mask of texts of falling length; the last one has no token at all."""
    lengths = np.linspace(tokens, 0, texts).astype(int)
    return np.arange(tokens) < lengths[:, None]


def softmax_attention(rng: np.random.Generator, everything: bool) -> Problem:
    """Two heads; with everything: a bias, padded texts, one of padding only, and dropped probabilities."""
    q, k, v = (normal(rng, 3, 2, 5, 3) for _ in range(3))
    if not everything:
        return Problem(ops.softmax_attention_forward, ops.softmax_attention_backward, (q, k, v))
    keep_mask = rng.random((3, 2, 5, 5)) < 0.8
    args = (q, k, v, normal(rng, 3, 2, 5, 5), _key_mask(3, 5), keep_mask, 0.2)
    return Problem(ops.softmax_attention_forward, ops.softmax_attention_backward, args)


def relative_position(rng: np.random.Generator, kind: str) -> Problem:
    """Fewer tokens than positions, so that some distances never occur."""
    args = (normal(rng, 2, 3, 5, 3), normal(rng, 2, 3, 5, 3), normal(rng, 13, 3), kind)
    zeros = ("k",) if kind == "relative_key" else ()  # this kind does not look at the keys
    return Problem(ops.relative_position_forward, ops.relative_position_backward, args, zeros)


def embedding(rng: np.random.Generator) -> Problem:
    """Repeated ids, ids that do not occur, and the padding id, whose row is read but gets no gradient."""
    words, positions, types = normal(rng, 11, 3), normal(rng, 9, 3), normal(rng, 3, 3)
    ids = np.array([[4, 7, 4, 0, 0], [10, 4, 2, 7, 0]])
    position_ids = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 6]])
    type_ids = np.array([[0, 0, 2, 2, 0], [0, 0, 0, 0, 2]])

    def forward(words: Array, positions: Array, types: Array) -> Any:
        constant = held_row(words, 0, original)
        return ops.embedding_forward(ids, None, position_ids, type_ids, constant, positions, types, 0)

    def backward(dy: Array, cache: Any) -> Any:
        return ops.embedding_backward(dy, cache)[1:]

    original = words.copy()
    return Problem(forward, backward, (words, positions, types))


def embedding_of_vectors(rng: np.random.Generator) -> Problem:
    """Word vectors from elsewhere and no position table: the words get no gradient."""
    ids = np.array([[0, 2, 2, 1, 0], [2, 0, 0, 0, 0]])
    args = (None, normal(rng, 2, 5, 3), ids, ids, normal(rng, 11, 3), None, normal(rng, 4, 3), 0)
    return Problem(ops.embedding_forward, ops.embedding_backward, args, ("word_embeddings",))


def dropout(rng: np.random.Generator) -> Problem:
    """A mask that drops a third."""
    keep_mask = ops.dropout_keep_mask((3, 5, 7), 1 / 3, int(rng.integers(2**31)), 1, 2)
    return Problem(ops.dropout_forward, ops.dropout_backward, (normal(rng, 3, 5, 7), keep_mask, 1 / 3))


def cross_entropy(rng: np.random.Generator, reduction: str) -> Problem:
    """Huge and equal logits, and ignored labels."""
    labels = rng.integers(7, size=9)
    labels[[2, 5]] = -100
    args = (_logits(rng, 9, 7), labels, -100, reduction)
    return Problem(ops.cross_entropy_forward, ops.cross_entropy_backward, args)


def cross_entropy_of_nothing(rng: np.random.Generator) -> Problem:
    """Every label ignored: the loss is 0 whatever the logits are, and so are its gradients."""
    args = (_logits(rng, 3, 7), np.full(3, -100))
    return Problem(ops.cross_entropy_forward, ops.cross_entropy_backward, args, {"logits": 1.0})


def mean_squared_error(rng: np.random.Generator, reduction: str) -> Problem:
    """Prediction and target both vary."""
    args = (normal(rng, 5, 3), normal(rng, 5, 3), reduction)
    return Problem(ops.mse_forward, ops.mse_backward, args)


def binary_cross_entropy(rng: np.random.Generator, reduction: str) -> Problem:
    """Logits of both signs, some large; targets between 0 and 1 and at both ends."""
    targets = rng.random((5, 7)).astype(np.float32)
    targets[0], targets[1] = 0, 1
    args = (normal(rng, 5, 7, scale=4.0), targets, reduction)
    return Problem(ops.bce_with_logits_forward, ops.bce_with_logits_backward, args)


def cls_pooling(rng: np.random.Generator) -> Problem:
    """The first token of each text."""
    return Problem(ops.cls_pooling_forward, ops.cls_pooling_backward, (normal(rng, 3, 5, 7),))


def mean_pooling(rng: np.random.Generator) -> Problem:
    """Texts of falling length, the last one empty."""
    args = (normal(rng, 3, 5, 7), _key_mask(3, 5))
    return Problem(ops.mean_pooling_forward, ops.mean_pooling_backward, args)


def l2_normalize(rng: np.random.Generator) -> Problem:
    """Rows of very different lengths, one of them below eps."""
    x = normal(rng, 5, 7)
    x *= np.array([0.01, 0.3, 1.0, 3.0, 100.0], dtype=np.float32)[:, None]
    return Problem(ops.l2_normalize_forward, ops.l2_normalize_backward, (x, 0.1))


def _activation_cases() -> list[Case]:
    """Return one case an activation; names that mean the same function share it."""
    names: dict[int, str] = {}
    for name, functions in ACTIVATIONS.items():
        names.setdefault(id(functions), name)
    return [Case(f"activation {name}", partial(activation, name=name)) for name in names.values()]


def _variants(name: str, draw: Callable[..., Problem], option: str, values: dict[str, Any]) -> list[Case]:
    """Return one case for each value of an option, under ``"name (key)"``."""
    return [Case(f"{name} ({key})", partial(draw, **{option: value})) for key, value in values.items()]


_REDUCTIONS = {"mean": "mean", "sum": "sum"}

CASES = (
    *_variants("linear", linear, "has_bias", {"bias": True, "no bias": False}),
    *_variants("layernorm", layernorm, "eps", {"eps 1e-12": 1e-12, "eps 0.3": 0.3}),
    *_variants("gelu", gelu, "form", {"erf": "erf", "tanh": "tanh"}),
    *_activation_cases(),
    Case("softmax (mask)", softmax),
    *_variants(
        "softmax attention", softmax_attention, "everything", {"plain": False, "bias, masks, dropout": True}
    ),
    *_variants(
        "relative position",
        relative_position,
        "kind",
        {"key": "relative_key", "key and query": "relative_key_query"},
    ),
    Case("embedding (ids)", embedding),
    Case("embedding (vectors)", embedding_of_vectors),
    Case("dropout", dropout),
    *_variants("cross-entropy", cross_entropy, "reduction", _REDUCTIONS),
    Case("cross-entropy (nothing labelled)", cross_entropy_of_nothing),
    *_variants("mean squared error", mean_squared_error, "reduction", _REDUCTIONS),
    *_variants("binary cross-entropy", binary_cross_entropy, "reduction", _REDUCTIONS),
    Case("CLS pooling", cls_pooling),
    Case("mean pooling (mask)", mean_pooling),
    Case("L2 normalisation", l2_normalize),
)
