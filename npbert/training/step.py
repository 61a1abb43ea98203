"""One optimiser step's losses and gradients: over one batch, or over several whose gradients are added up.

The loss of a step is a mean over its labels. Where the step is made of several batches, each of them must
weigh its labels as one batch of all would: sums are divided by the number of labels of the whole step, not
of the batch. That makes accumulation, and data parallel training, exactly the large batch.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from npbert.bert import Bert
from npbert.heads import HeadOptions, HeadOutput, task_backward, task_forward
from npbert.labels import IGNORE_INDEX, LABELS_OF_TASK, Labels
from npbert.ops.array_module import Array
from npbert.params import Params

Batch = Mapping[str, Any]
Counts = dict[str, int]


@dataclass(frozen=True)
class Tally:
    """What one kind of label cost, and how often the model's best guess was the label.

    Attributes
    ----------
    count : int
        Labels.
    loss : float
        The sum of their losses.
    correct : int or None
        Labels that had the best score; None where labels are numbers.
    """

    count: int = 0
    loss: float = 0.0
    correct: int | None = 0

    def __add__(self, other: "Tally") -> "Tally":
        both_known = self.correct is not None and other.correct is not None
        correct = (self.correct or 0) + (other.correct or 0) if both_known else None
        return Tally(self.count + other.count, self.loss + other.loss, correct)

    @property
    def mean_loss(self) -> float:
        """The loss of one label; 0 without any."""
        return self.loss / max(self.count, 1)

    @property
    def accuracy(self) -> float | None:
        """The share of labels that had the best score."""
        return None if self.correct is None else self.correct / max(self.count, 1)


Tallies = dict[str, Tally]


class StepResult(NamedTuple):
    """What a step, or one batch of it, gives.

    Attributes
    ----------
    loss : float
        A batch's share of the step's loss: the losses of its batches add up to the loss of the step.
    tallies : dict of str to Tally
        By the name of the labels.
    tokens : int
        That attention looks at.
    grads : dict of str to array
    """

    loss: float
    tallies: Tallies
    tokens: int
    grads: Params


def count_labels(batch: Batch, task: str) -> Counts:
    """Return how many terms a batch's losses have, by the name of the labels.

    Parameters
    ----------
    batch : mapping of str to array
        As for `npbert.Bert.loss_and_grads`.
    task : str

    Examples
    --------
    >>> count_labels({"labels": [[7, -100], [-100, 9]], "next_sentence_label": [0, 1]}, "pretraining")
    {'labels': 2, 'next_sentence_label': 2}
    """
    counts = {}
    for name in LABELS_OF_TASK[task]:
        labels = np.asarray(batch.get(name, ()))
        is_class = labels.dtype.kind in "iu"
        counts[name] = int(np.count_nonzero(labels != IGNORE_INDEX)) if is_class else labels.size
    return counts


def add_counts(counts: Iterable[Counts]) -> Counts:
    """Return the sum of some batches' counts."""
    total: Counts = {}
    for some in counts:
        total = {name: total.get(name, 0) + count for name, count in some.items()}
    return total


def run_batch(
    bert: Bert,
    batch: Batch,
    dropout_seed: int | None = None,
    step_counts: Counts | None = None,
    gradients: bool = True,
) -> StepResult:
    """Compute a batch's losses, and the gradients of all parameters.

    Parameters
    ----------
    bert : Bert
        For any task but "encoder".
    batch : mapping of str to array
    dropout_seed : int or None
    step_counts : dict of str to int, optional
        The labels of the whole step, where this is one batch of several. None: it is the only one.
    gradients : bool
        False leaves the gradients empty.

    Returns
    -------
    StepResult
    """
    inputs, labels = bert.prepare(batch)
    names = LABELS_OF_TASK[bert.task]
    weights = None
    if step_counts is not None:
        weights = {name: 1 / max(step_counts[name], 1) for name in names}
    has_two_losses = bert.task == "pretraining"
    options = HeadOptions(
        dropout_seed,
        reduction="mean" if weights is None else "sum",
        all_logits=False,
        choices=inputs.choices,
        loss_weights=weights if has_two_losses else None,
    )
    _, head, cache = task_forward(bert.params, bert.config, bert.task, inputs, labels, options, bert.ops)
    assert head.loss is not None
    weight = 1.0 if weights is None or has_two_losses else weights[names[0]]
    grads: Params = {}
    if gradients:
        dloss = bert.dtype.type(weight)
        _, grads = task_backward(dloss, cache, bert.params, bert.config, bert.task, bert.ops)
    tokens = inputs.position_ids.size if inputs.key_mask is None else int(inputs.key_mask.sum())
    tallies = tally(head, labels, count_labels(batch, bert.task), options.reduction)
    return StepResult(weight * float(head.loss), tallies, tokens, grads)


def add_results(first: StepResult, second: StepResult) -> StepResult:
    """Return the sum of two batches' results; the gradients of the first are changed."""
    grads = first.grads or second.grads
    if first.grads:
        for name, grad in second.grads.items():
            grads[name] += grad
    tallies = add_tallies(first.tallies, second.tallies)
    return StepResult(first.loss + second.loss, tallies, first.tokens + second.tokens, grads)


def tally(head: HeadOutput, labels: Labels, counts: Counts, reduction: str) -> Tallies:
    """Return what each kind of label of a batch cost, and how many the model got right.

    Parameters
    ----------
    head : HeadOutput
        With a loss.
    labels : Labels
    counts : dict of str to int
        From `count_labels`.
    reduction : "mean" or "sum"
        What the head was run with.

    Returns
    -------
    dict of str to Tally
        One for each loss: the two losses of question answering count as one, right where both ends are.
    """
    parts = head.parts if head.parts is not None else {next(iter(counts)): head}
    tallies = {}
    for name, part in parts.items():
        if part.loss is None:
            continue
        loss = float(part.loss) * (counts[name] if reduction == "mean" else 1)
        tallies[name] = Tally(counts[name], loss, _correct(part, labels, name))
    return tallies


def _correct(head: HeadOutput, labels: Labels, name: str) -> int | None:
    """Return how many labels have the best score; None where labels are numbers."""
    if head.correct is not None:
        return head.correct
    if labels.problem_type not in (None, "single_label_classification"):
        return None
    if "start_logits" in head.logits:
        start_is_right = _is_best(head.logits["start_logits"], labels.start_positions)
        return int((start_is_right & _is_best(head.logits["end_logits"], labels.end_positions)).sum())
    logits = head.logits.get("logits", head.logits.get("seq_relationship_logits"))
    return int(_is_best(logits, getattr(labels, name)).sum())


def _is_best(logits: Array | None, labels: Array | None) -> Array:
    """Return for each label whether it has the best score.  (..., C), (...) -> (...) bool

    Where there are scores of labelled places only, (M, C), so are the answers.
    """
    assert logits is not None and labels is not None
    best = logits.argmax(axis=-1)
    if best.shape != labels.shape:
        labels = labels[labels != IGNORE_INDEX]
    is_best: Array = best == labels
    return is_best


def evaluate(bert: Bert, batches: Iterable[Batch]) -> tuple[float, Tallies]:
    """Return the loss and the tallies over batches that the model does not learn from.

    Parameters
    ----------
    bert : Bert
    batches : iterable of mapping of str to array

    Returns
    -------
    loss : float
        The mean over all labels; for pre-training the sum of the two means.
    tallies : dict of str to Tally
    """
    tallies: Tallies = {}
    for batch in batches:
        tallies = add_tallies(tallies, run_batch(bert, batch, gradients=False).tallies)
    return mean_loss(tallies), tallies


def mean_loss(tallies: Tallies) -> float:
    """Return the loss whose parts are the means of some tallies."""
    return sum(some.mean_loss for some in tallies.values())


def add_tallies(first: Tallies, second: Tallies) -> Tallies:
    """Return the sums of two, name by name."""
    return {name: first.get(name, Tally()) + second.get(name, Tally()) for name in first | second}
