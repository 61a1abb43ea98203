"""Questions about texts, answered with a piece of the text."""

from collections.abc import Callable, Sequence
from pathlib import Path

from npbert.config import BertConfig
from npbert.data.answers import answer_scores, find_answers
from npbert.data.labelled import EncodedExample
from npbert.data.squad import Window, encode_questions, read_squad
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks.interface import Logits, Record


class QuestionFile:
    """A file in SQuAD's format; see `npbert.data.squad` for what may be wrong.

    Parameters
    ----------
    path : path
    stride : int
        How many tokens further on the next window of a long text begins.
    max_answer_tokens : int
    may_be_none : bool or None
        Whether a question may be left without an answer. None: if some of the file are.
    labelled : bool
        Whether to read the answers.
    """

    task = "question_answering"

    def __init__(
        self,
        path: Path | str,
        stride: int = 128,
        max_answer_tokens: int = 30,
        may_be_none: bool | None = None,
        labelled: bool = True,
    ) -> None:
        self.path = path
        self.stride = stride
        self.max_answer_tokens = max_answer_tokens
        self.is_labelled = labelled
        self.questions = read_squad(path, labelled)
        if may_be_none is None:
            may_be_none = labelled and not all(question.answers for question in self.questions)
        self.may_be_none = may_be_none
        self.count = len(self.questions)
        self.windows: list[Window] = []

    def config_fields(self) -> Record:
        """Return the number of scores of a token: as start and as end; see `TaskFile`."""
        if not any(question.answers for question in self.questions):
            raise ValueError(f"{self.path}: no question has an answer; there is nothing to learn")
        return {"num_labels": 2}

    def encode(
        self,
        tokenizer: WordPieceTokenizer,
        config: BertConfig,
        max_length: int,
        advance: Callable[[int], None] = lambda done: None,
    ) -> list[EncodedExample]:
        """Return the windows of all questions; see `TaskFile`."""
        examples, self.windows = encode_questions(
            self.questions,
            tokenizer,
            max_length=max_length,
            stride=self.stride,
            labelled=self.is_labelled,
            advance=advance,
        )
        return examples

    def answers(self, logits: Sequence[Logits], config: BertConfig) -> list[Record]:
        """Return for each question its "id", the "answer" ("": none), its "start" and "probability"."""
        found = find_answers(
            self.questions,
            self.windows,
            [one["start_logits"] for one in logits],
            [one["end_logits"] for one in logits],
            max_answer_tokens=self.max_answer_tokens,
            may_be_none=self.may_be_none,
        )
        return [
            {
                "id": question.id,
                "question": question.question,
                "answer": answer.text,
                "start": answer.start,
                "probability": answer.probability,
            }
            for question, answer in zip(self.questions, found, strict=True)
        ]

    def scores(self, answers: Sequence[Record]) -> Record:
        """Return SQuAD's "exact_match" and "f1", from 0 to 1; see `TaskFile`."""
        return answer_scores(self.questions, [answer["answer"] for answer in answers])._asdict()

    def rows(self, answers: Sequence[Record]) -> list[Record]:
        """Return the answers, which are flat."""
        return list(answers)
