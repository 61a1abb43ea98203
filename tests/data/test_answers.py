"""Answers: the best span of a model's scores, and SQuAD's measures."""

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npbert.data.answers import (
    AnswerScores,
    FoundAnswer,
    answer_scores,
    best_span,
    find_answers,
    normalize_answer,
    word_f1,
)
from npbert.data.squad import Answer, Question, Window


@given(tokens=st.integers(1, 9), longest=st.integers(1, 10), seed=st.integers(0, 99))
def test_the_best_of_all_spans(tokens, longest, seed):
    rng = np.random.default_rng(seed)
    starts, ends = rng.normal(size=(2, tokens))
    spans = [
        (first, last)
        for first, last in itertools.product(range(tokens), repeat=2)
        if first <= last < first + longest
    ]
    expected = max(spans, key=lambda span: starts[span[0]] + ends[span[1]])
    found = best_span(starts, ends, longest)
    assert (found.first, found.last) == expected
    assert found.score == starts[found.first] + ends[found.last]


QUESTION = Question("a", "q", "one two three", ())
# [CLS] q [SEP] and some of the three words [SEP]
LEFT = Window(0, 3, ((0, 3), (4, 7)))
RIGHT = Window(0, 3, ((4, 7), (8, 13)))


def logits(*values):
    return np.log(np.array(values, dtype=float))


class TestFinding:
    def test_the_better_window_wins(self):
        starts = [logits(1, 1, 1, 4, 2, 1), logits(1, 1, 1, 1, 9, 2)]
        ends = [logits(1, 1, 1, 1, 4, 1), logits(1, 1, 1, 1, 7, 2)]
        (found,) = find_answers([QUESTION], [LEFT, RIGHT], starts, ends)
        assert found == FoundAnswer("three", 8, pytest.approx(9 / 15 * 7 / 13))
        (found,) = find_answers([QUESTION], [LEFT, RIGHT], starts[:1] * 2, [ends[0], ends[0] - 9])
        assert found == FoundAnswer("one two", 0, pytest.approx(4 / 10 * 4 / 9))

    def test_special_tokens_and_the_question_are_no_answer(self):
        scores = [logits(99, 99, 99, 1, 2, 99)]
        (found,) = find_answers([QUESTION], [LEFT], scores, scores)
        assert found.text == "two"

    def test_short_answers_only(self):
        scores = [logits(1, 1, 1, 9, 1, 1)], [logits(1, 1, 1, 1, 9, 1)]
        (found,) = find_answers([QUESTION], [LEFT], *scores, max_answer_tokens=1)
        assert found.text == "one"  # the first of two that are equally good
        (found,) = find_answers([QUESTION], [LEFT], *scores)
        assert found.text == "one two"

    def test_none_is_the_verdict_of_all_windows(self):
        sure, unsure = logits(9, 1, 1, 2, 2, 1), logits(1, 1, 1, 2, 2, 1)
        windows = [LEFT, RIGHT]
        (found,) = find_answers([QUESTION], windows, [sure] * 2, [sure] * 2, may_be_none=True)
        assert found == FoundAnswer("", None, pytest.approx((9 / 16) ** 2))
        (found,) = find_answers([QUESTION], windows, [sure] * 2, [sure] * 2)
        assert found.text == "one"
        for order in ([sure, unsure], [unsure, sure]):
            (found,) = find_answers([QUESTION], windows, order, order, may_be_none=True)
            assert found.text

    def test_an_empty_text_has_no_answer(self):
        (found,) = find_answers([QUESTION], [Window(0, 3, ())], [logits(1, 1, 1, 1)], [logits(1, 1, 1, 1)])
        assert found == FoundAnswer("", None, pytest.approx(1 / 16))

    def test_several_questions(self):
        other = Question("b", "q", "uno due", ())
        windows = [LEFT, Window(1, 3, ((0, 3), (4, 7)))]
        scores = [logits(1, 1, 1, 9, 1, 1), logits(1, 1, 1, 1, 9, 1)]
        found = find_answers([QUESTION, other], windows, scores, scores)
        assert [answer.text for answer in found] == ["one", "due"]


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        ("The  Cat", "cat"),
        ("theatre an anthem A", "theatre anthem"),
        ("U.S.A.!", "usa"),
        ("a-the", "athe"),  # punctuation goes first
        ("« Été »", "« été »"),  # only ASCII punctuation goes
        ("the", ""),
    ],
)
def test_normal_form(text, normal):
    assert normalize_answer(text) == normal


@pytest.mark.parametrize(
    ("found", "true", "f1"),
    [
        ("a b c", "b c d", 4 / 5),  # "a" is an article: 2 of 2 and 2 of 3
        ("x x y", "x y y", 4 / 6),  # x and y once each
        ("x", "x", 1),
        ("x", "y", 0),
        ("", "the", 1),
        ("x", "", 0),
        ("", "x", 0),
    ],
)
def test_f1(found, true, f1):
    assert word_f1(found, true) == pytest.approx(f1)


def test_scores_are_means_over_questions():
    def question(*answers):
        return Question("a", "q", "", tuple(Answer(text, 0) for text in answers))

    questions = [question("blue whale", "Whale"), question(), question("..", "x y"), question("x")]
    scores = answer_scores(questions, ["the whale", "", "y", "z"])
    assert scores == AnswerScores(2 / 4, pytest.approx((1 + 1 + 2 / 3 + 0) / 4))
    # An answer of punctuation alone is none.
    assert answer_scores([question("..")], [""]) == AnswerScores(1, 1)
    assert answer_scores([question("..", "x")], [""]) == AnswerScores(0, 0)
