"""The body of BERT, forward and then backward in mirrored order: embeddings -> encoder layers -> pooler.

Every function takes ``params``, the parameters of its own part under their local names (an encoder layer
sees ``"attention.self.query.weight"``, without the ``"encoder.layer.3."`` before it), and ``ops``, the
module whose operations it is built from: :mod:`npbert.ops`, or an engine with the same names, which may
bring an encoder, or an encoder layer, of its own, too.

Backward functions return the gradient of the part's input and a dict of gradients, keyed like ``params``.
Wherever a value was used twice (a residual connection; q, k and v of one input) its gradients are added
here, in sight.

Dropout is on where ``dropout_seed`` is an integer, and off where it is None.
"""

from types import ModuleType
from typing import Any, NamedTuple

from npbert.config import BertConfig
from npbert.inputs import ModelInputs
from npbert.ops.array_module import Array, array_module
from npbert.ops.dropout import (
    SITE_ATTENTION_OUTPUT,
    SITE_ATTENTION_PROBS,
    SITE_EMBEDDING,
    SITE_FEED_FORWARD_OUTPUT,
)
from npbert.params import subset, with_prefix

Params = dict[str, Array]
Cache = Any  # each forward function's cache is read by the backward function below it, and by nothing else


# Embeddings -------------------------------------------------------------------------------------------


class EmbeddingsCache(NamedTuple):
    """What :func:`embeddings_backward` needs."""

    embedding: Cache
    layernorm: Cache
    dropout: Cache


def embeddings_forward(
    params: Params, config: BertConfig, inputs: ModelInputs, dropout_seed: int | None, ops: ModuleType
) -> tuple[Array, EmbeddingsCache]:
    """Turn ids into vectors: sum of three embeddings, layernorm, dropout.  (B, T) -> (B, T, D)"""
    summed, embedding_cache = ops.embedding_forward(
        inputs.input_ids,
        inputs.inputs_embeds,
        inputs.position_ids,
        inputs.token_type_ids,
        params["word_embeddings.weight"],
        _position_table(params, config, ops),
        params["token_type_embeddings.weight"],
        config.pad_token_id,
    )
    normalised, layernorm_cache = ops.layernorm_forward(
        summed, params["LayerNorm.weight"], params["LayerNorm.bias"], config.layer_norm_eps
    )
    keep_mask = draw_keep_mask(normalised, config.hidden_dropout_prob, dropout_seed, 0, SITE_EMBEDDING, ops)
    hidden, dropout_cache = ops.dropout_forward(normalised, keep_mask, config.hidden_dropout_prob)
    return hidden, EmbeddingsCache(embedding_cache, layernorm_cache, dropout_cache)


def embeddings_backward(
    dhidden: Array, cache: EmbeddingsCache, params: Params, config: BertConfig, ops: ModuleType
) -> tuple[Array | None, Params]:
    """Backward of :func:`embeddings_forward`; returns ``dinputs_embeds`` (None where ids were given)."""
    dnormalised = ops.dropout_backward(dhidden, cache.dropout)
    dsummed, dlayernorm_weight, dlayernorm_bias = ops.layernorm_backward(dnormalised, cache.layernorm)
    dinputs_embeds, dword, dposition, dtoken_type = ops.embedding_backward(dsummed, cache.embedding)
    grads = {
        "word_embeddings.weight": dword,
        "position_embeddings.weight": dposition,
        "token_type_embeddings.weight": dtoken_type,
        "LayerNorm.weight": dlayernorm_weight,
        "LayerNorm.bias": dlayernorm_bias,
    }
    if config.position_embedding_type == "sinusoidal":
        del grads["position_embeddings.weight"]  # the table is computed, not learned
    return dinputs_embeds, zeros_for_unused(grads, params)


def _position_table(params: Params, config: BertConfig, ops: ModuleType) -> Array | None:
    """Return the (P, D) table that is added to the words, or None where positions enter elsewhere."""
    if config.position_embedding_type == "absolute":
        return params["position_embeddings.weight"]
    if config.position_embedding_type == "sinusoidal":
        words = params["word_embeddings.weight"]
        xp = array_module(words)
        table = ops.sinusoidal_positions(config.max_position_embeddings, config.hidden_size, xp)
        return table.astype(words.real.dtype)
    return None


# One encoder layer ------------------------------------------------------------------------------------


class SelfAttentionCache(NamedTuple):
    """What :func:`self_attention_backward` needs."""

    query: Cache
    key: Cache
    value: Cache
    relative_position: Cache  # None without relative positions
    attention: Cache
    projection: Cache
    dropout: Cache
    layernorm: Cache


def self_attention_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    key_mask: Array | None,
    dropout_seed: int | None,
    layer: int,
    ops: ModuleType,
) -> tuple[Array, SelfAttentionCache]:
    """Let the tokens exchange information: attention, projection, dropout, residual, layernorm.

    Parameters
    ----------
    params : the layer's parameters, under names like ``"attention.self.query.weight"``
    config : BertConfig
    hidden : (B, T, D) floating
    key_mask : (B, T) bool or None
        True for real tokens.
    dropout_seed : int or None
    layer : int
        Which layer this is; only dropout depends on it.
    ops : module

    Returns
    -------
    y : (B, T, D)
    cache : SelfAttentionCache
    """
    query, query_cache = dense_forward(params, "attention.self.query", hidden, ops)  # (B, T, D)
    key, key_cache = dense_forward(params, "attention.self.key", hidden, ops)  # (B, T, D)
    value, value_cache = dense_forward(params, "attention.self.value", hidden, ops)  # (B, T, D)
    q = ops.split_heads(query, config.num_attention_heads)  # (B, T, D) -> (B, N, T, H)
    k = ops.split_heads(key, config.num_attention_heads)
    v = ops.split_heads(value, config.num_attention_heads)

    bias = relative_position_cache = None
    if config.position_embedding_type in ("relative_key", "relative_key_query"):
        distance_embedding = params["attention.self.distance_embedding.weight"]
        bias, relative_position_cache = ops.relative_position_forward(
            q, k, distance_embedding, config.position_embedding_type
        )

    rate = config.attention_probs_dropout_prob
    batch, heads, tokens, _ = q.shape
    keep_mask = draw_keep_mask(
        q, rate, dropout_seed, layer, SITE_ATTENTION_PROBS, ops, shape=(batch, heads, tokens, tokens)
    )
    context, attention_cache = ops.softmax_attention_forward(q, k, v, bias, key_mask, keep_mask, rate)
    merged = ops.merge_heads(context)  # (B, N, T, H) -> (B, T, D)

    projected, projection_cache = dense_forward(params, "attention.output.dense", merged, ops)  # (B, T, D)
    rate = config.hidden_dropout_prob
    keep_mask = draw_keep_mask(projected, rate, dropout_seed, layer, SITE_ATTENTION_OUTPUT, ops)
    dropped, dropout_cache = ops.dropout_forward(projected, keep_mask, rate)
    y, layernorm_cache = _layernorm(params, "attention.output.LayerNorm", config, dropped + hidden, ops)
    return y, SelfAttentionCache(
        query_cache,
        key_cache,
        value_cache,
        relative_position_cache,
        attention_cache,
        projection_cache,
        dropout_cache,
        layernorm_cache,
    )


def self_attention_backward(
    dy: Array, cache: SelfAttentionCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`self_attention_forward`: its statements in reverse."""
    grads: Params = {}
    dsum = _layernorm_backward(grads, "attention.output.LayerNorm", dy, cache.layernorm, ops)
    dprojected = ops.dropout_backward(dsum, cache.dropout)
    dmerged = dense_backward(grads, "attention.output.dense", dprojected, cache.projection, ops)

    dcontext = ops.split_heads(dmerged, config.num_attention_heads)  # (B, T, D) -> (B, N, T, H)
    dq, dk, dv, dbias = ops.softmax_attention_backward(dcontext, cache.attention)
    if cache.relative_position is not None:
        dq_position, dk_position, ddistance_embedding = ops.relative_position_backward(
            dbias, cache.relative_position
        )
        dq = dq + dq_position  # q entered the scores twice: with k, and with the distances
        dk = dk + dk_position
        grads["attention.self.distance_embedding.weight"] = ddistance_embedding

    dhidden_query = dense_backward(grads, "attention.self.query", ops.merge_heads(dq), cache.query, ops)
    dhidden_key = dense_backward(grads, "attention.self.key", ops.merge_heads(dk), cache.key, ops)
    dhidden_value = dense_backward(grads, "attention.self.value", ops.merge_heads(dv), cache.value, ops)
    dhidden = dsum + dhidden_query + dhidden_key + dhidden_value  # the residual, and three projections
    return dhidden, grads


class FeedForwardCache(NamedTuple):
    """What :func:`feed_forward_backward` needs."""

    intermediate: Cache
    activation: Cache
    projection: Cache
    dropout: Cache
    layernorm: Cache


def feed_forward_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    dropout_seed: int | None,
    layer: int,
    ops: ModuleType,
) -> tuple[Array, FeedForwardCache]:
    """Let every token think for itself: widen to F, activate, narrow to D, dropout, residual, layernorm.

    Parameters and results are those of :func:`self_attention_forward`.
    """
    widened, intermediate_cache = dense_forward(params, "intermediate.dense", hidden, ops)  # (B, T, F)
    activated, activation_cache = ops.activation_forward(widened, config.hidden_act)  # (B, T, F)
    projected, projection_cache = dense_forward(params, "output.dense", activated, ops)  # (B, T, D)
    rate = config.hidden_dropout_prob
    keep_mask = draw_keep_mask(projected, rate, dropout_seed, layer, SITE_FEED_FORWARD_OUTPUT, ops)
    dropped, dropout_cache = ops.dropout_forward(projected, keep_mask, rate)
    y, layernorm_cache = _layernorm(params, "output.LayerNorm", config, dropped + hidden, ops)
    return y, FeedForwardCache(
        intermediate_cache, activation_cache, projection_cache, dropout_cache, layernorm_cache
    )


def feed_forward_backward(dy: Array, cache: FeedForwardCache, ops: ModuleType) -> tuple[Array, Params]:
    """Backward of :func:`feed_forward_forward`: its statements in reverse."""
    grads: Params = {}
    dsum = _layernorm_backward(grads, "output.LayerNorm", dy, cache.layernorm, ops)
    dprojected = ops.dropout_backward(dsum, cache.dropout)
    dactivated = dense_backward(grads, "output.dense", dprojected, cache.projection, ops)
    dwidened = ops.activation_backward(dactivated, cache.activation)
    dhidden_intermediate = dense_backward(grads, "intermediate.dense", dwidened, cache.intermediate, ops)
    dhidden = dsum + dhidden_intermediate  # the residual, and the way through the layer
    return dhidden, grads


class EncoderLayerCache(NamedTuple):
    """What :func:`encoder_layer_backward` needs."""

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
) -> tuple[Array, EncoderLayerCache]:
    """Apply one encoder layer: self-attention, then feed-forward.  (B, T, D) -> (B, T, D)

    Parameters and results are those of :func:`self_attention_forward`.
    """
    attended, self_attention_cache = self_attention_forward(
        params, config, hidden, key_mask, dropout_seed, layer, ops
    )
    y, feed_forward_cache = feed_forward_forward(params, config, attended, dropout_seed, layer, ops)
    return y, EncoderLayerCache(self_attention_cache, feed_forward_cache)


def encoder_layer_backward(
    dy: Array, cache: EncoderLayerCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`encoder_layer_forward`."""
    dattended, feed_forward_grads = feed_forward_backward(dy, cache.feed_forward, ops)
    dhidden, self_attention_grads = self_attention_backward(dattended, cache.self_attention, config, ops)
    return dhidden, self_attention_grads | feed_forward_grads


# The encoder ------------------------------------------------------------------------------------------


class EncoderOutput(NamedTuple):
    """What the encoder computes."""

    last_hidden_state: Array  # (B, T, D)
    hidden_states: tuple[Array, ...] | None  # the input and each layer, (B, T, D); None unless asked for
    attentions: tuple[Array, ...] | None  # each layer's probabilities, (B, N, T, T); None unless asked for


class EncoderCache(NamedTuple):
    """What :func:`encoder_backward` needs."""

    layers: list[EncoderLayerCache]


def encoder_forward(
    params: Params,
    config: BertConfig,
    hidden: Array,
    key_mask: Array | None,
    read_mask: Array | None,
    dropout_seed: int | None,
    ops: ModuleType,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    keep_cache: bool = True,
) -> tuple[EncoderOutput, EncoderCache | None]:
    """Apply all encoder layers, one after the other.  (B, T, D) -> (B, T, D)

    Parameters
    ----------
    params : the encoder's parameters, under names like ``"layer.0.attention.self.query.weight"``
    config : BertConfig
    hidden : (B, T, D) floating
    key_mask : (B, T) bool or None
        True for real tokens.
    read_mask : (B, T) bool or None
        True for tokens whose result is looked at. Every token is computed here; an engine may leave out what
        nobody looks at, neither attention nor what comes after, and return zeros for the others.
    dropout_seed : int or None
    ops : module
        An engine with an encoder layer of its own has it used.
    output_hidden_states, output_attentions, keep_cache : bool
        As for :func:`model_forward`.

    Returns
    -------
    output : EncoderOutput
    cache : EncoderCache or None
    """
    layer_forward = getattr(ops, "encoder_layer_forward", encoder_layer_forward)
    hidden_states = [hidden]
    attentions = []
    layer_caches = []
    for layer in range(config.num_hidden_layers):
        layer_params = subset(params, f"layer.{layer}.")
        hidden, layer_cache = layer_forward(layer_params, config, hidden, key_mask, dropout_seed, layer, ops)
        if output_hidden_states:
            hidden_states.append(hidden)
        if output_attentions:
            attentions.append(layer_cache.self_attention.attention.probs)
        if keep_cache:
            layer_caches.append(layer_cache)
    output = EncoderOutput(
        hidden,
        tuple(hidden_states) if output_hidden_states else None,
        tuple(attentions) if output_attentions else None,
    )
    return output, EncoderCache(layer_caches) if keep_cache else None


def encoder_backward(
    dy: Array, cache: EncoderCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`encoder_forward`: the layers in reverse."""
    layer_backward = getattr(ops, "encoder_layer_backward", encoder_layer_backward)
    grads: Params = {}
    for layer in reversed(range(config.num_hidden_layers)):
        dy, layer_grads = layer_backward(dy, cache.layers[layer], config, ops)
        grads |= with_prefix(layer_grads, f"layer.{layer}.")
    return dy, grads


# Pooler -----------------------------------------------------------------------------------------------


class PoolerCache(NamedTuple):
    """What :func:`pooler_backward` needs."""

    cls_pooling: Cache
    dense: Cache
    activation: Cache


def pooler_forward(params: Params, hidden: Array, ops: ModuleType) -> tuple[Array, PoolerCache]:
    """Summarise a text by its first token: tanh of a linear layer of it.  (B, T, D) -> (B, D)"""
    first, cls_pooling_cache = ops.cls_pooling_forward(hidden)  # (B, T, D) -> (B, D)
    linear, dense_cache = dense_forward(params, "dense", first, ops)
    pooled, activation_cache = ops.activation_forward(linear, "tanh")
    return pooled, PoolerCache(cls_pooling_cache, dense_cache, activation_cache)


def pooler_backward(dpooled: Array, cache: PoolerCache, ops: ModuleType) -> tuple[Array, Params]:
    """Backward of :func:`pooler_forward`."""
    grads: Params = {}
    dlinear = ops.activation_backward(dpooled, cache.activation)
    dfirst = dense_backward(grads, "dense", dlinear, cache.dense, ops)
    dhidden = ops.cls_pooling_backward(dfirst, cache.cls_pooling)  # (B, D) -> (B, T, D)
    return dhidden, grads


# The whole body ---------------------------------------------------------------------------------------


class ModelOutput(NamedTuple):
    """What the body of BERT computes, under Hugging Face's names."""

    last_hidden_state: Array  # (B, T, D)
    pooler_output: Array | None  # (B, D), None where the parameters have no pooler
    hidden_states: tuple[Array, ...] | None  # embeddings and each layer, (B, T, D); None unless asked for
    attentions: tuple[Array, ...] | None  # each layer's probabilities, (B, N, T, T); None unless asked for


class ModelCache(NamedTuple):
    """What :func:`model_backward` needs."""

    embeddings: EmbeddingsCache
    encoder: Cache
    pooler: PoolerCache | None


def model_forward(
    params: Params,
    config: BertConfig,
    inputs: ModelInputs,
    ops: ModuleType,
    dropout_seed: int | None = None,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    keep_cache: bool = True,
) -> tuple[ModelOutput, ModelCache | None]:
    """Run the body of BERT.

    Parameters
    ----------
    params : dict of str to array
        Under `BertModel`'s names, without ``"bert."``.
    config : BertConfig
    inputs : ModelInputs
        Checked inputs; see :func:`npbert.inputs.prepare_inputs`.
    ops : module
        :mod:`npbert.ops` or an engine.
    dropout_seed : int or None
        Key of the dropout masks; None: no dropout.
    output_hidden_states, output_attentions : bool
        Whether to return these too.
    keep_cache : bool
        False saves the memory where no backward pass follows; the cache is then None.

    Returns
    -------
    output : ModelOutput
    cache : ModelCache or None

    References
    ----------
    Devlin et al., "BERT", arXiv:1810.04805, 2018; the post-layernorm encoder of Vaswani et al., 2017.
    """
    hidden, embeddings_cache = embeddings_forward(
        subset(params, "embeddings."), config, inputs, dropout_seed, ops
    )
    encode = getattr(ops, "encoder_forward", encoder_forward)
    encoded, encoder_cache = encode(
        subset(params, "encoder."),
        config,
        hidden,
        inputs.key_mask,
        inputs.read_mask,
        dropout_seed,
        ops,
        output_hidden_states,
        output_attentions,
        keep_cache,
    )

    pooled = pooler_cache = None
    if "pooler.dense.weight" in params:
        pooled, pooler_cache = pooler_forward(subset(params, "pooler."), encoded.last_hidden_state, ops)
    output = ModelOutput(encoded.last_hidden_state, pooled, encoded.hidden_states, encoded.attentions)
    return output, ModelCache(embeddings_cache, encoder_cache, pooler_cache) if keep_cache else None


def model_backward(
    dlast_hidden_state: Array | None,
    dpooler_output: Array | None,
    cache: ModelCache,
    params: Params,
    config: BertConfig,
    ops: ModuleType,
) -> tuple[Array | None, Params]:
    """Backward of :func:`model_forward`.

    Parameters
    ----------
    dlast_hidden_state : (B, T, D) floating or None
    dpooler_output : (B, D) floating or None
        None stands for zeros; at least one of the two is given.
    cache : ModelCache
    params : dict of str to array
        Those of the forward pass; only their names and shapes are looked at.
    config : BertConfig
    ops : module

    Returns
    -------
    dinputs_embeds : (B, T, D), or None where the forward pass took input_ids
    grads : dict of str to array
        One gradient for each of ``params``, in their order; zeros for parameters that were not used.
    """
    grads: Params = {}
    dhidden = dlast_hidden_state
    if dpooler_output is not None and cache.pooler is not None:
        dhidden_pooler, pooler_grads = pooler_backward(dpooler_output, cache.pooler, ops)
        dhidden = dhidden_pooler if dhidden is None else dhidden + dhidden_pooler
        grads |= with_prefix(pooler_grads, "pooler.")
    go_back = getattr(ops, "encoder_backward", encoder_backward)
    dhidden, encoder_grads = go_back(dhidden, cache.encoder, config, ops)
    grads |= with_prefix(encoder_grads, "encoder.")
    dinputs_embeds, embeddings_grads = embeddings_backward(
        dhidden, cache.embeddings, subset(params, "embeddings."), config, ops
    )
    grads |= with_prefix(embeddings_grads, "embeddings.")
    return dinputs_embeds, zeros_for_unused(grads, params)


# Small helpers ----------------------------------------------------------------------------------------


def draw_keep_mask(
    x: Array,
    rate: float,
    dropout_seed: int | None,
    layer: int,
    site: int,
    ops: ModuleType,
    shape: tuple[int, ...] | None = None,
) -> Array | None:
    """Draw the dropout mask of one place in the model, of the shape of ``x`` unless another is given.

    None, which keeps everything, where dropout is off.
    """
    if dropout_seed is None or rate == 0:
        return None
    return ops.dropout_keep_mask(shape or x.shape, rate, dropout_seed, layer, site, array_module(x))


def dense_forward(params: Params, name: str, x: Array, ops: ModuleType) -> tuple[Array, Cache]:
    """Apply the linear layer of this name, weight and bias."""
    y, cache = ops.linear_forward(x, params[f"{name}.weight"], params[f"{name}.bias"])
    return y, cache


def dense_backward(grads: Params, name: str, dy: Array, cache: Cache, ops: ModuleType) -> Array:
    """Return ``dx``; enter the parameters' gradients in ``grads``."""
    dx, grads[f"{name}.weight"], grads[f"{name}.bias"] = ops.linear_backward(dy, cache)
    return dx


def _layernorm(
    params: Params, name: str, config: BertConfig, x: Array, ops: ModuleType
) -> tuple[Array, Cache]:
    weight, bias = params[f"{name}.weight"], params[f"{name}.bias"]
    y, cache = ops.layernorm_forward(x, weight, bias, config.layer_norm_eps)
    return y, cache


def _layernorm_backward(grads: Params, name: str, dy: Array, cache: Cache, ops: ModuleType) -> Array:
    """Return ``dx``; enter the parameters' gradients in ``grads``."""
    dx, grads[f"{name}.weight"], grads[f"{name}.bias"] = ops.layernorm_backward(dy, cache)
    return dx


def zeros_for_unused(grads: dict[str, Array | None], params: Params) -> Params:
    """Return one gradient a parameter, in the order of ``params``: zeros where it was not used."""
    complete = {}
    for name, value in params.items():
        grad = grads.get(name)
        complete[name] = array_module(value).zeros_like(value) if grad is None else grad
    return complete
