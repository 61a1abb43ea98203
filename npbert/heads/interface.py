"""What every task head takes and gives."""

from collections.abc import Mapping
from typing import NamedTuple

from npbert.ops.array_module import Array


class HeadOptions(NamedTuple):
    """How a head is to be run."""

    dropout_seed: int | None = None  # None: no dropout
    reduction: str = "mean"  # over the labelled places: "mean" or "sum"
    all_logits: bool = True  # False: only the loss is wanted, and scores only where a label asks for them
    choices: int = 1  # multiple choice: how many texts in a row belong to one question
    # What each loss of a task that has two is multiplied by, under the name of its labels. None: by 1.
    loss_weights: Mapping[str, float] | None = None

    def weight_of(self, labels: str) -> float:
        """Return what the loss of these labels is multiplied by."""
        return 1.0 if self.loss_weights is None else self.loss_weights[labels]


class HeadOutput(NamedTuple):
    """What a head computes."""

    loss: Array | None  # (), None without labels
    # Under the names of Hugging Face's output classes; None where only the loss was wanted.
    logits: dict[str, Array | None]
    # How many labels have the best score, of an engine that does not keep the scores.
    correct: int | None = None
    # A task made of two: the outputs of both, under the names of their labels.
    parts: dict[str, "HeadOutput"] | None = None


class HeadGradients(NamedTuple):
    """What a head's backward pass gives."""

    dlast_hidden_state: Array | None  # (B, T, D), None where the head does not look at the tokens
    dpooler_output: Array | None  # (B, D), None where the head does not look at the pooler
    grads: dict[str, Array]  # under the names of the parameters that the head uses
