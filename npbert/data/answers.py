"""Answers to questions: from a model's scores to a piece of text, and how good the pieces are.

References
----------
Rajpurkar et al. (2016), SQuAD; Rajpurkar et al. (2018), Know What You Don't Know; the definitions are those
of SQuAD's own evaluate-v2.0.py.
"""

import re
import string
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from npbert.data.squad import CLS_POSITION, Question, Window
from npbert.ops import softmax_forward

Array = NDArray[Any]

ARTICLES: Final = re.compile(r"\b(a|an|the)\b")
WITHOUT_PUNCTUATION: Final = str.maketrans("", "", string.punctuation)


class Span(NamedTuple):
    """The best answer in one window: its tokens, from the text's first on, and its score."""

    first: int
    last: int
    score: float


class FoundAnswer(NamedTuple):
    """What a model answered.

    Attributes
    ----------
    text : str
        Empty: that there is no answer.
    start : int or None
        The character of the context that it begins with; None without an answer.
    probability : float
        That of its first token times that of its last, among those of its window.
    """

    text: str
    start: int | None
    probability: float


class AnswerScores(NamedTuple):
    """Means over all questions, from 0 to 1.

    Attributes
    ----------
    exact_match : float
        The share of answers that equal a true one, but for case, punctuation and articles.
    f1 : float
        Of the words of the answer and of the true one that is most like it.
    """

    exact_match: float
    f1: float


def best_span(start_logits: Array, end_logits: Array, max_tokens: int) -> Span:
    """Return the span with the largest sum of its two scores.

    Parameters
    ----------
    start_logits, end_logits : (T,) floating
        The scores of a text's tokens as first and as last one; at least one.
    max_tokens : int
        The longest that an answer may be.

    Returns
    -------
    Span
        The first of several that are equally good.

    Examples
    --------
    >>> best_span(np.array([0.0, 5.0, 1.0]), np.array([9.0, 0.0, 2.0]), max_tokens=5)
    Span(first=0, last=0, score=9.0)
    """
    tokens = len(start_logits)
    length = np.arange(tokens) - np.arange(tokens)[:, None] + 1  # (first, last)
    allowed = (length >= 1) & (length <= max_tokens)
    scores = np.where(allowed, start_logits[:, None] + end_logits, -np.inf)  # (first, last)
    first, last = np.unravel_index(int(scores.argmax()), scores.shape)
    return Span(int(first), int(last), float(scores[first, last]))


def find_answers(
    questions: Sequence[Question],
    windows: Sequence[Window],
    start_logits: Sequence[Array],
    end_logits: Sequence[Array],
    *,
    max_answer_tokens: int = 30,
    may_be_none: bool = False,
) -> list[FoundAnswer]:
    """Choose each question's best answer among its windows.

    Parameters
    ----------
    questions : sequence of Question
    windows : sequence of Window
        From `npbert.data.squad.encode_questions`.
    start_logits, end_logits : sequence of (T,) floating
        A model's scores of each window's tokens, without padding.
    max_answer_tokens : int
    may_be_none : bool
        Whether a question has no answer if in all windows the score of [CLS] is above that of the best span.

    Returns
    -------
    list of FoundAnswer
        One for each question.
    """
    best: dict[int, tuple[float, FoundAnswer]] = {}
    best_none: dict[int, tuple[float, FoundAnswer]] = {}
    for window, starts, ends in zip(windows, start_logits, end_logits, strict=True):
        start_probs, end_probs = softmax_forward(starts)[0], softmax_forward(ends)[0]
        # That there is no answer must be the verdict of all windows: the least sure one counts.
        none_score = float(starts[CLS_POSITION] + ends[CLS_POSITION])
        if window.question not in best_none or none_score < best_none[window.question][0]:
            probability = float(start_probs[CLS_POSITION] * end_probs[CLS_POSITION])
            best_none[window.question] = none_score, FoundAnswer("", None, probability)
        if not window.offsets:
            continue
        part = slice(window.first_token, window.first_token + len(window.offsets))
        span = best_span(starts[part], ends[part], max_answer_tokens)
        if window.question not in best or span.score > best[window.question][0]:
            start, stop = window.offsets[span.first][0], window.offsets[span.last][1]
            probability = float(start_probs[part][span.first] * end_probs[part][span.last])
            text = questions[window.question].context[start:stop]
            best[window.question] = span.score, FoundAnswer(text, start, probability)
    answers = []
    for index in range(len(questions)):
        none_score, none = best_none[index]
        score, answer = best.get(index, (-np.inf, none))
        answers.append(none if may_be_none and none_score > score else answer)
    return answers


def normalize_answer(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and superfluous space.

    Examples
    --------
    >>> normalize_answer("The  U.S. Army, a branch")
    'us army branch'
    """
    without_punctuation = text.lower().translate(WITHOUT_PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", without_punctuation).split())


def word_f1(found: str, true: str) -> float:
    """Return the F1 of an answer's words: the harmonic mean of precision and recall.

    Examples
    --------
    >>> word_f1("the blue car", "a blue bike"), word_f1("", ""), word_f1("car", "")
    (0.5, 1.0, 0.0)
    """
    found_words, true_words = normalize_answer(found).split(), normalize_answer(true).split()
    if not found_words or not true_words:
        return float(found_words == true_words)
    common = sum((Counter(found_words) & Counter(true_words)).values())
    return 2 * common / (len(found_words) + len(true_words))


def answer_scores(questions: Sequence[Question], found: Iterable[str]) -> AnswerScores:
    """Compare answers with the true ones.

    Parameters
    ----------
    questions : sequence of Question
        With their answers; a question without any has the answer "".
    found : iterable of str
        One for each.

    Returns
    -------
    AnswerScores
    """
    exact = f1 = 0.0
    for question, text in zip(questions, found, strict=True):
        true = [answer.text for answer in question.answers if normalize_answer(answer.text)] or [""]
        exact += max(float(normalize_answer(text) == normalize_answer(one)) for one in true)
        f1 += max(word_f1(text, one) for one in true)
    return AnswerScores(exact / max(len(questions), 1), f1 / max(len(questions), 1))
