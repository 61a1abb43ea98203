"""Training without a directory: fine-tuning is that of the loop with one, to the last bit."""

import numpy as np
import pytest

from npbert import load
from npbert.data.labelled import LabelledData, encode_texts
from npbert.sklearn.training import Recipe, fine_tune, train_frozen
from npbert.training.failures import TrainingError
from npbert.training.frozen import FrozenClassifier, FrozenSettings
from npbert.training.loop import TrainingSettings, train
from npbert.training.optimizers import AdamW
from npbert.training.saved_run import SavedRun
from npbert.training.schedules import make_schedule
from npbert.training.step import evaluate
from tests.comparisons import assert_identical
from tests.sklearn.small import reviews, save_model_for_reviews

RECIPE = Recipe(
    epochs=8,
    batch_size=8,
    learning_rate=2e-2,
    warmup=0.1,
    weight_decay=0.1,
    patience=2,
    batch_tokens=100,
    seed=3,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_for_reviews(tmp_path_factory.mktemp("small"))


@pytest.fixture
def bert(model):
    return load(model, "sequence_classification", head_seed=1)


@pytest.fixture
def classifier(model):
    return FrozenClassifier(load(model, "encoder", num_labels=2), FrozenSettings("mix"))


def labelled(tokenizer, count, seed, mistaken=()):
    texts, labels = reviews(count, seed)
    return [
        example._replace(labels={"labels": np.int64((label == "good") != (row in mistaken))})
        for row, (example, label) in enumerate(
            zip(encode_texts(texts, None, tokenizer, 32), labels, strict=True)
        )
    ]


def train_with_files(directory, bert, examples, held_out=None, recipe=RECIPE):
    """The same with `npbert.training.loop.train`; return how it ended and its records."""
    data = LabelledData(examples, pad_id=0, batch_size=recipe.batch_size, seed=recipe.seed)
    steps = recipe.epochs * data.batches_per_epoch
    every, patience = data.batches_per_epoch, None if held_out is None else recipe.patience
    settings = TrainingSettings(
        steps, seed=recipe.seed, log_every=every, evaluate_every=every, patience=patience
    )
    schedule = make_schedule("linear", peak=2e-2, warmup_steps=round(0.1 * steps), total_steps=steps)
    records = []
    result = train(
        bert,
        data,
        AdamW(bert.params, weight_decay=recipe.weight_decay),
        schedule,
        settings,
        SavedRun(directory, {}),
        held_out=None if held_out is None else LabelledData(held_out, pad_id=0).one_pass,
        report=records.append,
    )
    return result, records


def assert_same_params(params, others):
    assert params.keys() == others.keys()
    for name, value in others.items():
        assert_identical(params[name], value, name)


def test_fine_tuning_is_that_with_files(tmp_path, model, bert):
    examples = labelled(bert.tokenizer, 60, seed=2)
    before = {name: value.copy() for name, value in bert.params.items()}
    curves = fine_tune(bert, examples, None, RECIPE)
    other = load(model, "sequence_classification", head_seed=1)
    _, records = train_with_files(tmp_path, other, examples)
    assert_same_params(bert.params, other.params)
    changed = [name for name, value in bert.params.items() if not np.array_equal(before[name], value)]
    assert len(changed) > 0.9 * len(before)
    assert len(curves.losses) == len(records) == RECIPE.epochs
    assert curves.held_out_losses == []
    assert curves.losses[-1] < 0.5 * curves.losses[0]


# Where most of what is kept apart has the wrong label, learning makes the loss on it larger.
@pytest.mark.parametrize(("mistaken", "stops_early"), [(range(0), False), (range(10), True)])
def test_early_stopping_is_that_with_files(tmp_path, model, bert, mistaken, stops_early):
    examples = labelled(bert.tokenizer, 60, seed=2)
    held_out = labelled(bert.tokenizer, 12, seed=4, mistaken=mistaken)
    curves = fine_tune(bert, examples, held_out, RECIPE)
    epochs, best = len(curves.losses), int(np.argmin(curves.held_out_losses))
    assert len(curves.held_out_losses) == epochs
    assert (epochs < RECIPE.epochs) == stops_early
    if stops_early:
        assert epochs == best + 1 + RECIPE.patience
    assert evaluate(bert, LabelledData(held_out, pad_id=0).one_pass())[0] == min(curves.held_out_losses)

    other = load(model, "sequence_classification", head_seed=1)
    result, _ = train_with_files(tmp_path, other, examples, held_out)
    assert result.best_step == (best + 1) * 8  # 60 texts in batches of 8
    assert_same_params(bert.params, other.params)


def test_the_loss_of_an_epoch_is_the_mean_over_its_texts(model):
    # 60 texts in batches of 8: the last batch is smaller. Nothing is learned at a learning rate of 0.
    still = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    bert = load(model, "sequence_classification", head_seed=1, **still)
    examples = labelled(bert.tokenizer, 60, seed=2)
    expected, _ = evaluate(bert, LabelledData(examples, pad_id=0).one_pass())
    curves = fine_tune(bert, examples, None, RECIPE._replace(learning_rate=0.0))
    np.testing.assert_allclose(curves.losses, expected, rtol=1e-6)  # float32, in other orders


def test_a_frozen_encoder_stays_and_its_head_learns(classifier):
    examples = labelled(classifier.encoder.tokenizer, 60, seed=2)
    before = {name: value.copy() for name, value in classifier.encoder.params.items()}
    curves = train_frozen(classifier, examples, None, RECIPE)
    assert_same_params(classifier.encoder.params, before)
    assert all(np.any(value != 0) for value in classifier.head.values())
    assert len(curves.losses) == RECIPE.epochs
    assert curves.losses[0] > 1.1 * curves.losses[-1]


def test_early_stopping_of_a_head(classifier):
    examples = labelled(classifier.encoder.tokenizer, 60, seed=2)
    held_out = labelled(classifier.encoder.tokenizer, 12, seed=4, mistaken=range(10))
    curves = train_frozen(classifier, examples, held_out, RECIPE)
    best = int(np.argmin(curves.held_out_losses))
    assert len(curves.losses) == len(curves.held_out_losses) == best + 1 + RECIPE.patience < RECIPE.epochs
    logits = classifier.logits(classifier.features(held_out)).astype(np.float64)
    numbers = [int(example.labels["labels"]) for example in held_out]
    losses = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(12), numbers]
    np.testing.assert_allclose(losses.mean(), min(curves.held_out_losses), rtol=1e-5)  # float32


def test_a_head_that_overflows_is_noticed(classifier):
    examples = labelled(classifier.encoder.tokenizer, 16, seed=2)
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingError, match=r"epoch \d+: the loss is .*rate"),
    ):
        train_frozen(classifier, examples, None, RECIPE._replace(learning_rate=1e38))


@pytest.mark.parametrize("frozen", [False, True])
def test_progress_is_shown_on_request(bert, classifier, frozen, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    examples = labelled(bert.tokenizer, 8, seed=2)
    for progress in (False, True):
        recipe = RECIPE._replace(epochs=1, progress=progress)
        train_frozen(classifier, examples, None, recipe) if frozen else fine_tune(
            bert, examples, None, recipe
        )
        assert (("encoding" if frozen else "training") in capsys.readouterr().err) == progress
