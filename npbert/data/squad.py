"""Questions about texts, in JSON as that of SQuAD (1.1 and 2.0), and the windows a model reads them through.

A text that is longer than the model is read in several windows that overlap, each of them after the question.
The answer is marked by its first and last token; where a window does not have all of it, and where there is
none, by [CLS].
"""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.data.labelled import EncodedExample
from npbert.data.text_files import has_lone_surrogate, read_text
from npbert.data.wording import listed, shown
from npbert.tokenizer import WordPieceTokenizer
from npbert.tokenizer.encoding import Offset

Array = NDArray[Any]

CLS_POSITION: Final = 0


class Answer(NamedTuple):
    """A piece of a text, and the character that it begins with."""

    text: str
    start: int


class Question(NamedTuple):
    """A question about a text.

    Attributes
    ----------
    id : str
    question, context : str
    answers : tuple of Answer
        What different people answered; none where the text has no answer.
    """

    id: str
    question: str
    context: str
    answers: tuple[Answer, ...]


class Window(NamedTuple):
    """What one example shows of a text.

    Attributes
    ----------
    question : int
        Which one.
    first_token : int
        Where, in the example, the text begins.
    offsets : tuple of (int, int)
        Of each of the text's tokens in the window: its first character, and the one after its last.
    """

    question: int
    first_token: int
    offsets: tuple[Offset, ...]


def read_squad(path: Path | str, labelled: bool = True) -> list[Question]:
    """Read the questions of a file.

    Parameters
    ----------
    path : path
        UTF-8; may be compressed (.gz, .bz2).
    labelled : bool
        Whether to read the answers; without, they may be missing.

    Returns
    -------
    list of Question
        At least one.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is not such a file, an answer does not stand where it says, or an id is there twice. Names the
        file and the place in it.
    """
    text = read_text(path)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: line {error.lineno}, column {error.colno}: no JSON: {error.msg}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: {error}") from None
    questions: list[Question] = []
    ids: set[str] = set()
    for context, record in _records(_Reader(str(path), "", value)):
        question = _question(context, record, labelled)
        if question.id in ids:
            raise ValueError(f"{record.name('id')}: {shown(question.id)} is the id of an earlier question")
        ids.add(question.id)
        questions.append(question)
    if not questions:
        raise ValueError(f"{path}: no questions")
    return questions


class _Reader(NamedTuple):
    """A value of a JSON file that knows where it stands, so that what is wrong with it can be named."""

    path: str
    place: str
    value: Any

    def name(self, key: str) -> str:
        return f"{self.path}: {self.place}.{key}".replace(": .", ": ")

    def get(self, key: str, kind: type, what: str) -> Any:
        """Return the value of a key, which must be there and of this kind."""
        if not isinstance(self.value, dict):
            raise ValueError(f"{self.path}: {self.place or 'the file'} is no JSON object")
        if key not in self.value:
            raise ValueError(f"{self.name(key)} is missing; there are: {listed(list(self.value))}")
        value = self.value[key]
        if not isinstance(value, kind) or isinstance(value, bool):
            raise ValueError(f"{self.name(key)} is {shown(value)}; it must be {what}")
        return value

    def text(self, key: str) -> str:
        value: str = self.get(key, str, "a text")
        if has_lone_surrogate(value):
            raise ValueError(f"{self.name(key)} is {shown(value)}: half a character")
        return value

    def items(self, key: str) -> Iterator["_Reader"]:
        for index, item in enumerate(self.get(key, list, "a list")):
            place = f"{self.place}.{key}[{index}]".removeprefix(".")
            yield _Reader(self.path, place, item)


def _records(file: _Reader) -> Iterator[tuple[str, _Reader]]:
    """Yield each question after the text that it is about."""
    for article in file.items("data"):
        for paragraph in article.items("paragraphs"):
            context = paragraph.text("context")
            for record in paragraph.items("qas"):
                yield context, record


def _question(context: str, record: _Reader, labelled: bool) -> Question:
    name, question = record.text("id"), record.text("question")
    answers: tuple[Answer, ...] = ()
    if labelled and not record.value.get("is_impossible"):
        answers = tuple(_answer(context, answer) for answer in record.items("answers"))
    return Question(name, question, context, answers)


def _answer(context: str, answer: _Reader) -> Answer:
    text, start = answer.text("text"), answer.get("answer_start", int, "an integer")
    if not text:
        raise ValueError(f"{answer.name('text')} is empty")
    there = context[start : start + len(text)] if start >= 0 else ""
    if there != text:
        raise ValueError(
            f"{answer.name('answer_start')} is {start}, where the context has {shown(there)}, not the answer "
            f"{shown(text)}"
        )
    return Answer(text, start)


# Windows ------------------------------------------------------------------------------------------------


def encode_questions(
    questions: Sequence[Question],
    tokenizer: WordPieceTokenizer,
    *,
    max_length: int = 384,
    stride: int = 128,
    max_question_length: int = 64,
    labelled: bool = True,
    advance: Callable[[int], None] = lambda done: None,
) -> tuple[list[EncodedExample], list[Window]]:
    """Turn questions and their texts into windows.

    Parameters
    ----------
    questions : sequence of Question
    tokenizer : WordPieceTokenizer
    max_length : int
        The most tokens of a window, the question and special tokens included.
    stride : int
        How many tokens further on the next window begins.
    max_question_length : int
        Longer questions are cut.
    labelled : bool
        Whether the examples have ``start_positions`` and ``end_positions``. Of several answers the first
        counts.
    advance : callable
        Called with a number of questions when these are done.

    Returns
    -------
    examples : list of EncodedExample
    windows : list of Window
        What each example shows.

    Raises
    ------
    ValueError
        If there is no room for any text.
    """
    if stride < 1:
        raise ValueError(f"stride is {stride}; it must be at least 1")
    question_ids = tokenizer.encode_ids(
        [question.question for question in questions], add_special_tokens=False
    )
    examples: list[EncodedExample] = []
    windows: list[Window] = []
    encoded = None
    for index, question in enumerate(questions):
        prefix = [tokenizer.cls_id, *question_ids[index][:max_question_length], tokenizer.sep_id]
        room = max_length - len(prefix) - 1
        if room < 1:
            raise ValueError(
                f"max_length is {max_length}; the question {shown(question.id)} alone, with special tokens, "
                f"has {len(prefix) + 1}"
            )
        if encoded is None or question.context != questions[index - 1].context:
            encoded = tokenizer.encode(question.context, add_special_tokens=False)
        answer = _answer_tokens(question, encoded.offsets) if labelled else None
        for start in _window_starts(len(encoded.ids), room, min(stride, room)):
            ids = encoded.ids[start : start + room]
            labels: dict[str, Array] = {}
            if labelled:
                first, last = _answer_in_window(answer, start, len(ids), len(prefix))
                labels = {"start_positions": np.array(first), "end_positions": np.array(last)}
            input_ids = [*prefix, *ids, tokenizer.sep_id]
            token_type_ids = np.zeros(len(input_ids), dtype=np.int8)
            token_type_ids[len(prefix) :] = 1
            examples.append(EncodedExample(np.array(input_ids, dtype=np.int32), token_type_ids, labels))
            windows.append(Window(index, len(prefix), tuple(encoded.offsets[start : start + room])))
        advance(1)
    return examples, windows


def _window_starts(tokens: int, room: int, stride: int) -> range:
    """Return where windows begin that have all of a text.

    Examples
    --------
    >>> list(_window_starts(10, room=6, stride=3)), list(_window_starts(0, room=6, stride=3))
    ([0, 3, 6], [0])
    """
    beyond_first = max(tokens - room, 0)
    return range(0, beyond_first + stride, stride) if beyond_first else range(1)


def _answer_tokens(question: Question, offsets: Sequence[Offset]) -> tuple[int, int] | None:
    """Return the first and the last token of the text that have a character of the answer."""
    if not question.answers:
        return None
    text, start = question.answers[0]
    touched = [
        token
        for token, (token_start, token_stop) in enumerate(offsets)
        if token_stop > start and token_start < start + len(text)
    ]
    return (touched[0], touched[-1]) if touched else None


def _answer_in_window(
    answer: tuple[int, int] | None, start: int, tokens: int, first_token: int
) -> tuple[int, int]:
    """Return the places of the answer's ends in an example; those of [CLS], if it has not all of it."""
    if answer is None or answer[0] < start or answer[1] >= start + tokens:
        return CLS_POSITION, CLS_POSITION
    return answer[0] - start + first_token, answer[1] - start + first_token
