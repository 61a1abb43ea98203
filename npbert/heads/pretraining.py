"""The two tasks that BERT is pre-trained on: fill in masked words, and tell whether two sentences follow.

The word scores are ``decoder(layernorm(activation(linear(hidden))))``. The decoder has a row for each
word of the vocabulary, and is by default the word embedding itself (Press and Wolf, arXiv:1608.05859):
that table is then used twice, and :func:`npbert.heads.task_backward` adds its two gradients.
"""

from types import ModuleType
from typing import Any, NamedTuple

from npbert.config import BertConfig
from npbert.heads.interface import HeadGradients, HeadOptions, HeadOutput
from npbert.labels import IGNORE_INDEX, Labels
from npbert.model import ModelOutput, Params
from npbert.ops.array_module import Array, array_module
from npbert.params import decoder_names

TRANSFORM = "cls.predictions.transform"
SEQ_RELATIONSHIP = "cls.seq_relationship"


class TransformCache(NamedTuple):
    """What :func:`transform_backward` needs."""

    dense: Any
    activation: Any
    layernorm: Any


def transform_forward(
    params: Params, config: BertConfig, hidden: Array, ops: ModuleType
) -> tuple[Array, TransformCache]:
    """Prepare tokens for the decoder: linear, activation, layernorm.  (..., D) -> (..., D)"""
    dense, dense_cache = ops.linear_forward(
        hidden, params[f"{TRANSFORM}.dense.weight"], params[f"{TRANSFORM}.dense.bias"]
    )
    activated, activation_cache = ops.activation_forward(dense, config.hidden_act)
    normalised, layernorm_cache = ops.layernorm_forward(
        activated,
        params[f"{TRANSFORM}.LayerNorm.weight"],
        params[f"{TRANSFORM}.LayerNorm.bias"],
        config.layer_norm_eps,
    )
    return normalised, TransformCache(dense_cache, activation_cache, layernorm_cache)


def transform_backward(dnormalised: Array, cache: TransformCache, ops: ModuleType) -> tuple[Array, Params]:
    """Backward of :func:`transform_forward`; returns ``dhidden`` and the parameters' gradients."""
    grads: Params = {}
    dactivated, grads[f"{TRANSFORM}.LayerNorm.weight"], grads[f"{TRANSFORM}.LayerNorm.bias"] = (
        ops.layernorm_backward(dnormalised, cache.layernorm)
    )
    ddense = ops.activation_backward(dactivated, cache.activation)
    dhidden, grads[f"{TRANSFORM}.dense.weight"], grads[f"{TRANSFORM}.dense.bias"] = ops.linear_backward(
        ddense, cache.dense
    )
    return dhidden, grads


class DecoderCache(NamedTuple):
    """What :func:`decoder_backward` needs."""

    linear: Any
    cross_entropy: Any  # None without labels
    # The loss and its gradients, of an engine that computes both at once; the other two are then None.
    decoder_loss: Any


def decoder_forward(
    params: Params, config: BertConfig, x: Array, words: Array | None, options: HeadOptions, ops: ModuleType
) -> tuple[Array | None, Array | None, DecoderCache]:
    """Score every word of the vocabulary, and compare with the right words.  (M, D) -> (), (M, V)

    Where only the loss is wanted, an engine need not have all scores at once: the logits are then None.
    """
    weight, bias = (params[name] for name in decoder_names(config))
    if words is not None and not options.all_logits and hasattr(ops, "decoder_cross_entropy"):
        decoder_loss = ops.decoder_cross_entropy(x, weight, bias, words, IGNORE_INDEX, options.reduction)
        return decoder_loss.loss, None, DecoderCache(None, None, decoder_loss)
    logits, linear_cache = ops.linear_forward(x, weight, bias)
    loss = loss_cache = None
    if words is not None:
        loss, loss_cache = ops.cross_entropy_forward(logits, words, IGNORE_INDEX, options.reduction)
    return loss, logits, DecoderCache(linear_cache, loss_cache, None)


def decoder_backward(
    dloss: Array, cache: DecoderCache, config: BertConfig, ops: ModuleType
) -> tuple[Array, Params]:
    """Backward of :func:`decoder_forward`; returns ``dx`` and the parameters' gradients."""
    if cache.decoder_loss is not None:
        decoder_loss = cache.decoder_loss
        dx, dweight, dbias = decoder_loss.dhidden, decoder_loss.dweight, decoder_loss.dbias
        if dloss != 1:
            dx, dweight, dbias = dloss * dx, dloss * dweight, dloss * dbias
    else:
        dlogits = ops.cross_entropy_backward(dloss, cache.cross_entropy)
        dx, dweight, dbias = ops.linear_backward(dlogits, cache.linear)
    weight_name, bias_name = decoder_names(config)
    return dx, {weight_name: dweight, bias_name: dbias}


class MaskedLMCache(NamedTuple):
    """What :func:`masked_lm_backward` needs."""

    places: Array | None  # (M,) int, the scored tokens of the flattened batch; None: all
    hidden_shape: tuple[int, int, int]  # (B, T, D)
    transform: TransformCache
    decoder: DecoderCache
    has_loss: bool


def masked_lm_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, MaskedLMCache]:
    """Score the words at each token, and compare with the words that were hidden.

    About one token in seven has a label, and the V scores of a token are most of the work. Where only
    the loss is wanted (``options.all_logits`` False), the M labelled tokens are gathered first; the
    ``"logits"`` are then (M, V), in reading order, or None where the engine does not keep them.
    """
    xp = array_module(body.last_hidden_state)
    batch, tokens, width = body.last_hidden_state.shape
    hidden = body.last_hidden_state.reshape(batch * tokens, width)  # (B, T, D) -> (B*T, D)
    words = None if labels.labels is None else labels.labels.reshape(-1)  # (B*T,)
    places = None
    if words is not None and not options.all_logits:
        places = xp.flatnonzero(words != IGNORE_INDEX)  # (M,)
        hidden, words = hidden[places], words[places]  # (M, D), (M,)

    normalised, transform_cache = transform_forward(params, config, hidden, ops)  # (M or B*T, D)
    loss, logits, decoder_cache = decoder_forward(params, config, normalised, words, options, ops)
    if places is None and logits is not None:
        logits = logits.reshape(batch, tokens, -1)  # (B*T, V) -> (B, T, V)
    cache = MaskedLMCache(places, (batch, tokens, width), transform_cache, decoder_cache, loss is not None)
    decoder_loss = decoder_cache.decoder_loss
    correct = None if decoder_loss is None else decoder_loss.correct
    return HeadOutput(loss, {"logits": logits}, correct), cache


def masked_lm_backward(
    dloss: Array, cache: MaskedLMCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`masked_lm_forward`: tokens whose words were not scored get zero."""
    batch, tokens, width = cache.hidden_shape
    dnormalised, decoder_grads = decoder_backward(dloss, cache.decoder, config, ops)
    dhidden, transform_grads = transform_backward(dnormalised, cache.transform, ops)  # (M or B*T, D)
    if cache.places is not None:
        xp = array_module(dhidden)
        dhidden_of_places = dhidden
        dhidden = xp.zeros((batch * tokens, width), dtype=dhidden.dtype)
        dhidden[cache.places] = dhidden_of_places  # no place occurs twice
    return HeadGradients(dhidden.reshape(batch, tokens, width), None, decoder_grads | transform_grads)


class NextSentenceCache(NamedTuple):
    """What :func:`next_sentence_backward` needs."""

    linear: Any
    loss: Any


def next_sentence_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, NextSentenceCache]:
    """Score whether the second sentence follows the first (class 0) or not (class 1).  (B, D) -> (B, 2)"""
    logits, linear_cache = ops.linear_forward(
        body.pooler_output, params[f"{SEQ_RELATIONSHIP}.weight"], params[f"{SEQ_RELATIONSHIP}.bias"]
    )
    loss = loss_cache = None
    if labels.labels is not None:
        loss, loss_cache = ops.cross_entropy_forward(logits, labels.labels, IGNORE_INDEX, options.reduction)
    return HeadOutput(loss, {"logits": logits}), NextSentenceCache(linear_cache, loss_cache)


def next_sentence_backward(
    dloss: Array, cache: NextSentenceCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`next_sentence_forward`."""
    grads: Params = {}
    dlogits = ops.cross_entropy_backward(dloss, cache.loss)
    dpooled, grads[f"{SEQ_RELATIONSHIP}.weight"], grads[f"{SEQ_RELATIONSHIP}.bias"] = ops.linear_backward(
        dlogits, cache.linear
    )
    return HeadGradients(None, dpooled, grads)


class PretrainingCache(NamedTuple):
    """What :func:`pretraining_backward` needs."""

    masked_lm: MaskedLMCache
    next_sentence: NextSentenceCache
    weights: tuple[float, float]  # of the two losses in their sum


def pretraining_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, PretrainingCache]:
    """Do both tasks; the loss is the (weighted) sum of the two, or the one whose labels were given."""
    words, masked_lm_cache = masked_lm_forward(params, config, body, labels, options, ops)
    pair_labels = Labels(labels=labels.next_sentence_label)
    pairs, next_sentence_cache = next_sentence_forward(params, config, body, pair_labels, options, ops)
    parts = {"labels": words, "next_sentence_label": pairs}
    losses = [options.weight_of(name) * part.loss for name, part in parts.items() if part.loss is not None]
    logits = {
        "prediction_logits": words.logits["logits"],
        "seq_relationship_logits": pairs.logits["logits"],
    }
    weights = (options.weight_of("labels"), options.weight_of("next_sentence_label"))
    cache = PretrainingCache(masked_lm_cache, next_sentence_cache, weights)
    return HeadOutput(sum(losses) if losses else None, logits, parts=parts), cache


def pretraining_backward(
    dloss: Array, cache: PretrainingCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`pretraining_forward`: each task gets the sum's gradient, times its weight."""
    words_weight, pairs_weight = cache.weights
    dlast_hidden_state = dpooler_output = None
    grads: Params = {}
    if cache.masked_lm.has_loss:
        words = masked_lm_backward(dloss * words_weight, cache.masked_lm, config, ops)
        dlast_hidden_state = words.dlast_hidden_state
        grads |= words.grads
    if cache.next_sentence.loss is not None:
        pairs = next_sentence_backward(dloss * pairs_weight, cache.next_sentence, config, ops)
        dpooler_output = pairs.dpooler_output
        grads |= pairs.grads
    return HeadGradients(dlast_hidden_state, dpooler_output, grads)
