"""Training for some epochs, in memory: what `npbert.training.loop` does, without a directory of the run."""

from collections.abc import Callable
from typing import NamedTuple

from npbert.bert import Bert
from npbert.data.labelled import LabelledData
from npbert.params import Params
from npbert.progress import Advance
from npbert.training.communicator import Alone
from npbert.training.loop import TrainingSettings, take_step
from npbert.training.optimizers import Optimizer
from npbert.training.step import Tallies, add_tallies, evaluate, mean_loss


class TrainedEpochs(NamedTuple):
    """How a training went.

    Attributes
    ----------
    losses : list of float
        The mean loss in each epoch.
    held_out_losses : list of float
        After each epoch, on the texts that were kept apart; empty where there are none.
    """

    losses: list[float]
    held_out_losses: list[float]


def train_epochs(
    bert: Bert,
    data: LabelledData,
    held_out: LabelledData | None,
    optimizer: Optimizer,
    schedule: Callable[[int], float],
    settings: TrainingSettings,
    advance: Advance,
) -> TrainedEpochs:
    """Train a model for ``settings.steps`` steps, which are whole epochs.

    With texts that are kept apart, training stops when ``settings.patience`` epochs in a row brought no
    smaller loss on them, and leaves the model as it was after the best epoch.

    Parameters
    ----------
    bert : Bert
        Its parameters are changed.
    data : LabelledData
    held_out : LabelledData or None
        The texts that are kept apart.
    optimizer : Optimizer
        Of ``bert.params``.
    schedule : callable
        The learning rate of each step, counted from 0.
    settings : TrainingSettings
    advance : callable
        Called after each step.

    Returns
    -------
    TrainedEpochs

    Raises
    ------
    npbert.training.failures.TrainingError
        If the loss or a gradient is not finite.
    """
    losses: list[float] = []
    held_out_losses: list[float] = []
    best: Params = {}
    batches = data.batches()
    for epoch in range(settings.steps // data.batches_per_epoch):
        tallies: Tallies = {}
        first = epoch * data.batches_per_epoch
        for step in range(first, first + data.batches_per_epoch):
            batch, _ = next(batches)
            taken = take_step(bert, [batch], optimizer, schedule(step), step, settings, Alone())
            tallies = add_tallies(tallies, taken.tallies)
            advance(1, note=f"epoch {epoch + 1}, loss {taken.loss:.3f}")
        losses.append(mean_loss(tallies))
        if held_out is None:
            continue
        loss, _ = evaluate(bert, held_out.one_pass())
        held_out_losses.append(loss)
        best_epoch = held_out_losses.index(min(held_out_losses))
        if best_epoch == epoch:
            best = {name: value.copy() for name, value in bert.params.items()}
        if settings.patience is not None and epoch - best_epoch >= settings.patience:
            break
    for name, value in best.items():
        bert.params[name][...] = value
    return TrainedEpochs(losses, held_out_losses)
