"""The task heads: what is put on top of BERT's body, the losses, and the way back through both.

:func:`task_forward` and :func:`task_backward` are BERT as a whole, body and head. Their parameters have
Hugging Face's full names: ``"bert.encoder.layer.0..."`` and the head's own.
"""

from collections.abc import Callable
from types import ModuleType
from typing import Any, Final, NamedTuple

from npbert.config import BertConfig
from npbert.heads.classification import (
    multiple_choice_backward,
    multiple_choice_forward,
    sequence_classification_backward,
    sequence_classification_forward,
    token_classification_backward,
    token_classification_forward,
)
from npbert.heads.interface import HeadGradients, HeadOptions, HeadOutput
from npbert.heads.pretraining import (
    masked_lm_backward,
    masked_lm_forward,
    next_sentence_backward,
    next_sentence_forward,
    pretraining_backward,
    pretraining_forward,
)
from npbert.heads.question_answering import question_answering_backward, question_answering_forward
from npbert.inputs import ModelInputs
from npbert.labels import IGNORE_INDEX, Labels
from npbert.model import (
    ModelCache,
    ModelOutput,
    Params,
    model_backward,
    model_forward,
    zeros_for_unused,
)
from npbert.ops.array_module import Array, array_module
from npbert.params import BODY_PREFIX, TASKS_WITHOUT_POOLER, subset, with_prefix

__all__ = [
    "HEADS",
    "HeadGradients",
    "HeadOptions",
    "HeadOutput",
    "TaskCache",
    "task_backward",
    "task_forward",
    "tokens_that_are_read",
]

TASKS_WITH_TOKEN_LABELS: Final = ("pretraining", "masked_lm", "token_classification")

HeadForward = Callable[..., tuple[HeadOutput, Any]]
HeadBackward = Callable[..., HeadGradients]

HEADS: Final[dict[str, tuple[HeadForward, HeadBackward]]] = {
    "pretraining": (pretraining_forward, pretraining_backward),
    "masked_lm": (masked_lm_forward, masked_lm_backward),
    "next_sentence": (next_sentence_forward, next_sentence_backward),
    "sequence_classification": (sequence_classification_forward, sequence_classification_backward),
    "token_classification": (token_classification_forward, token_classification_backward),
    "question_answering": (question_answering_forward, question_answering_backward),
    "multiple_choice": (multiple_choice_forward, multiple_choice_backward),
}


class TaskCache(NamedTuple):
    """What :func:`task_backward` needs."""

    body: ModelCache | None
    head: Any


def task_forward(
    params: Params,
    config: BertConfig,
    task: str,
    inputs: ModelInputs,
    labels: Labels,
    options: HeadOptions,
    ops: ModuleType,
    output_hidden_states: bool = False,
    output_attentions: bool = False,
    keep_cache: bool = True,
) -> tuple[ModelOutput, HeadOutput, TaskCache]:
    """Run a task's body and head.

    Parameters
    ----------
    params : dict of str to array
        Under the names of :func:`npbert.params.parameter_shapes`.
    config : BertConfig
    task : str
        One of ``HEADS``.
    inputs : ModelInputs
    labels : Labels
        Empty where no loss is wanted.
    options : HeadOptions
    ops : module
        :mod:`npbert.ops` or an engine.
    output_hidden_states, output_attentions, keep_cache : bool
        As for :func:`npbert.model.model_forward`.

    Returns
    -------
    body : ModelOutput
    head : HeadOutput
    cache : TaskCache
    """
    head_forward, _ = HEADS[task]
    if not options.all_logits:
        inputs = inputs._replace(read_mask=tokens_that_are_read(task, inputs, labels))
    body, body_cache = model_forward(
        subset(params, BODY_PREFIX),
        config,
        inputs,
        ops,
        options.dropout_seed,
        output_hidden_states,
        output_attentions,
        keep_cache,
    )
    head, head_cache = head_forward(params, config, body, labels, options, ops)
    return body, head, TaskCache(body_cache, head_cache)


def tokens_that_are_read(task: str, inputs: ModelInputs, labels: Labels) -> Array | None:
    """Return which tokens a task's loss is computed from: others only matter where attention looks at them.

    Parameters
    ----------
    task : str
        One of ``HEADS``.
    inputs : ModelInputs
    labels : Labels

    Returns
    -------
    (B, T) bool, or None for all tokens
    """
    if task == "question_answering":
        return None  # all tokens of a text compete with each other
    read: Array = array_module(inputs.position_ids).zeros(inputs.shape, dtype=bool)
    if task in TASKS_WITH_TOKEN_LABELS and labels.labels is not None:
        read |= labels.labels != IGNORE_INDEX
    if task not in TASKS_WITHOUT_POOLER:
        read[:, 0] = True
    return read


def task_backward(
    dloss: Array, cache: TaskCache, params: Params, config: BertConfig, task: str, ops: ModuleType
) -> tuple[Array | None, Params]:
    """Backward of :func:`task_forward`, from the loss to every parameter.

    Parameters
    ----------
    dloss : () floating
        1 for the gradient of the loss itself.
    cache : TaskCache
        Of a forward pass with labels.
    params, config, task, ops
        Those of the forward pass.

    Returns
    -------
    dinputs_embeds : (B, T, D), or None where the forward pass took input_ids
    grads : dict of str to array
        One gradient for each of ``params``, in their order; zeros for parameters that were not used.

    Raises
    ------
    ValueError
        If the forward pass was run with ``keep_cache=False``.
    """
    if cache.body is None:
        raise ValueError("the forward pass kept no cache (keep_cache=False): there is no way back")
    _, head_backward = HEADS[task]
    head = head_backward(dloss, cache.head, config, ops)
    dinputs_embeds, body_grads = model_backward(
        head.dlast_hidden_state, head.dpooler_output, cache.body, subset(params, BODY_PREFIX), config, ops
    )
    grads = with_prefix(body_grads, BODY_PREFIX)
    for name, grad in head.grads.items():
        if name in grads:
            # A tied decoder is the word embedding: used by the body and by the head, it gets both gradients.
            grads[name] += grad
        else:
            grads[name] = grad
    return dinputs_embeds, zeros_for_unused(grads, params)
