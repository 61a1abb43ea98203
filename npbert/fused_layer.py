"""A whole encoder layer from the fused ops of an engine: what :mod:`npbert.model` does, in fewer passes.

Three things are fused that the textbook does one after the other, each a trip through memory: dropout of the
attention probabilities, which are never stored; the bias and the activation; the residual and the layernorm.
Masks are the textbook's, bit for bit. A layer with relative positions or another activation than GELU is the
textbook's, run with the engine's ops.

An engine that uses this layer has, beside the names of :mod:`npbert.ops`, ``dropout_attention_forward``,
``bias_gelu_forward``, ``bias_gelu_backward`` and ``residual_layernorm_forward``. What the fused attention and
layernorm leave for the way back is read by the engine's ``softmax_attention_backward`` and
``layernorm_backward``; so the way back through self-attention is the textbook's own.
"""

from types import ModuleType
from typing import Any, NamedTuple

from npbert import model
from npbert.attention_dropout import AttentionDropout
from npbert.config import BertConfig
from npbert.model import (
    FeedForwardCache,
    Params,
    SelfAttentionCache,
    dense_backward,
    dense_forward,
    draw_keep_mask,
)
from npbert.ops.activations import GELU_FORMS
from npbert.ops.array_module import Array
from npbert.ops.dropout import SITE_ATTENTION_OUTPUT, SITE_ATTENTION_PROBS, SITE_FEED_FORWARD_OUTPUT


class FusedLayerCache(NamedTuple):
    """What :func:`encoder_layer_backward` needs: the textbook's parts, filled by fused ops."""

    self_attention: SelfAttentionCache
    feed_forward: FeedForwardCache


def encoder_layer_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    key_mask: Array | None,
    dropout_seed: int | None,
    layer: int,
    ops: ModuleType,
) -> tuple[Array, FusedLayerCache | model.EncoderLayerCache]:
    """Apply one encoder layer; see :func:`npbert.model.encoder_layer_forward`.  (B, T, D) -> (B, T, D)

    Parameters
    ----------
    params : dict of str to array
        The layer's parameters, under names like ``"attention.self.query.weight"``.
    config : BertConfig
    hidden : (B, T, D) floating
    key_mask : (B, T) bool or None
        True for real tokens.
    dropout_seed : int or None
    layer : int
        Which layer this is; only dropout depends on it.
    ops : module
        An engine with fused ops.

    Returns
    -------
    y : (B, T, D)
    cache : FusedLayerCache, or EncoderLayerCache of the textbook where its layer was run
    """
    if not _is_fused(config):
        return model.encoder_layer_forward(params, config, hidden, key_mask, dropout_seed, layer, ops)
    attended, attention_cache = _attention_forward(params, config, hidden, key_mask, dropout_seed, layer, ops)
    y, feed_forward_cache = _feed_forward_forward(params, config, attended, dropout_seed, layer, ops)
    return y, FusedLayerCache(attention_cache, feed_forward_cache)


def encoder_layer_backward(
    dy: Array,
    cache: FusedLayerCache | model.EncoderLayerCache,
    config: BertConfig,
    ops: ModuleType,
) -> tuple[Array, Params]:
    """Backward of :func:`encoder_layer_forward`.

    Parameters
    ----------
    dy : (B, T, D) floating
    cache : what the forward returned
    config : BertConfig
    ops : module

    Returns
    -------
    dhidden : (B, T, D)
    grads : dict of str to array
        Keyed like the layer's parameters.
    """
    if isinstance(cache, model.EncoderLayerCache):
        return model.encoder_layer_backward(dy, cache, config, ops)
    dattended, feed_forward_grads = _feed_forward_backward(dy, cache.feed_forward, ops)
    dhidden, attention_grads = model.self_attention_backward(dattended, cache.self_attention, config, ops)
    return dhidden, attention_grads | feed_forward_grads


def _is_fused(config: BertConfig) -> bool:
    return config.position_embedding_type in ("absolute", "sinusoidal") and config.hidden_act in GELU_FORMS


def _attention_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    key_mask: Array | None,
    dropout_seed: int | None,
    layer: int,
    ops: ModuleType,
) -> tuple[Array, SelfAttentionCache]:
    query, query_cache = dense_forward(params, "attention.self.query", hidden, ops)  # (B, T, D)
    key, key_cache = dense_forward(params, "attention.self.key", hidden, ops)  # (B, T, D)
    value, value_cache = dense_forward(params, "attention.self.value", hidden, ops)  # (B, T, D)
    q = ops.split_heads(query, config.num_attention_heads)  # (B, T, D) -> (B, N, T, H)
    k = ops.split_heads(key, config.num_attention_heads)
    v = ops.split_heads(value, config.num_attention_heads)

    rate = config.attention_probs_dropout_prob
    dropout = None
    if dropout_seed is not None and rate > 0:
        dropout = AttentionDropout(rate, dropout_seed, layer, SITE_ATTENTION_PROBS)
    context, attention_cache = ops.dropout_attention_forward(q, k, v, key_mask, dropout)
    merged = ops.merge_heads(context)  # (B, N, T, H) -> (B, T, D)

    projected, projection_cache = dense_forward(params, "attention.output.dense", merged, ops)  # (B, T, D)
    rate = config.hidden_dropout_prob
    keep_mask = draw_keep_mask(projected, rate, dropout_seed, layer, SITE_ATTENTION_OUTPUT, ops)
    dropped, dropout_cache = ops.dropout_forward(projected, keep_mask, rate)
    y, layernorm_cache = _residual_layernorm(
        params, "attention.output.LayerNorm", config, dropped, hidden, ops
    )
    return y, SelfAttentionCache(
        query_cache,
        key_cache,
        value_cache,
        None,
        attention_cache,
        projection_cache,
        dropout_cache,
        layernorm_cache,
    )


def _feed_forward_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    dropout_seed: int | None,
    layer: int,
    ops: ModuleType,
) -> tuple[Array, FeedForwardCache]:
    # The bias is left to the activation's kernel.
    widened, intermediate_cache = ops.linear_forward(hidden, params["intermediate.dense.weight"], None)
    activated, activation_cache = ops.bias_gelu_forward(
        widened, params["intermediate.dense.bias"], GELU_FORMS[config.hidden_act]
    )  # (B, T, F)
    projected, projection_cache = dense_forward(params, "output.dense", activated, ops)  # (B, T, D)
    rate = config.hidden_dropout_prob
    keep_mask = draw_keep_mask(projected, rate, dropout_seed, layer, SITE_FEED_FORWARD_OUTPUT, ops)
    dropped, dropout_cache = ops.dropout_forward(projected, keep_mask, rate)
    y, layernorm_cache = _residual_layernorm(params, "output.LayerNorm", config, dropped, hidden, ops)
    return y, FeedForwardCache(
        intermediate_cache, activation_cache, projection_cache, dropout_cache, layernorm_cache
    )


def _feed_forward_backward(dy: Array, cache: FeedForwardCache, ops: ModuleType) -> tuple[Array, Params]:
    grads: Params = {}
    dsum, grads["output.LayerNorm.weight"], grads["output.LayerNorm.bias"] = ops.layernorm_backward(
        dy, cache.layernorm
    )
    dprojected = ops.dropout_backward(dsum, cache.dropout)
    dactivated = dense_backward(grads, "output.dense", dprojected, cache.projection, ops)
    dwidened, grads["intermediate.dense.bias"] = ops.bias_gelu_backward(dactivated, cache.activation)
    dhidden_intermediate, grads["intermediate.dense.weight"], _ = ops.linear_backward(
        dwidened, cache.intermediate
    )
    dhidden = dsum + dhidden_intermediate  # the residual, and the way through the layer
    return dhidden, grads


def _residual_layernorm(
    params: Params, name: str, config: BertConfig, x: Array, residual: Array, ops: ModuleType
) -> tuple[Array, Any]:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    y, cache = ops.residual_layernorm_forward(x, residual, weight, bias, config.layer_norm_eps)
    return y, cache
