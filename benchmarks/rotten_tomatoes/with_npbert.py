"""Fine-tuning with npbert."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from benchmarks.rotten_tomatoes import task as recipe
from benchmarks.rotten_tomatoes.task import Task, start_model
from npbert.training.adamw import AdamW
from npbert.training.communicator import Alone
from npbert.training.loop import TrainingSettings, take_step

Array = NDArray[np.generic]


class NpbertTrainer:
    """A model that is fine-tuned step by step."""

    def __init__(self, task: Task, seed: int, steps: int) -> None:
        self.bert = start_model(task, seed)
        self.optimizer = AdamW(
            self.bert.params, weight_decay=recipe.WEIGHT_DECAY, share_out=self.bert.share_out
        )
        self.settings = TrainingSettings(steps, max_grad_norm=recipe.MAX_GRAD_NORM, seed=seed)

    def step(self, batch: Mapping[str, Array]) -> float:
        """Learn from a batch; return the loss."""
        number = self.optimizer.steps
        rate = recipe.learning_rate(number, self.settings.steps)
        return take_step(self.bert, [batch], self.optimizer, rate, number, self.settings, Alone()).loss

    def scores(self, batch: Mapping[str, Array]) -> Array:
        """Return the scores of the classes, without dropout.  -> (B, 2)"""
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        scores: Array = self.bert.forward(**inputs).logits
        return scores
