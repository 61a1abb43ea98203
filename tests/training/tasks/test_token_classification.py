"""Files of tagged words: from a model's scores to tags, and how good these are."""

import numpy as np
import pytest

from npbert.config import BertConfig
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.tasks import SentenceFile

TOKENIZER = WordPieceTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a", "##b", "c"])
CONFIG = BertConfig(id2label={0: "B-X", 1: "I-X", 2: "O"})
CONTENTS = "ab B-X\na I-X\nc O\n\nc O\n"


@pytest.fixture
def open_text(tmp_path):
    def opening(contents, **options):
        path = tmp_path / "a.conll"
        path.write_text(contents)
        return SentenceFile(path, **options)

    return opening


def scores_for(examples, tags):
    """Return logits that give each word's first token its tag, and the others the wrong ones."""
    tags = iter(tags)
    found = []
    for example in examples:
        logits = np.zeros((len(example.input_ids), 3), np.float32)
        for token, label in enumerate(example.token_labels):
            number = CONFIG.label_names.index(next(tags)) if label != -100 else token % 3
            logits[token, number] = np.log(6)
        found.append({"logits": logits})
    return found


def test_fields(open_text):
    file = open_text(CONTENTS)
    assert file.config_fields() == {"id2label": {0: "B-X", 1: "I-X", 2: "O"}}
    assert file.count == 2


@pytest.mark.parametrize("max_length", [4, 20])  # 4: a word or two at a time
def test_answers_are_put_together(open_text, max_length):
    file = open_text(CONTENTS)
    seen = []
    examples = file.encode(TOKENIZER, CONFIG, max_length, seen.append)
    assert len(examples) == (3 if max_length == 4 else 2)
    assert sum(seen) == 2
    answers = file.answers(scores_for(examples, ["B-X", "O", "I-X", "O"]), CONFIG)
    assert answers == [
        {"words": ["ab", "a", "c"], "tags": ["B-X", "O", "I-X"], "probabilities": [pytest.approx(6 / 8)] * 3},
        {"words": ["c"], "tags": ["O"], "probabilities": [pytest.approx(6 / 8)]},
    ]
    assert [(row["sentence"], row["word"], row["tag"]) for row in file.rows(answers)] == [
        (1, "ab", "B-X"),
        (1, "a", "O"),
        (1, "c", "I-X"),
        (2, "c", "O"),
    ]


def test_scores(open_text):
    answers = [{"tags": ["B-X", "O", "I-X"]}, {"tags": ["O"]}]
    assert open_text(CONTENTS).scores(answers) == {"accuracy": 2 / 4, "precision": 0, "recall": 0, "f1": 0}
    right = [{"tags": ["B-X", "I-X", "O"]}, {"tags": ["O"]}]
    assert open_text(CONTENTS).scores(right) == {"accuracy": 1, "precision": 1, "recall": 1, "f1": 1}
    assert open_text("a N\nc V\n").scores([{"tags": ["N", "N"]}]) == {"accuracy": 1 / 2}


def test_without_tags(open_text):
    file = open_text("a\nc\n", tag_column=None)
    (example,) = file.encode(TOKENIZER, CONFIG, 9)
    assert example.token_labels is None
    (answer,) = file.answers([{"logits": np.eye(4, 3)}], CONFIG)
    assert answer["tags"] == ["I-X", "O"]


def test_unknown_tag(open_text):
    with pytest.raises(ValueError, match=r"a\.conll: line 2: unknown label 'B-Y'"):
        open_text("a O\nc B-Y\n").encode(TOKENIZER, CONFIG, 9)


def test_one_tag(open_text):
    with pytest.raises(ValueError, match=r"a\.conll: all labels are 'O'"):
        open_text("a O\nc O\n").config_fields()
