"""A loss or a gradient that is no number: which tensor turned first."""

from collections.abc import Iterator, Mapping

from npbert.bert import INPUT_NAMES, Bert
from npbert.ops.array_module import Array, array_module
from npbert.params import Params
from npbert.training.step import Batch


class TrainingError(ValueError):
    """Training cannot go on; the message says at which step, and why."""


def first_not_finite(bert: Bert, batch: Batch, dropout_seed: int | None, grads: Params) -> str:
    """Name the first tensor of a step that holds a NaN or an infinity, in the order in which it is computed.

    Parameters
    ----------
    bert : Bert
    batch : mapping of str to array
        What the step was taken on.
    dropout_seed : int or None
    grads : dict of str to array
        Those of the step.

    Returns
    -------
    str
        Such as "the output of encoder layer 3"; empty where all are finite.
    """
    for name, tensor in _in_order(bert, batch, dropout_seed, grads):
        if not bool(array_module(tensor).isfinite(tensor).all()):
            return name
    return ""


def _in_order(
    bert: Bert, batch: Batch, dropout_seed: int | None, grads: Mapping[str, Array]
) -> Iterator[tuple[str, Array]]:
    for name, value in bert.params.items():
        yield f"the parameter {name}", value
    inputs = {name: batch[name] for name in INPUT_NAMES if name in batch}
    output = bert.forward(**inputs, output_hidden_states=True, dropout_seed=dropout_seed)
    assert output.hidden_states is not None
    embeddings, *layers = output.hidden_states
    yield "the output of the embeddings", embeddings
    for number, hidden in enumerate(layers):
        yield f"the output of encoder layer {number}", hidden
    if output.pooler_output is not None:
        yield "the output of the pooler", output.pooler_output
    for name in ("logits", "prediction_logits", "seq_relationship_logits", "start_logits", "end_logits"):
        value = getattr(output, name)
        if value is not None:
            yield f"the {name}", value
    for name, value in reversed(list(grads.items())):
        yield f"the gradient of {name}", value
