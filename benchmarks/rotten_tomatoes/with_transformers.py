"""Fine-tuning with transformers and PyTorch: the loop of transformers' own examples, at its fastest.

Attention is PyTorch's fused one (sdpa), transformers' own choice; so is AdamW, which PyTorch recommends.
Everything is in float32.
"""

from collections.abc import Iterator, Mapping

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from benchmarks.rotten_tomatoes import task as recipe
from benchmarks.rotten_tomatoes.task import CLASSES, Task, start_model
from npbert.bench.peers.torch_steps import decay_groups
from npbert.checkpoint.sentence_transformers import transformer_directory

Array = NDArray[np.generic]

transformers.utils.logging.set_verbosity_error()
transformers.utils.logging.disable_progress_bar()


class TransformersTrainer:
    """A model that is fine-tuned step by step.

    Parameters
    ----------
    task : Task
    seed : int
        Of the head's weights and of dropout.
    steps : int
        In all.
    pieces : int
        A batch is worked on in so many pieces, from its shortest texts to its longest, whose gradients are
        added up: the gradient of the batch, with less padding. Only for time to be saved.
    """

    def __init__(self, task: Task, seed: int, steps: int, pieces: int = 1) -> None:
        self.pieces = pieces
        torch.manual_seed(seed)  # of dropout
        self.model = transformers.BertForSequenceClassification.from_pretrained(
            transformer_directory(task.model), num_labels=len(CLASSES), attn_implementation="sdpa"
        )
        head = start_model(task, seed).params
        with torch.no_grad():
            self.model.classifier.weight.copy_(torch.from_numpy(head["classifier.weight"]))
            self.model.classifier.bias.copy_(torch.from_numpy(head["classifier.bias"]))
        self.optimizer = torch.optim.AdamW(
            decay_groups(self.model, recipe.WEIGHT_DECAY), lr=recipe.LEARNING_RATE, fused=True
        )
        self.schedule = transformers.get_linear_schedule_with_warmup(
            self.optimizer, round(recipe.WARMUP * steps), steps
        )

    def step(self, batch: Mapping[str, Array]) -> float:
        """Learn from a batch; return the loss."""
        self.model.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        for piece in pieces_by_length(batch, self.pieces):
            loss = self.model(**as_tensors(piece)).loss * (len(piece["labels"]) / len(batch["labels"]))
            loss.backward()
            total += loss.item()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), recipe.MAX_GRAD_NORM)
        self.optimizer.step()
        self.schedule.step()
        return total

    @torch.no_grad()
    def scores(self, batch: Mapping[str, Array]) -> Array:
        """Return the scores of the classes, without dropout.  -> (B, 2)"""
        self.model.eval()
        inputs = {name: value for name, value in batch.items() if name != "labels"}
        scores: Array = self.model(**as_tensors(inputs)).logits.numpy()
        return scores


def pieces_by_length(batch: Mapping[str, Array], pieces: int) -> Iterator[Mapping[str, Array]]:
    """Yield a batch in pieces, from its shortest texts to its longest, each padded to its own longest."""
    if pieces == 1:
        yield batch
        return
    lengths = batch["attention_mask"].sum(axis=1)
    for rows in np.array_split(np.argsort(lengths, kind="stable"), pieces):
        longest = lengths[rows].max()
        yield {name: v[rows] if v.ndim == 1 else v[rows, :longest] for name, v in batch.items()}


def as_tensors(batch: Mapping[str, Array]) -> dict[str, torch.Tensor]:
    """Return a batch for PyTorch."""
    return {name: torch.from_numpy(value) for name, value in batch.items()}
