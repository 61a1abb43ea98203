"""What the tasks have in common."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from numpy.typing import NDArray

from npbert.config import BertConfig
from npbert.data.labelled import EncodedExample
from npbert.tokenizer import WordPieceTokenizer

Record = dict[str, Any]  # of values that JSON can hold
Logits = Mapping[str, NDArray[Any]]  # a model's scores for one example, by their names in BertOutput


class TaskFile(Protocol):
    """A file of examples of one task, with or without their labels.

    Attributes
    ----------
    task : str
        As for `npbert.Bert`.
    count : int
        How many items it has: texts, sentences or questions.
    """

    task: str
    count: int

    def config_fields(self) -> Record:
        """Return the fields of `npbert.BertConfig` that a model to be trained on this file must have.

        Raises
        ------
        ValueError
            If nothing can be learned from it: names the file.
        """

    def encode(
        self,
        tokenizer: WordPieceTokenizer,
        config: BertConfig,
        max_length: int,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[EncodedExample]:
        """Return the examples as the model takes them, at most ``max_length`` tokens long.

        ``advance`` is called with a number of items when these are done.

        Raises
        ------
        ValueError
            For a label that the model does not know: names the file and the line.
        """

    def answers(self, logits: Sequence[Logits], config: BertConfig) -> list[Record]:
        """Return what the model's scores of the encoded examples mean, a record for each item of the file."""

    def scores(self, answers: Sequence[Record]) -> Record:
        """Return how good the answers are, by the labels of the file."""

    def rows(self, answers: Sequence[Record]) -> list[Record]:
        """Return the answers as the rows of a table, all with the same columns."""
