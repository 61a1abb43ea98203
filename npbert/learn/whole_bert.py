"""The last exercise: the learner's functions joined to a BERT, its gradients checked, and trained."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any, Final

import numpy as np

from npbert.config import BertConfig
from npbert.gradcheck import Report, check
from npbert.heads import HeadOptions, task_backward, task_forward
from npbert.inputs import prepare_inputs
from npbert.labels import prepare_labels
from npbert.learn.checking import Pair, check_exercise
from npbert.learn.engine import engine_of
from npbert.learn.exercises import BERT, LADDER
from npbert.learn.exercises.bert import draw_params
from npbert.learn.learner_file import run_file
from npbert.learn.result import Result
from npbert.params import init_params

EARLIER: Final = tuple(exercise for exercise in LADDER if exercise is not BERT)
SENTENCES: Final = (
    "the cat drinks milk",
    "the cow eats grass",
    "the bee makes honey",
    "the hen lays eggs",
    "paris lies in france",
    "rome lies in italy",
    "cairo lies in egypt",
    "tokyo lies in japan",
)
PADDING, START, MASK = "[PAD]", "[CLS]", "[MASK]"
STEPS, LEARNING_RATE = 300, 1e-2
# A model that knows nothing has the loss log(28) = 3.3; one that learned the sentences by heart, nearly 0.
LEARNED: Final = 0.5


def check_whole_bert(directory: Path) -> Result:
    """Check ``bert.py`` with the learner's earlier functions; if all is right, train.

    Parameters
    ----------
    directory : Path
        Where the files of all exercises are.

    Returns
    -------
    Result
        Solved only where every earlier exercise is, npbert's own BERT has the right gradients on the
        learner's operations, and the training lowers the loss.
    """
    path = directory / BERT.file_name
    if not path.exists():
        return Result(BERT.name, "not started")
    pairs = solved_pairs(directory)
    missing = [exercise.name for exercise in EARLIER if exercise.name not in pairs]
    ops = engine_of(pairs)
    result = check_exercise(BERT, path, ops)
    if missing:
        note = f"first solve {', '.join(missing)}: until then the textbook's functions stand in for yours"
        return replace(result, status="to do" if result.solved else result.status, notes=(note,))
    if not result.solved:
        return result
    report = check_model(ops)
    if not report.ok:
        note = "your parts are right alone, but npbert's own BERT, built on them, has wrong gradients"
        return Result(BERT.name, "wrong", report=report.to_dict(), case=report.subject, notes=(note,))
    pair = _pair_of(BERT, path)
    losses, answers = train(pair, ops)
    proof = (
        f"built on your operations, npbert's own BERT has all of its {len(report.tensors)} gradients right"
    )
    learned = float(np.mean(losses[-20:])) < LEARNED
    notes = (proof, *answers)
    return Result(BERT.name, "solved" if learned else "wrong", notes=notes, losses=tuple(losses))


def solved_pairs(directory: Path) -> dict[str, Pair]:
    """Return the learner's functions of the earlier exercises, those that are solved."""
    pairs = {}
    for exercise in EARLIER:
        path = directory / exercise.file_name
        if check_exercise(exercise, path).solved:
            pairs[exercise.name] = _pair_of(exercise, path)
    return pairs


def check_model(ops: ModuleType) -> Report:
    """Check the gradients of npbert's own BERT, built on some operations: two layers, padding, dropout.

    Parameters
    ----------
    ops : module
        An engine.
    """
    config = BertConfig(
        vocab_size=11,
        hidden_size=4,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=6,
        max_position_embeddings=5,
        hidden_dropout_prob=0.2,
        attention_probs_dropout_prob=0.2,
    )
    task, dtype = "masked_lm", np.dtype(np.float64)
    rng = np.random.default_rng(11)
    params = {
        name: value.astype(dtype) + 0.3 * rng.standard_normal(value.shape)
        for name, value in init_params(config, task, seed=0).items()
    }
    input_ids = np.array([[2, 7, 5, 7, 3], [2, 9, 3, 0, 0]])
    labels = np.array([[-100, 8, -100, 4, -100], [-100, 6, -100, -100, -100]])
    inputs = prepare_inputs(config, task, dtype, input_ids, input_ids != 0, None, None, None, 0)
    checked_labels = prepare_labels(config, task, dtype, inputs, labels, None, None, None)
    options = HeadOptions(dropout_seed=3, all_logits=False)

    def forward(params: dict[str, Any]) -> Any:
        _, head, cache = task_forward(params, config, task, inputs, checked_labels, options, ops)
        return head.loss, (cache, params)

    def backward(dloss: Any, cache: Any) -> Any:
        task_cache, params = cache
        return task_backward(dloss, task_cache, params, config, task, ops)[1]

    return check(forward, backward, (params,), max_coordinates=4, structural_zeros=["*.key.bias"])


def train(pair: Pair, ops: ModuleType) -> tuple[list[float], list[str]]:
    """Train the exercise's BERT on a few sentences, with plain Adam.

    Parameters
    ----------
    pair : Pair
        The learner's `bert_forward` and `bert_backward`.
    ops : module
        The learner's operations.

    Returns
    -------
    losses : list of float
        Of each step.
    answers : list of str
        What the model puts in the place of the last word of each sentence.
    """
    rng = np.random.default_rng(12)
    words = [PADDING, START, MASK, *sorted({word for text in SENTENCES for word in text.split()})]
    sizes = {"D": 16, "F": 32, "V": len(words), "P": 5, "S": 1}
    params = {name: value.astype(np.float32) for name, value in draw_params(rng, 0.1, **sizes).items()}
    ids = np.array([[words.index(word) for word in (START, *text.split())] for text in SENTENCES])
    moments = {name: (np.zeros_like(value), np.zeros_like(value)) for name, value in params.items()}
    losses = []
    for step in range(1, STEPS + 1):
        batch = _masked_batch(ids, rng.integers(1, ids.shape[1], size=len(ids)), words.index(MASK))
        loss, cache = pair.forward(params, batch, ops)
        grads = pair.backward(np.float32(1), cache, ops)
        losses.append(float(loss))
        for name, grad in grads.items():
            mean, square = moments[name]
            mean += 0.1 * (grad - mean)
            square += 0.001 * (grad * grad - square)
            params[name] -= (
                LEARNING_RATE * (mean / (1 - 0.9**step)) / (np.sqrt(square / (1 - 0.999**step)) + 1e-8)
            )
    last = np.full(len(ids), ids.shape[1] - 1)
    _, cache = pair.forward(params, _masked_batch(ids, last, words.index(MASK)), ops)
    best = cache["logits"][np.arange(len(ids)), last].argmax(axis=-1)
    return losses, list(_answers(words, best))


def _pair_of(exercise: Any, path: Path) -> Pair:
    file = run_file(path)
    return Pair(file.function(exercise.forward_name), file.function(exercise.backward_name))


def _masked_batch(ids: Any, places: Any, mask_id: int) -> dict[str, Any]:
    """Hide one word of each sentence."""
    rows = np.arange(len(ids))
    input_ids, labels = ids.copy(), np.full_like(ids, -100)
    labels[rows, places] = ids[rows, places]
    input_ids[rows, places] = mask_id
    return {
        "input_ids": input_ids,
        "position_ids": np.broadcast_to(np.arange(ids.shape[1]), ids.shape),
        "token_type_ids": np.zeros_like(ids),
        "key_mask": np.ones(ids.shape, dtype=bool),
        "labels": labels,
    }


def _answers(words: list[str], best: Any) -> Iterator[str]:
    for text, word in zip(SENTENCES, best, strict=True):
        question, expected = text.rsplit(" ", 1)
        found = words[int(word)]
        yield f"{question} [MASK]: {found}" + ("" if found == expected else f" ({expected})")
