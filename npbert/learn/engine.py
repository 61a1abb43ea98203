"""The operations that a learner wrote, under the names of `npbert.ops`: an engine for a whole BERT."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any

import npbert.ops
from npbert.learn.checking import Pair


def engine_of(pairs: Mapping[str, Pair]) -> ModuleType:
    """Return a module with the names of `npbert.ops`, where some operations are the learner's.

    Parameters
    ----------
    pairs : mapping of str to Pair
        The learner's functions by the names of the exercises. What is missing stays the textbook's.

    Returns
    -------
    module
        What `npbert.model` and `npbert.heads` take as ``ops``.
    """
    engine = ModuleType("npbert.learn.engine.yours", "Operations that a learner wrote.")
    names = npbert.ops.__all__
    overrides: dict[str, Callable[..., Any]] = {}
    for name in ("softmax", "cross-entropy", "layernorm", "attention"):
        if name in pairs:
            op = {"cross-entropy": "cross_entropy", "attention": "softmax_attention"}.get(name, name)
            overrides |= {f"{op}_forward": pairs[name].forward, f"{op}_backward": pairs[name].backward}
    overrides |= _linear(pairs) | _activation(pairs) | _embedding(pairs)
    vars(engine).update({name: getattr(npbert.ops, name) for name in names} | overrides)
    return engine


def _linear(pairs: Mapping[str, Pair]) -> dict[str, Callable[..., Any]]:
    """A linear layer is made of two exercises: the product, and the bias."""
    if "linear" not in pairs or "bias" not in pairs:
        return {}
    product, add_bias = pairs["linear"], pairs["bias"]

    def linear_forward(x: Any, weight: Any, bias: Any) -> Any:
        y, product_cache = product.forward(x, weight)
        if bias is None:
            return y, (product_cache, None)
        y, bias_cache = add_bias.forward(y, bias)
        return y, (product_cache, bias_cache)

    def linear_backward(dy: Any, cache: Any) -> Any:
        product_cache, bias_cache = cache
        dbias = None
        if bias_cache is not None:
            dy, dbias = add_bias.backward(dy, bias_cache)
        return (*product.backward(dy, product_cache), dbias)

    return {"linear_forward": linear_forward, "linear_backward": linear_backward}


def _activation(pairs: Mapping[str, Pair]) -> dict[str, Callable[..., Any]]:
    """GELU is the learner's; the pooler's tanh and whatever else there is stays the textbook's."""
    if "gelu" not in pairs:
        return {}
    gelu = pairs["gelu"]

    def activation_forward(x: Any, name: str) -> Any:
        y, cache = gelu.forward(x) if name == "gelu" else npbert.ops.activation_forward(x, name)
        return y, (name, cache)

    def activation_backward(dy: Any, cache: Any) -> Any:
        name, cache = cache
        return gelu.backward(dy, cache) if name == "gelu" else npbert.ops.activation_backward(dy, cache)

    return {"activation_forward": activation_forward, "activation_backward": activation_backward}


def _embedding(pairs: Mapping[str, Pair]) -> dict[str, Callable[..., Any]]:
    """BERT's embedding is the sum of three lookups."""
    if "embedding" not in pairs:
        return {}
    lookup = pairs["embedding"]

    def embedding_forward(
        input_ids: Any,
        inputs_embeds: Any,
        position_ids: Any,
        token_type_ids: Any,
        word_embeddings: Any,
        position_embeddings: Any,
        token_type_embeddings: Any,
        padding_idx: int | None,
    ) -> Any:
        y, word = inputs_embeds, None
        if input_ids is not None:
            y, word = lookup.forward(input_ids, word_embeddings, padding_idx)
        types, token_type = lookup.forward(token_type_ids, token_type_embeddings, None)
        y, position = y + types, None
        if position_embeddings is not None:
            positions, position = lookup.forward(position_ids, position_embeddings, None)
            y = y + positions
        return y, (word, position, token_type)

    def embedding_backward(dy: Any, cache: Any) -> Any:
        word, position, token_type = cache
        return (
            dy if word is None else None,
            None if word is None else lookup.backward(dy, word),
            None if position is None else lookup.backward(dy, position),
            lookup.backward(dy, token_type),
        )

    return {"embedding_forward": embedding_forward, "embedding_backward": embedding_backward}
