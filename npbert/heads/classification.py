"""Heads that put one linear layer, after dropout, on top of the encoder.

- sequence classification: a class (or several, or numbers) for the text, from the pooler
- multiple choice: which of several texts is right, from one score for each, from the pooler
- token classification: a class for each token
"""

from types import ModuleType
from typing import Any, NamedTuple

from npbert.config import BertConfig
from npbert.heads.interface import HeadGradients, HeadOptions, HeadOutput
from npbert.labels import IGNORE_INDEX, Labels
from npbert.model import ModelOutput, Params, draw_keep_mask
from npbert.ops.array_module import Array
from npbert.ops.dropout import SITE_CLASSIFIER


class ClassifierCache(NamedTuple):
    """What :func:`classifier_backward` needs."""

    dropout: Any
    linear: Any


def classifier_forward(
    params: Params, config: BertConfig, x: Array, options: HeadOptions, ops: ModuleType
) -> tuple[Array, ClassifierCache]:
    """Dropout, then linear.  (..., D) -> (..., classes)"""
    rate = config.classifier_dropout
    if rate is None:
        rate = config.hidden_dropout_prob
    keep_mask = draw_keep_mask(x, rate, options.dropout_seed, 0, SITE_CLASSIFIER, ops)
    dropped, dropout_cache = ops.dropout_forward(x, keep_mask, rate)
    logits, linear_cache = ops.linear_forward(dropped, params["classifier.weight"], params["classifier.bias"])
    return logits, ClassifierCache(dropout_cache, linear_cache)


def classifier_backward(dlogits: Array, cache: ClassifierCache, ops: ModuleType) -> tuple[Array, Params]:
    """Backward of :func:`classifier_forward`; returns ``dx`` and the parameters' gradients."""
    grads: Params = {}
    ddropped, grads["classifier.weight"], grads["classifier.bias"] = ops.linear_backward(
        dlogits, cache.linear
    )
    return ops.dropout_backward(ddropped, cache.dropout), grads


class SequenceClassificationCache(NamedTuple):
    """What :func:`sequence_classification_backward` needs."""

    classifier: ClassifierCache
    loss: Any
    problem_type: str | None


def sequence_classification_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, SequenceClassificationCache]:
    """Score the classes of each text; cross-entropy, squared error or yes-or-no cross-entropy."""
    logits, classifier_cache = classifier_forward(params, config, body.pooler_output, options, ops)
    loss = loss_cache = None
    if labels.problem_type == "single_label_classification":
        loss, loss_cache = ops.cross_entropy_forward(logits, labels.labels, IGNORE_INDEX, options.reduction)
    elif labels.problem_type == "multi_label_classification":
        loss, loss_cache = ops.bce_with_logits_forward(logits, labels.labels, options.reduction)
    elif labels.problem_type == "regression":
        loss, loss_cache = ops.mse_forward(logits, labels.labels, options.reduction)
    cache = SequenceClassificationCache(classifier_cache, loss_cache, labels.problem_type)
    return HeadOutput(loss, {"logits": logits}), cache


def sequence_classification_backward(
    dloss: Array, cache: SequenceClassificationCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`sequence_classification_forward`."""
    if cache.problem_type == "single_label_classification":
        dlogits = ops.cross_entropy_backward(dloss, cache.loss)
    elif cache.problem_type == "multi_label_classification":
        dlogits, _ = ops.bce_with_logits_backward(dloss, cache.loss)
    else:
        dlogits, _ = ops.mse_backward(dloss, cache.loss)
    dpooled, grads = classifier_backward(dlogits, cache.classifier, ops)
    return HeadGradients(None, dpooled, grads)


class ClassLossCache(NamedTuple):
    """What the backward pass of a head with one cross-entropy loss needs."""

    classifier: ClassifierCache
    loss: Any


def token_classification_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, ClassLossCache]:
    """Score the classes of each token.  (B, T, D) -> (B, T, classes)"""
    logits, classifier_cache = classifier_forward(params, config, body.last_hidden_state, options, ops)
    loss = loss_cache = None
    if labels.labels is not None:
        loss, loss_cache = ops.cross_entropy_forward(logits, labels.labels, IGNORE_INDEX, options.reduction)
    return HeadOutput(loss, {"logits": logits}), ClassLossCache(classifier_cache, loss_cache)


def token_classification_backward(
    dloss: Array, cache: ClassLossCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`token_classification_forward`."""
    dlogits = ops.cross_entropy_backward(dloss, cache.loss)
    dlast_hidden_state, grads = classifier_backward(dlogits, cache.classifier, ops)
    return HeadGradients(dlast_hidden_state, None, grads)


def multiple_choice_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, ClassLossCache]:
    """Give each choice one score; the scores of one question's choices compete.  (B*C, D) -> (B, C)"""
    scores, classifier_cache = classifier_forward(params, config, body.pooler_output, options, ops)
    logits = scores.reshape(-1, options.choices)  # (B*C, 1) -> (B, C)
    loss = loss_cache = None
    if labels.labels is not None:
        loss, loss_cache = ops.cross_entropy_forward(logits, labels.labels, IGNORE_INDEX, options.reduction)
    return HeadOutput(loss, {"logits": logits}), ClassLossCache(classifier_cache, loss_cache)


def multiple_choice_backward(
    dloss: Array, cache: ClassLossCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`multiple_choice_forward`."""
    dlogits = ops.cross_entropy_backward(dloss, cache.loss)  # (B, C)
    dscores = dlogits.reshape(-1, 1)  # (B, C) -> (B*C, 1)
    dpooled, grads = classifier_backward(dscores, cache.classifier, ops)
    return HeadGradients(None, dpooled, grads)
