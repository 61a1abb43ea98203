"""scikit-learn's own checks of estimators, all that there are. None of them is expected to fail.

Of estimators whose X are texts scikit-learn only checks that they can be cloned, because the X of its checks
are numbers. So each row of numbers is spelled as a text here: see `tests.sklearn.numbers`.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, estimator_checks_generator

from npbert.sklearn import BertClassifier, SentenceEncoder
from tests.sklearn.numbers import ClassifierOfNumbers, EncoderOfNumbers, save_model_for_numbers

ROOT = Path(__file__).resolve().parent.parent.parent

# pytest collects the checks before any fixture has run. The directory is removed when the process ends.
_directory = tempfile.TemporaryDirectory()
MODEL = save_model_for_numbers(Path(_directory.name) / "model")
# The features of a model that knows nothing say enough only if there are many.
WIDER_MODEL = save_model_for_numbers(Path(_directory.name) / "wider model", hidden_size=48)

# In float64: predictions of some texts and of all of them may differ by 1e-7, which float32 does.
ENCODER = EncoderOfNumbers(MODEL, dtype="float64")
CLASSIFIER = ClassifierOfNumbers(
    MODEL, epochs=10, batch_size=16, learning_rate=1e-2, dtype="float64", random_state=0
)
FROZEN = ClassifierOfNumbers(
    WIDER_MODEL, frozen=True, layers="mix", learning_rate=5e-2, dtype="float64", random_state=0
)
ESTIMATORS = {"SentenceEncoder": ENCODER, "BertClassifier": CLASSIFIER, "BertClassifier(frozen=True)": FROZEN}
ARRAY_API_CHECK = "check_array_api_input"  # needs an environment variable before SciPy is imported
# Not among those that scikit-learn runs for others' transformers.
MORE_CHECKS_OF_TRANSFORMERS = (
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
)


def all_checks():
    for title, estimator in ESTIMATORS.items():
        for checked, check in estimator_checks_generator(estimator):
            name, options = check.func.__name__, [f"{key}={value}" for key, value in check.keywords.items()]
            if name != ARRAY_API_CHECK:
                yield pytest.param(checked, check, id="-".join([title, name, *options]))


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.DataConversionWarning")
@pytest.mark.parametrize(("estimator", "check"), all_checks())
def test_check(estimator, check):
    pytest.importorskip("pandas")  # without it, a check skips its half
    check(estimator)


@pytest.mark.filterwarnings("ignore:X has feature names")  # arrays and tables take turns in some checks
@pytest.mark.parametrize("name", MORE_CHECKS_OF_TRANSFORMERS)
def test_check_of_transformers(name):
    pytest.importorskip("pandas")
    getattr(estimator_checks, name)("SentenceEncoder", ENCODER)


@pytest.mark.parametrize("estimator", ESTIMATORS.values(), ids=ESTIMATORS)
def test_check_of_array_api_dispatch(estimator):
    # Arrays of NumPy give the same where scikit-learn computes with arrays of other libraries, too.
    code = f"""
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.sklearn.numbers import *
for estimator, check in estimator_checks_generator({type(estimator).__name__}(**{estimator.get_params()!r})):
    if check.func.__name__ == {ARRAY_API_CHECK!r}:
        check(estimator)
        print("checked")
"""
    environment = {**os.environ, "SCIPY_ARRAY_API": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["checked"]


@pytest.mark.parametrize("estimator", [SentenceEncoder(), BertClassifier()], ids=repr)
def test_what_applies_to_texts_as_they_are(estimator):
    with pytest.warns(SkipTestWarning, match="string=True"):
        results = check_estimator(estimator)
    assert [result["status"] for result in results] == ["passed"]
