"""Training without a directory is training with one, to the last bit."""

import numpy as np
import pytest

from npbert import load
from npbert.data.labelled import LabelledData, encode_texts
from npbert.sklearn.epochs import train_epochs
from npbert.training.loop import TrainingSettings, train
from npbert.training.optimizers import AdamW
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import make_schedule
from npbert.training.step import evaluate
from tests.comparisons import assert_identical
from tests.sklearn.small import reviews, save_model_for_reviews

EPOCHS = 8


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_for_reviews(tmp_path_factory.mktemp("small"))


def start(model, learning_rate=2e-2, **settings):
    """A model, its data and all that `train` and `train_epochs` want besides."""
    bert = load(model, "sequence_classification", head_seed=1)
    data = labelled_reviews(bert, 60, seed=2)
    settings = TrainingSettings(EPOCHS * data.batches_per_epoch, seed=3, **settings)
    schedule = make_schedule("linear", peak=learning_rate, warmup_steps=4, total_steps=settings.steps)
    return bert, data, AdamW(bert.params), schedule, settings


def labelled_reviews(bert, count, seed, mistaken=()):
    texts, labels = reviews(count, seed)
    examples = [
        example._replace(labels={"labels": np.array((label == "good") != (row in mistaken), dtype=np.int64)})
        for row, (example, label) in enumerate(
            zip(encode_texts(texts, None, bert.tokenizer, 32), labels, strict=True)
        )
    ]
    return LabelledData(examples, pad_id=bert.tokenizer.pad_id, batch_size=8, seed=seed)


def no_bar(done, note=""):
    assert done == 1


def assert_same_model(bert, other):
    assert bert.params.keys() == other.params.keys()
    for name, value in other.params.items():
        assert_identical(bert.params[name], value, name)


def test_the_model_is_that_of_the_loop_with_files(tmp_path, model):
    bert, data, *how = start(model)
    before = {name: value.copy() for name, value in bert.params.items()}
    trained = train_epochs(bert, data, None, *how, no_bar)

    other, data, optimizer, schedule, settings = start(model, log_every=data.batches_per_epoch)
    records = []
    train(other, data, optimizer, schedule, settings, SavedRun(tmp_path, {}), report=records.append)
    assert_same_model(bert, other)
    assert any(not np.array_equal(before[name], value) for name, value in bert.params.items())
    assert len(trained.losses) == len(records) == EPOCHS
    assert trained.held_out_losses == []
    assert trained.losses[-1] < 0.5 * trained.losses[0]


# Where many of the texts that are kept apart have the wrong label, learning makes the loss on them larger.
@pytest.mark.parametrize(("mistaken", "stops_early"), [(range(0), False), (range(10), True)])
def test_early_stopping_is_that_of_the_loop_with_files(tmp_path, model, mistaken, stops_early):
    bert, data, *how = start(model, patience=2)
    held_out = labelled_reviews(bert, 12, seed=4, mistaken=mistaken)
    trained = train_epochs(bert, data, held_out, *how, no_bar)
    epochs = len(trained.losses)
    best = int(np.argmin(trained.held_out_losses))
    assert len(trained.held_out_losses) == epochs
    assert (epochs < EPOCHS) == stops_early
    if stops_early:
        assert epochs == best + 1 + 2
    assert evaluate(bert, held_out.one_pass())[0] == min(trained.held_out_losses)

    every = data.batches_per_epoch
    other, data, optimizer, schedule, settings = start(model, patience=2, evaluate_every=every)
    run = SavedRun(tmp_path, {})
    result = train(other, data, optimizer, schedule, settings, run, held_out=held_out.one_pass)
    assert result.best_step == (best + 1) * every
    assert_same_model(bert, other)


def test_patience_may_last_for_ever(model):
    bert, data, *how = start(model)
    held_out = labelled_reviews(bert, 12, seed=4, mistaken=range(10))
    trained = train_epochs(bert, data, held_out, *how, no_bar)
    assert len(trained.losses) == EPOCHS
    assert np.argmin(trained.held_out_losses) < EPOCHS - 3
    assert evaluate(bert, held_out.one_pass())[0] == min(trained.held_out_losses)


def test_the_loss_of_an_epoch_is_the_mean_over_its_texts(model):
    # 60 texts in batches of 8: the last batch is smaller. Nothing is learned at a learning rate of 0.
    bert, data, *how = start(model, learning_rate=0.0, dropout=False)
    expected, _ = evaluate(bert, data.one_pass())
    trained = train_epochs(bert, data, None, *how, no_bar)
    np.testing.assert_allclose(trained.losses, expected, rtol=1e-6)  # float32, in other orders
