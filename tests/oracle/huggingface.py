"""transformers in float64: the same model with the same parameters, and what it computes.

Models are in eval mode with the plain ("eager") attention, so that nothing is fused. Dropout, where it is
asked for, uses npbert's masks: transformers' own cannot be drawn again in NumPy.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from fnmatch import fnmatch
from typing import Any
from unittest import mock

import numpy as np
import pytest

from npbert import Bert
from npbert.checkpoint.huggingface import ARCHITECTURES
from npbert.config import BertConfig
from npbert.ops.dropout import (
    SITE_ATTENTION_OUTPUT,
    SITE_ATTENTION_PROBS,
    SITE_CLASSIFIER,
    SITE_EMBEDDING,
    SITE_FEED_FORWARD_OUTPUT,
    dropout_keep_mask,
)
from tests.models import structural_zeros

torch = pytest.importorskip("torch", reason="torch is not installed (the extra 'oracle' has it)")
transformers = pytest.importorskip(
    "transformers", reason="transformers is not installed (the extra 'oracle' has it)"
)
torch.set_num_threads(1)
transformers.logging.set_verbosity_error()

# What transformers has of npbert's fields. (Position embeddings are absolute there, and nothing else.)
CONFIG_FIELDS = (
    "vocab_size",
    "hidden_size",
    "num_hidden_layers",
    "num_attention_heads",
    "intermediate_size",
    "hidden_act",
    "hidden_dropout_prob",
    "attention_probs_dropout_prob",
    "max_position_embeddings",
    "type_vocab_size",
    "layer_norm_eps",
    "pad_token_id",
    "classifier_dropout",
    "tie_word_embeddings",
    "num_labels",
    "problem_type",
)


def build(config: BertConfig, task: str, params: Mapping[str, np.ndarray]) -> Any:
    """Return the transformers model of a task, holding these parameters."""
    fields = {name: getattr(config, name) for name in CONFIG_FIELDS}
    peer_config = transformers.BertConfig(**fields, attn_implementation="eager")
    model = getattr(transformers, ARCHITECTURES[task])(peer_config).double().eval()
    own = dict(model.named_parameters())
    assert set(own) == set(params), f"other parameters: {set(own) ^ set(params)}"
    with torch.no_grad():
        for name, value in params.items():
            own[name].copy_(torch.tensor(value))
    return model


def run(
    model: Any,
    arguments: Mapping[str, Any],
    past_key_values_length: int = 0,
    dropout_seed: int | None = None,
    **wanted: bool,
) -> Any:
    """Run a model on NumPy arrays; ``wanted`` are flags such as ``output_attentions``."""
    tensors = {name: torch.tensor(value) for name, value in arguments.items()}
    with _positions_from(model, past_key_values_length), _dropout(model, dropout_seed):
        return model(**tensors, **wanted)


def loss_and_grads(model: Any, arguments: Mapping[str, Any], **options: Any) -> tuple[float, dict]:
    """Return the loss and the gradient of every parameter, None for one that was not used."""
    model.zero_grad()
    loss = run(model, arguments, **options).loss
    loss.backward()
    return loss.item(), {
        name: None if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in model.named_parameters()
    }


@contextmanager
def _positions_from(model: Any, start: int) -> Iterator[None]:
    """Let the embeddings count positions from ``start``, which only decoders ask them for."""
    embeddings = model.embeddings if hasattr(model, "embeddings") else model.bert.embeddings
    own_forward = embeddings.forward

    def forward(**arguments: Any) -> Any:
        assert arguments["past_key_values_length"] == 0
        return own_forward(**arguments | {"past_key_values_length": start})

    with mock.patch.object(embeddings, "forward", forward):
        yield


@contextmanager
def _dropout(model: Any, seed: int | None) -> Iterator[None]:
    """Train mode with npbert's masks, in the order in which the model asks for them."""
    if seed is None:
        yield
        return
    config = model.config
    hidden, attention = config.hidden_dropout_prob, config.attention_probs_dropout_prob
    places = [(0, SITE_EMBEDDING, hidden)]
    for layer in range(config.num_hidden_layers):
        places += [(layer, SITE_ATTENTION_PROBS, attention)]
        places += [(layer, SITE_ATTENTION_OUTPUT, hidden), (layer, SITE_FEED_FORWARD_OUTPUT, hidden)]
    if hasattr(model, "dropout"):
        places += [(0, SITE_CLASSIFIER, model.dropout.p)]
    asked = iter(places)

    def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
        layer, site, rate = next(asked)
        assert training and not inplace and p == rate, f"site {site} of layer {layer}: {p}, expected {rate}"
        keep = dropout_keep_mask(tuple(x.shape), rate, seed, layer, site)
        return x * torch.tensor(keep) / (1 - rate)

    model.train()
    try:
        with mock.patch("torch.nn.functional.dropout", dropout):
            yield
    finally:
        model.eval()
    assert next(asked, None) is None, "the model has fewer places with dropout than npbert"


def relative_error(actual: Any, expected: Any, scale: float | None = None) -> float:
    """The largest difference over the largest expected magnitude, or over ``scale``.

    Infinite, never NaN, where something is not finite.
    """
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if not (np.isfinite(actual).all() and np.isfinite(expected).all()):
        return np.inf
    scale = np.abs(expected).max() if scale is None else scale
    assert scale > 0, "a comparison with zeros proves nothing"
    return float(np.abs(actual - expected).max() / scale)


def gradient_errors(
    config: BertConfig, task: str, grads: Mapping[str, np.ndarray], expected: Mapping[str, Any]
) -> dict[str, float]:
    """Return the relative error of each gradient.

    A structural zero is measured against the gradient of a weight beside it. A parameter that torch did not
    use must have a gradient of exactly 0.
    """
    assert set(grads) == set(expected)
    errors = {}
    for name, want in expected.items():
        if want is None:
            errors[name] = 0.0 if not np.any(grads[name]) else np.inf
        elif any(fnmatch(name, pattern) for pattern in structural_zeros(config, task)):
            # The key's own weight has no gradient either where there is one token to look at.
            neighbour = name.replace("key.bias", "value.weight").replace("bias", "weight")
            errors[name] = relative_error(grads[name], want, scale=np.abs(expected[neighbour]).max())
        else:
            errors[name] = relative_error(grads[name], want)
    return errors


def loss_and_gradient_errors(
    config: BertConfig,
    task: str,
    params: Mapping[str, np.ndarray],
    arguments: Mapping[str, Any],
    **options: Any,
) -> dict[str, float]:
    """Run npbert and transformers; return the relative error of the loss and of each gradient."""
    loss, grads = Bert(config, params, task=task).loss_and_grads(**arguments, **options)
    model = build(config, task, params)
    expected_loss, expected = loss_and_grads(model, arguments, **options)
    assert any(want is not None for want in expected.values())
    return {"loss": relative_error(loss, expected_loss)} | gradient_errors(config, task, grads, expected)
