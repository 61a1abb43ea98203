"""Files of questions: from a model's scores to answers, and how good these are."""

import json

import numpy as np
import pytest

from npbert.config import BertConfig
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks import QuestionFile

TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "q", "a", "b", "c"])
CONFIG = BertConfig()


@pytest.fixture
def questions(tmp_path):
    """Return a function that writes one question an answer (None: there is none), and opens the file."""

    def opening(answers, **options):
        records = [
            {
                "id": str(number),
                "question": "q",
                "answers": [] if text is None else [{"text": text, "answer_start": "A b C".index(text)}],
            }
            for number, text in enumerate(answers)
        ]
        path = tmp_path / "a.json"
        path.write_text(json.dumps({"data": [{"paragraphs": [{"context": "A b C", "qas": records}]}]}))
        return QuestionFile(path, **options)

    return opening


def logits(start, end, length=7):
    """Return scores that are highest at two tokens of [CLS] q [SEP] a b c [SEP]."""
    starts, ends = np.zeros((2, length), np.float32)
    starts[start] = ends[end] = 2
    return {"start_logits": starts, "end_logits": ends}


def test_answers_and_scores(questions):
    file = questions(["b", "A b"], stride=1)
    assert file.config_fields() == {"num_labels": 2}
    seen = []
    examples = file.encode(TOKENIZER, CONFIG, 20, seen.append)
    assert (len(examples), sum(seen), file.count) == (2, 2, 2)
    assert [example.labels["end_positions"].item() for example in examples] == [4, 4]
    answers = file.answers([logits(4, 4), logits(4, 5)], CONFIG)
    assert [(answer["id"], answer["answer"], answer["start"]) for answer in answers] == [
        ("0", "b", 2),
        ("1", "b C", 2),
    ]
    peak = np.exp(2) / (np.exp(2) + 6)
    assert answers[0]["probability"] == pytest.approx(peak**2)
    assert file.scores(answers) == {"exact_match": 1 / 2, "f1": pytest.approx((1 + 2 / 3) / 2)}
    assert file.rows(answers) == answers


def test_windows_are_put_together(questions):
    file = questions(["C"], stride=1)
    examples = file.encode(TOKENIZER, CONFIG, 5)  # one word at a time
    assert [example.labels["start_positions"].item() for example in examples] == [0, 0, 3]
    (answer,) = file.answers([logits(0, 0, 5), logits(3, 4, 5), logits(3, 3, 5)], CONFIG)
    assert (answer["answer"], answer["start"]) == ("C", 4)


@pytest.mark.parametrize(
    ("answers", "may_be_none", "expected"),
    [(["b", None], None, ""), (["b", "b"], None, "A"), (["b", "b"], True, ""), (["b", None], False, "A")],
)
def test_whether_there_may_be_no_answer(questions, answers, may_be_none, expected):
    file = questions(answers, may_be_none=may_be_none)
    file.encode(TOKENIZER, CONFIG, 20)
    found = file.answers([logits(0, 0)] * 2, CONFIG)
    assert found[0]["answer"] == expected


def test_long_answers_are_left_out(questions):
    file = questions(["b"], max_answer_tokens=1)
    file.encode(TOKENIZER, CONFIG, 20)
    (answer,) = file.answers([logits(3, 5)], CONFIG)
    assert answer["answer"] in ("A", "C")


def test_without_answers(questions):
    file = questions([None], labelled=False)
    assert not file.may_be_none
    (example,) = file.encode(TOKENIZER, CONFIG, 20)
    assert example.labels == {}


def test_nothing_to_learn(questions):
    with pytest.raises(ValueError, match=r"a\.json: no question has an answer"):
        questions([None, None]).config_fields()
