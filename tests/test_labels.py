"""What a loss may compare with: every rejection names the argument, the value, its place and the limit."""

import numpy as np
import pytest

from npbert import Bert
from npbert.inputs import prepare_inputs
from npbert.labels import LABELS_OF_TASK, prepare_labels
from tests import models
from tests.models import TASKS_WITH_LOSS

IDS = np.array([[2, 5, 3, 4], [2, 6, 7, 3]])
WORDS = np.array([[-100, 4, -100, 0], [10, -100, -100, -100]])
RIGHT = {
    "pretraining": {"labels": WORDS, "next_sentence_label": [0, 1]},
    "masked_lm": {"labels": WORDS},
    "next_sentence": {"labels": [1, 0]},
    "sequence_classification": {"labels": [3, 0]},
    "token_classification": {"labels": WORDS % 4},
    "question_answering": {"start_positions": [0, 3], "end_positions": [1, 9]},
    "multiple_choice": {"labels": [2, 0]},
}
SINGLE, SEVERAL, NUMBERS = "single_label_classification", "multi_label_classification", "regression"


def at(array, index, value):
    array = np.array(array)
    array = array.astype(np.result_type(array, np.asarray(value)))
    array[index] = value
    return array


# Each: task, problem type, labels, and what the message must say. num_labels is 4, 11 words, 3 choices.
BAD = {
    "a label that is no word": (
        "masked_lm",
        None,
        {"labels": at(WORDS, (1, 0), 11)},
        ["labels is 11 at [1, 0]", "[0, 11), or -100", "vocab_size is 11"],
    ),
    "a label of -1": (
        "masked_lm",
        None,
        {"labels": at(WORDS, (0, 1), -1)},
        ["labels is -1 at [0, 1]", "-100"],
    ),
    "words that are floats": (
        "masked_lm",
        None,
        {"labels": WORDS.astype(float)},
        ["labels has dtype float64", "integer"],
    ),
    "words that are bool": ("masked_lm", None, {"labels": WORDS > 0}, ["labels has dtype bool", "integer"]),
    "a word for each text": ("masked_lm", None, {"labels": [1, 2]}, ["labels has shape (2,)", "(2, 4)"]),
    "words for another length": (
        "masked_lm",
        None,
        {"labels": WORDS[:, :3]},
        ["labels has shape (2, 3)", "(2, 4)"],
    ),
    "ragged words": ("masked_lm", None, {"labels": [[1, 2], [3]]}, ["labels", "differ in length"]),
    "a word of pretraining": (
        "pretraining",
        None,
        {"labels": at(WORDS, (0, 3), 12)},
        ["labels is 12 at [0, 3]", "vocab_size is 11"],
    ),
    "a pair of class 2": (
        "pretraining",
        None,
        {"next_sentence_label": [0, 2]},
        ["next_sentence_label is 2 at [1]", "[0, 2)"],
    ),
    "pairs for another batch": (
        "pretraining",
        None,
        {"next_sentence_label": [0, 1, 1]},
        ["next_sentence_label has shape (3,)", "(2,)"],
    ),
    "pairs that are floats": (
        "pretraining",
        None,
        {"next_sentence_label": [0.0, 1.0]},
        ["next_sentence_label has dtype float64", "integer"],
    ),
    "a next sentence of class 2": (
        "next_sentence",
        None,
        {"labels": [2, 0]},
        ["labels is 2 at [0]", "[0, 2), or -100"],
    ),
    "a class too high": (
        "sequence_classification",
        SINGLE,
        {"labels": [1, 4]},
        ["labels is 4 at [1]", "[0, 4), or -100", "num_labels is 4"],
    ),
    "a negative class": (
        "sequence_classification",
        None,
        {"labels": [-2, 0]},
        ["labels is -2 at [0]", "[0, 4)"],
    ),
    "classes that are floats": (
        "sequence_classification",
        SINGLE,
        {"labels": [1.0, 2.0]},
        ["labels has dtype float64", "integer"],
    ),
    "classes for another batch": (
        "sequence_classification",
        SINGLE,
        {"labels": [1]},
        ["labels has shape (1,)", "(2,)"],
    ),
    "several classes in one row": (
        "sequence_classification",
        SEVERAL,
        {"labels": [1.0, 0.0]},
        ["labels has shape (2,)", "(2, 4)"],
    ),
    "several classes, too few": (
        "sequence_classification",
        None,
        {"labels": np.ones((2, 3))},
        ["labels has shape (2, 3)", "(2, 4)"],
    ),
    "numbers that are NaN": (
        "sequence_classification",
        NUMBERS,
        {"labels": at(np.ones((2, 4)), (1, 2), np.nan)},
        ["labels is nan at [1, 2]", "finite"],
    ),
    "numbers that are infinite": (
        "sequence_classification",
        SEVERAL,
        {"labels": at(np.ones((2, 4)), (0, 3), np.inf)},
        ["labels is inf at [0, 3]", "finite"],
    ),
    "numbers for another batch": (
        "sequence_classification",
        NUMBERS,
        {"labels": np.ones((1, 4))},
        ["labels has shape (1, 4)", "(2, 4)"],
    ),
    "one number where there are four": (
        "sequence_classification",
        NUMBERS,
        {"labels": [0.5, 0.5]},
        ["labels has shape (2,)", "(2, 4)"],
    ),
    "numbers that are text": (
        "sequence_classification",
        NUMBERS,
        {"labels": [["a"] * 4] * 2},
        ["labels has dtype", "floating"],
    ),
    "ragged classes": (
        "sequence_classification",
        None,
        {"labels": [[1], [1, 2]]},
        ["labels", "differ in length"],
    ),
    "a class of a token too high": (
        "token_classification",
        None,
        {"labels": at(WORDS % 4, (1, 3), 4)},
        ["labels is 4 at [1, 3]", "num_labels is 4"],
    ),
    "a class a text": ("token_classification", None, {"labels": [0, 1]}, ["labels has shape (2,)", "(2, 4)"]),
    "a negative start": (
        "question_answering",
        None,
        {"start_positions": [0, -1], "end_positions": [1, 1]},
        ["start_positions is -1 at [1]", "at least 0"],
    ),
    "an ignored end": (
        "question_answering",
        None,
        {"start_positions": [0, 1], "end_positions": [-100, 1]},
        ["end_positions is -100 at [0]", "at least 0"],
    ),
    "a start without an end": (
        "question_answering",
        None,
        {"start_positions": [0, 1]},
        ["only one of start_positions and end_positions", "both"],
    ),
    "an end without a start": (
        "question_answering",
        None,
        {"end_positions": [0, 1]},
        ["only one of start_positions and end_positions", "both"],
    ),
    "ends for another batch": (
        "question_answering",
        None,
        {"start_positions": [0, 1], "end_positions": [1, 2, 3]},
        ["end_positions has shape (3,)", "(2,)"],
    ),
    "starts that are floats": (
        "question_answering",
        None,
        {"start_positions": [0.0, 1.0], "end_positions": [1, 2]},
        ["start_positions has dtype float64", "integer"],
    ),
    "a choice that is not there": (
        "multiple_choice",
        None,
        {"labels": [3, 0]},
        ["labels is 3 at [0]", "[0, 3), or -100", "the number of choices is 3"],
    ),
    "an answer a choice": (
        "multiple_choice",
        None,
        {"labels": np.zeros((2, 3), int)},
        ["labels has shape (2, 3)", "(2,)"],
    ),
}


def config_of(task, problem_type=None):
    count = 2 if task == "question_answering" else 4
    return models.tiny_config(num_labels=count, problem_type=problem_type)


def model_of(task, problem_type=None):
    config = config_of(task, problem_type)
    return Bert(config, models.random_params(np.random.default_rng(0), config, task), task=task)


def ids_of(task):
    return np.stack([IDS] * 3, axis=1) if task == "multiple_choice" else IDS


def assert_refused(call, arguments, parts):
    with pytest.raises(ValueError) as caught:
        call(**arguments)
    message = str(caught.value)
    assert all(part in message for part in parts), message


@pytest.mark.parametrize("method", ["forward", "loss_and_grads"])
@pytest.mark.parametrize("case", BAD)
def test_refused(case, method):
    task, problem_type, labels, parts = BAD[case]
    call = getattr(model_of(task, problem_type), method)
    assert_refused(call, {"input_ids": ids_of(task)} | labels, parts)


ALL_LABELS = sorted({name for labels in RIGHT.values() for name in labels})
FOREIGN = [(task, name) for task in LABELS_OF_TASK for name in ALL_LABELS if name not in LABELS_OF_TASK[task]]


@pytest.mark.parametrize(("task", "name"), FOREIGN)
def test_labels_of_another_task(task, name):
    """Never ignored: whoever passes them expects a loss."""
    expected = " and ".join(LABELS_OF_TASK[task]) or "none"
    parts = [f"{name} is given", f"the task {task}", expected]
    assert_refused(model_of(task).forward, {"input_ids": ids_of(task), name: [0, 1]}, parts)


@pytest.mark.parametrize("task", TASKS_WITH_LOSS)
def test_no_gradient_without_labels(task):
    """It says which are needed."""
    parts = [f"the task {task!r} has no loss without", *LABELS_OF_TASK[task]]
    assert_refused(model_of(task).loss_and_grads, {"input_ids": ids_of(task)}, parts)


def test_the_encoder_has_no_loss():
    parts = ['"encoder" has no loss', "vjp"]
    assert_refused(model_of("encoder").loss_and_grads, {"input_ids": IDS}, parts)


@pytest.mark.parametrize("task", TASKS_WITH_LOSS)
def test_an_unknown_reduction(task):
    arguments = {"input_ids": ids_of(task), "reduction": "median"} | RIGHT[task]
    assert_refused(model_of(task).loss_and_grads, arguments, ["reduction is 'median'", '"mean" or "sum"'])


# --- what is allowed -------------------------------------------------------------------------------------


def prepare(task, problem_type=None, num_labels=None, **labels):
    config = config_of(task, problem_type)
    if num_labels is not None:
        config = config.replace(num_labels=num_labels)
    inputs = prepare_inputs(config, task, np.float32, ids_of(task))
    return prepare_labels(config, task, np.float32, inputs, **labels)


@pytest.mark.parametrize("task", TASKS_WITH_LOSS)
def test_right_labels_stay_as_they_are(task):
    found = prepare(task, **RIGHT[task])
    assert not found.is_empty
    for name, want in RIGHT[task].items():
        if task != "question_answering":
            np.testing.assert_array_equal(getattr(found, name), want)
    given = set(RIGHT[task])
    assert {n for n in ALL_LABELS if getattr(found, n) is not None} == given


@pytest.mark.parametrize("task", LABELS_OF_TASK)
def test_no_labels(task):
    assert prepare(task).is_empty


@pytest.mark.parametrize("task", [t for t in TASKS_WITH_LOSS if t != "question_answering"])
def test_every_place_may_be_ignored(task):
    labels = {name: np.full(np.shape(value), -100) for name, value in RIGHT[task].items()}
    found = prepare(task, **labels)
    for name, want in labels.items():
        np.testing.assert_array_equal(getattr(found, name), want)


@pytest.mark.parametrize("task", ["next_sentence", "sequence_classification", "multiple_choice"])
def test_a_column_of_labels(task):
    """(B, 1), as data loaders give them and transformers flattens them."""
    found = prepare(task, labels=[[1], [0]])
    assert found.labels.tolist() == [1, 0]


def test_a_column_of_positions():
    found = prepare("question_answering", start_positions=[[1], [0]], end_positions=[[2], [3]])
    assert found.start_positions.tolist() == [1, 0]
    assert found.end_positions.tolist() == [2, 3]


def test_an_answer_behind_the_text_is_ignored():
    found = prepare("question_answering", start_positions=[3, 4], end_positions=[0, 400])
    assert found.start_positions.tolist() == [3, -100]
    assert found.end_positions.tolist() == [0, -100]


@pytest.mark.parametrize(
    ("problem_type", "num_labels", "labels", "expected"),
    [
        (None, 4, [3, 0], SINGLE),
        (None, 4, np.ones((2, 4)), SEVERAL),
        (None, 1, [0.5, 2.0], NUMBERS),
        (None, 1, [3, 0], NUMBERS),
        (NUMBERS, 4, np.ones((2, 4)), NUMBERS),
        (SEVERAL, 4, np.ones((2, 4), int), SEVERAL),
        (SINGLE, 4, [3, 0], SINGLE),
    ],
)
def test_problem_type(problem_type, num_labels, labels, expected):
    """The configuration says it, or it is guessed as transformers guesses it."""
    found = prepare("sequence_classification", problem_type, num_labels, labels=labels)
    assert found.problem_type == expected
    assert found.labels.dtype == (np.int64 if expected == SINGLE else np.float32)
    assert found.labels.shape == ((2,) if expected == SINGLE else (2, num_labels))


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_one_number_a_text(shape):
    found = prepare("sequence_classification", NUMBERS, 1, labels=np.array([0.5, -2.0]).reshape(shape))
    assert found.labels.tolist() == [[0.5], [-2.0]]
