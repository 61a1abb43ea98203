"""What every task head takes and gives."""

from typing import NamedTuple

from npbert.ops.array_module import Array


class HeadOptions(NamedTuple):
    """How a head is to be run."""

    dropout_seed: int | None = None  # None: no dropout
    reduction: str = "mean"  # over the labelled places: "mean" or "sum"
    all_logits: bool = True  # False: only the loss is wanted, and scores only where a label asks for them
    choices: int = 1  # multiple choice: how many texts in a row belong to one question


class HeadOutput(NamedTuple):
    """What a head computes."""

    loss: Array | None  # (), None without labels
    # Under the names of Hugging Face's output classes; None where only the loss was wanted.
    logits: dict[str, Array | None]


class HeadGradients(NamedTuple):
    """What a head's backward pass gives."""

    dlast_hidden_state: Array | None  # (B, T, D), None where the head does not look at the tokens
    dpooler_output: Array | None  # (B, D), None where the head does not look at the pooler
    grads: dict[str, Array]  # under the names of the parameters that the head uses
