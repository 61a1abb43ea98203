"""Scores of many examples, in batches, and each with its own."""

import numpy as np
import pytest

from npbert.bert import Bert
from npbert.data.labelled import EncodedExample
from npbert.tokenizer import WordPieceTokenizer
from npbert.training.predictions import LOGITS_OF_TASK, predict
from tests.models import random_params, tiny_config

TOKENIZER = WordPieceTokenizer(["[UNK]", "[PAD]", "[CLS]", "[SEP]", "[MASK]", "a", "b", "c", "d", "e", "f"])


@pytest.mark.parametrize("task", LOGITS_OF_TASK)
@pytest.mark.parametrize("batch_tokens", [1, 9, 1000])
def test_each_example_gets_its_scores(task, batch_tokens):
    rng = np.random.default_rng(0)
    config = tiny_config(num_labels=2)
    bert = Bert(config, random_params(rng, config, task), TOKENIZER, task)
    examples = [
        EncodedExample(
            rng.integers(0, 11, length, dtype=np.int32),
            rng.integers(0, 3, length).astype(np.int8),
            {"labels": np.array(99)},  # not looked at
        )
        for length in (3, 8, 1, 5, 3)
    ]
    seen = []
    found = predict(bert, examples, batch_tokens, seen.append)
    assert sum(seen) == len(examples)
    for example, logits in zip(examples, found, strict=True):
        alone = bert.forward([example.input_ids], token_type_ids=[example.token_type_ids])
        assert set(logits) == set(LOGITS_OF_TASK[task])
        for name, scores in logits.items():
            expected = getattr(alone, name)[0]
            assert scores.shape == expected.shape
            assert scores.size == 1 or np.ptp(scores) > 0
            np.testing.assert_allclose(scores, expected, rtol=1e-12, atol=1e-13)  # sums in another order


def test_no_examples():
    config = tiny_config()
    bert = Bert(
        config,
        random_params(np.random.default_rng(0), config, "sequence_classification"),
        TOKENIZER,
        "sequence_classification",
    )
    assert predict(bert, []) == []
