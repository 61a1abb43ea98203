"""Extractive question answering: where in the text does the answer start, and where does it end?"""

from types import ModuleType
from typing import Any, NamedTuple

from npbert.config import BertConfig
from npbert.heads.interface import HeadGradients, HeadOptions, HeadOutput
from npbert.labels import IGNORE_INDEX, Labels
from npbert.model import ModelOutput, Params
from npbert.ops.array_module import Array, array_module


class QuestionAnsweringCache(NamedTuple):
    """What :func:`question_answering_backward` needs."""

    linear: Any
    start_loss: Any
    end_loss: Any


def question_answering_forward(
    params: Params,
    config: BertConfig,
    body: ModelOutput,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
) -> tuple[HeadOutput, QuestionAnsweringCache]:
    """Give each token a score as start and one as end; the loss is the mean of two cross-entropies.

    The tokens of a text are the classes: (B, T, D) -> (B, T, 2) -> twice (B, T).
    """
    scores, linear_cache = ops.linear_forward(
        body.last_hidden_state, params["qa_outputs.weight"], params["qa_outputs.bias"]
    )
    start_logits, end_logits = scores[:, :, 0], scores[:, :, 1]  # (B, T, 2) -> (B, T), (B, T)
    loss = start_cache = end_cache = None
    if labels.start_positions is not None:
        start_loss, start_cache = ops.cross_entropy_forward(
            start_logits, labels.start_positions, IGNORE_INDEX, options.reduction
        )
        end_loss, end_cache = ops.cross_entropy_forward(
            end_logits, labels.end_positions, IGNORE_INDEX, options.reduction
        )
        loss = (start_loss + end_loss) / 2
    logits = {"start_logits": start_logits, "end_logits": end_logits}
    return HeadOutput(loss, logits), QuestionAnsweringCache(linear_cache, start_cache, end_cache)


def question_answering_backward(
    dloss: Array, cache: QuestionAnsweringCache, config: BertConfig, ops: ModuleType
) -> HeadGradients:
    """Backward of :func:`question_answering_forward`."""
    dstart_logits = ops.cross_entropy_backward(dloss / 2, cache.start_loss)  # (B, T)
    dend_logits = ops.cross_entropy_backward(dloss / 2, cache.end_loss)  # (B, T)
    xp = array_module(dstart_logits)
    dscores = xp.stack([dstart_logits, dend_logits], axis=-1)  # (B, T, 2)
    grads: Params = {}
    dlast_hidden_state, grads["qa_outputs.weight"], grads["qa_outputs.bias"] = ops.linear_backward(
        dscores, cache.linear
    )
    return HeadGradients(dlast_hidden_state, None, grads)
