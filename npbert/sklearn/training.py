"""Training for some epochs, in memory: what `npbert.training.loop` does, without a directory of the run."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from npbert.bert import Bert
from npbert.data.labelled import EncodedExample, LabelledData
from npbert.labels import IGNORE_INDEX
from npbert.ops import cross_entropy_forward
from npbert.ops.array_module import Array
from npbert.params import Params
from npbert.progress import Advance, progress_bar
from npbert.training.communicator import Alone
from npbert.training.failures import TrainingError
from npbert.training.frozen import FrozenClassifier, decays_in_head, train_head
from npbert.training.loop import TrainingSettings, take_step
from npbert.training.optimizers import AdamW
from npbert.training.schedules import make_schedule
from npbert.training.step import Tallies, add_tallies, evaluate, mean_loss


class Recipe(NamedTuple):
    """How to train.

    Attributes
    ----------
    epochs, batch_size : int
    learning_rate : float
        Its peak.
    warmup : float
        The share of the steps in which it rises.
    weight_decay : float
    patience : int
        Where examples are kept apart: training stops after so many epochs without a smaller loss on them.
    batch_tokens : int
        The most tokens at once where nothing is learned from them.
    seed : int
    progress : bool
        Whether to show a progress bar.
    """

    epochs: int
    batch_size: int
    learning_rate: float
    warmup: float
    weight_decay: float
    patience: int
    batch_tokens: int
    seed: int
    progress: bool = False

    def schedule(self, steps: int) -> Callable[[int], float]:
        """Return the learning rate of each of so many steps."""
        warmup_steps = round(self.warmup * steps)
        return make_schedule("linear", peak=self.learning_rate, warmup_steps=warmup_steps, total_steps=steps)


class Curves(NamedTuple):
    """How a training went.

    Attributes
    ----------
    losses : list of float
        The mean loss in each epoch.
    held_out_losses : list of float
        After each epoch, on the examples that were kept apart; empty where there are none.
    """

    losses: list[float]
    held_out_losses: list[float]


def fine_tune(
    bert: Bert,
    examples: Sequence[EncodedExample],
    held_out: Sequence[EncodedExample] | None,
    recipe: Recipe,
) -> Curves:
    """Train all of a model.

    Parameters
    ----------
    bert : Bert
        Its parameters are changed. Where examples are kept apart, they end up as they were after the epoch
        with the smallest loss on these.
    examples : sequence of EncodedExample
    held_out : sequence of EncodedExample or None
        Those that are kept apart.
    recipe : Recipe

    Returns
    -------
    Curves

    Raises
    ------
    TrainingError
        If the loss or a gradient is not finite.
    """
    assert bert.tokenizer is not None
    pad_id = bert.tokenizer.pad_id
    data = LabelledData(examples, pad_id=pad_id, batch_size=recipe.batch_size, seed=recipe.seed)

    def held_out_loss() -> float:
        return evaluate(bert, LabelledData(held_out or [], pad_id=pad_id).one_pass())[0]

    with progress_bar("training", recipe.epochs * data.batches_per_epoch, recipe.progress) as advance:
        epochs = _train_model(bert, data, recipe, advance)
        return _run(epochs, bert.params, None if held_out is None else held_out_loss, recipe.patience)


def train_frozen(
    classifier: FrozenClassifier,
    examples: Sequence[EncodedExample],
    held_out: Sequence[EncodedExample] | None,
    recipe: Recipe,
) -> Curves:
    """Train the head on top of an encoder that stays as it is; arguments and result as for `fine_tune`."""
    total = len(examples) + len(held_out or ())
    with progress_bar("encoding", total, recipe.progress) as advance:
        features = classifier.features(examples, recipe.batch_tokens, advance)
        held_out_features = classifier.features(held_out or [], recipe.batch_tokens, advance)

    def held_out_loss() -> float:
        logits = classifier.logits(held_out_features)
        return float(cross_entropy_forward(logits, _labels(held_out or []), IGNORE_INDEX)[0])

    steps = recipe.epochs * math.ceil(len(examples) / recipe.batch_size)
    epochs = train_head(
        classifier,
        features,
        _labels(examples),
        AdamW(classifier.head, weight_decay=recipe.weight_decay, decays=decays_in_head),
        recipe.schedule(steps),
        epochs=recipe.epochs,
        batch_size=recipe.batch_size,
        seed=recipe.seed,
    )
    return _run(epochs, classifier.head, None if held_out is None else held_out_loss, recipe.patience)


def _train_model(bert: Bert, data: LabelledData, recipe: Recipe, advance: Advance) -> Iterator[float]:
    """Train a model, and yield the mean loss of each epoch."""
    steps = recipe.epochs * data.batches_per_epoch
    settings, schedule = TrainingSettings(steps, seed=recipe.seed), recipe.schedule(steps)
    optimizer = AdamW(bert.params, weight_decay=recipe.weight_decay, share_out=bert.share_out)
    batches = data.batches()
    for epoch in range(recipe.epochs):
        tallies: Tallies = {}
        first = epoch * data.batches_per_epoch
        for step in range(first, first + data.batches_per_epoch):
            batch, _ = next(batches)
            taken = take_step(bert, [batch], optimizer, schedule(step), step, settings, Alone())
            tallies = add_tallies(tallies, taken.tallies)
            advance(1, note=f"epoch {epoch + 1}, loss {taken.loss:.3f}")
        yield mean_loss(tallies)


def _run(
    epochs: Iterable[float], params: Params, held_out_loss: Callable[[], float] | None, patience: int
) -> Curves:
    """Run a training, to its end or until it no longer helps.

    Parameters
    ----------
    epochs : iterable of float
        Trains an epoch whenever its next item, the loss in that epoch, is asked for.
    params : dict of str to array
        What is trained, and set back to the best epoch.
    held_out_loss : callable or None
        Returns the loss on the examples that are kept apart.
    patience : int

    Examples
    --------
    >>> params = {"weight": np.zeros(1)}
    >>> def epochs():
    ...     for _ in range(10):
    ...         params["weight"] += 1
    ...         yield 0.5
    >>> _run(epochs(), params, lambda: abs(params["weight"].item() - 3), patience=2).held_out_losses
    [2.0, 1.0, 0.0, 1.0, 2.0]
    >>> params["weight"]
    array([3.])
    """
    curves = Curves([], [])
    best: Params = {}
    for epoch, loss in enumerate(epochs):
        if not math.isfinite(loss):
            raise TrainingError(f"epoch {epoch + 1}: the loss is {loss}; is the learning rate too high?")
        curves.losses.append(loss)
        if held_out_loss is None:
            continue
        curves.held_out_losses.append(held_out_loss())
        best_epoch = curves.held_out_losses.index(min(curves.held_out_losses))
        if best_epoch == epoch:
            best = {name: value.copy() for name, value in params.items()}
        if epoch - best_epoch >= patience:
            break
    for name, value in best.items():
        params[name][...] = value
    return curves


def _labels(examples: Sequence[EncodedExample]) -> Array:
    return np.array([example.labels["labels"] for example in examples], dtype=np.int64)
