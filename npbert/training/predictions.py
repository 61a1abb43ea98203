"""A model's scores of many examples, in batches of examples of about the same length."""

from collections.abc import Callable, Sequence
from typing import Any, Final

from numpy.typing import NDArray

from npbert.bert import DEFAULT_BATCH_TOKENS, Bert
from npbert.data.labelled import EncodedExample, pad_batch
from npbert.encoding import batches_by_length
from npbert.ops.array_module import to_numpy

Logits = dict[str, NDArray[Any]]

LOGITS_OF_TASK: Final = {
    "sequence_classification": ("logits",),
    "token_classification": ("logits",),
    "question_answering": ("start_logits", "end_logits"),
}


def predict(
    bert: Bert,
    examples: Sequence[EncodedExample],
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    advance: Callable[[int], None] = lambda done: None,
) -> list[Logits]:
    """Return a model's scores.

    Parameters
    ----------
    bert : Bert
        For one of the tasks above, with a tokenizer.
    examples : sequence of EncodedExample
        Their labels are not looked at.
    batch_tokens : int
        The most tokens of a batch, padding included; a longer example runs alone.
    advance : callable
        Called with a number of examples when these are done.

    Returns
    -------
    list of dict of str to array
        For each example, by the names of `npbert.output.BertOutput`: ``logits`` (C,), or one score, or C, for
        each of its tokens, (T,) or (T, C).
    """
    assert bert.tokenizer is not None
    found: list[Logits] = [{} for _ in examples]
    per_token = bert.task != "sequence_classification"
    for numbers in batches_by_length([len(example.input_ids) for example in examples], batch_tokens):
        unlabelled = [examples[number]._replace(labels={}, token_labels=None) for number in numbers]
        inputs: dict[str, Any] = pad_batch(unlabelled, bert.tokenizer.pad_id)
        output = bert.forward(**inputs)
        for name in LOGITS_OF_TASK[bert.task]:
            scores = to_numpy(getattr(output, name))
            for row, number in enumerate(numbers):
                length = len(examples[number].input_ids)
                found[number][name] = scores[row, :length] if per_token else scores[row]
        advance(len(numbers))
    return found
