"""Losses, tallies and gradients of a step: of one batch, and of several that must count as one."""

import numpy as np
import pytest

from npbert.training.step import (
    Tally,
    add_counts,
    add_results,
    count_labels,
    evaluate,
    run_batch,
)
from tests.comparisons import assert_finite
from tests.training.small import small_bert

BACKENDS = ("reference", "cpu")


def random_batch(rng, task, batch, tokens=10, words=26, classes=3):
    """Labels of several kinds, some of them ignored; a text of each length."""
    arrays = {"input_ids": rng.integers(5, words, (batch, tokens))}
    lengths = rng.integers(3, tokens + 1, batch)
    arrays["attention_mask"] = (np.arange(tokens) < lengths[:, None]).astype(np.int64)
    if task in ("pretraining", "masked_lm"):
        chosen = (rng.random((batch, tokens)) < 0.4) & (arrays["attention_mask"] == 1)
        chosen[0, 1] = True
        arrays["labels"] = np.where(chosen, arrays["input_ids"], -100)
    if task == "pretraining":
        arrays["next_sentence_label"] = rng.integers(0, 2, batch)
    if task == "next_sentence":
        arrays["labels"] = rng.integers(0, 2, batch)
    if task == "sequence_classification":
        arrays["labels"] = rng.integers(0, classes, batch)
        arrays["labels"][-1] = -100
    if task == "token_classification":
        arrays["labels"] = np.where(
            arrays["attention_mask"] == 1, rng.integers(0, classes, (batch, tokens)), -100
        )
    if task == "question_answering":
        arrays["start_positions"] = rng.integers(0, tokens, batch)
        arrays["end_positions"] = rng.integers(0, tokens, batch)
    return arrays


TASKS = (
    "pretraining",
    "masked_lm",
    "next_sentence",
    "sequence_classification",
    "token_classification",
    "question_answering",
)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_one_batch_is_loss_and_grads(task, backend):
    rng = np.random.default_rng(1)
    bert = small_bert(task, dtype=np.float64, backend=backend, num_labels=3)
    batch = random_batch(rng, task, 5)
    loss, grads = bert.loss_and_grads(**batch)
    result = run_batch(bert, batch)
    assert result.loss == float(loss)
    assert result.tokens == batch["attention_mask"].sum()
    assert result.grads.keys() == grads.keys()
    for name, grad in grads.items():
        np.testing.assert_array_equal(result.grads[name], grad, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_batches_of_different_sizes_add_up_to_the_large_batch(task, backend):
    """Different numbers of labels: a mean of the batches' means would be another number."""
    rng = np.random.default_rng(2)
    bert = small_bert(task, dtype=np.float64, backend=backend, num_labels=3)
    parts = [random_batch(rng, task, size) for size in (2, 5, 3)]
    whole = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    expected = run_batch(bert, whole)

    counts = add_counts(count_labels(part, task) for part in parts)
    assert counts == count_labels(whole, task)
    total = run_batch(bert, parts[0], step_counts=counts)
    for part in parts[1:]:
        total = add_results(total, run_batch(bert, part, step_counts=counts))

    assert total.loss == pytest.approx(expected.loss, rel=1e-13)  # sums in another order
    assert total.tokens == expected.tokens
    for name, tally in expected.tallies.items():
        assert total.tallies[name].count == tally.count
        assert total.tallies[name].correct == tally.correct
        assert total.tallies[name].loss == pytest.approx(tally.loss, rel=1e-13)
    largest = max(np.abs(grad).max() for grad in expected.grads.values())
    assert largest > 0
    for name, grad in expected.grads.items():
        assert_finite(total.grads[name], name)
        # Round-off of sums over at most 100 tokens, in float64.
        np.testing.assert_allclose(total.grads[name], grad, rtol=1e-10, atol=1e-14 * largest, err_msg=name)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("task", TASKS)
def test_right_answers_are_counted(task, backend):
    """Against the scores of `forward`, for labels of which about half are the model's own best guess."""
    rng = np.random.default_rng(3)
    bert = small_bert(task, dtype=np.float64, backend=backend, num_labels=3)
    batch = random_batch(rng, task, 8)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    output = bert.forward(**inputs)
    scores = {
        "labels": output.logits if output.prediction_logits is None else output.prediction_logits,
        "next_sentence_label": output.seq_relationship_logits,
        "start_positions": output.start_logits,
        "end_positions": output.end_logits,
    }
    right = {}
    for name in batch.keys() & scores.keys():
        best = scores[name].argmax(axis=-1)
        flip = rng.random(best.shape) < 0.5
        batch[name] = np.where(flip & (batch[name] != -100), best, batch[name])
        right[name] = batch[name] == best
    if task == "question_answering":
        both = right.pop("start_positions") & right.pop("end_positions")
        both[0] = True
        batch["start_positions"][0] = scores["start_positions"][0].argmax()
        batch["end_positions"][0] = scores["end_positions"][0].argmax()
        right["start_positions"] = both
    tallies = run_batch(bert, batch).tallies
    assert {name: tally.correct for name, tally in tallies.items()} == {
        name: np.count_nonzero(of) for name, of in right.items()
    }
    assert all(0 < tally.correct < tally.count for tally in tallies.values())


@pytest.mark.parametrize("labels", [np.array([[0.5], [1.5], [2.0]]), np.array([0.5, 1.5, -100.0])])
def test_numbers_have_no_accuracy(labels):
    bert = small_bert("sequence_classification", num_labels=1)
    batch = {"input_ids": np.full((3, 4), 7), "labels": labels}
    (tally,) = run_batch(bert, batch).tallies.values()
    assert tally.count == 3
    assert tally.correct is None and tally.accuracy is None
    assert (tally + tally).correct is None
    assert tally.mean_loss == pytest.approx(float(bert.loss_and_grads(**batch)[0]), rel=1e-6)


def test_evaluation_is_over_all_labels():
    rng = np.random.default_rng(4)
    bert = small_bert(dtype=np.float64)
    batches = [random_batch(rng, "pretraining", size) for size in (2, 7)]
    before = {name: value.copy() for name, value in bert.params.items()}
    loss, tallies = evaluate(bert, batches)
    whole = {name: np.concatenate([batch[name] for batch in batches]) for name in batches[0]}
    assert loss == pytest.approx(float(bert.forward(**whole).loss), rel=1e-12)
    assert tallies["next_sentence_label"].count == 9
    for name, value in bert.params.items():
        np.testing.assert_array_equal(value, before[name])


def test_tally_of_nothing():
    assert Tally().mean_loss == 0
    assert Tally().accuracy == 0


def test_a_name_that_is_no_input_is_refused():
    with pytest.raises(ValueError, match="'label' is neither an input nor a label"):
        run_batch(small_bert(), {"input_ids": [[5]], "label": [1]})
