"""The optimisers, by name."""

from collections.abc import Callable
from typing import Final

from npbert.training.adamw import AdamW, bert_adam
from npbert.training.lamb import LAMB
from npbert.training.optimizer import Optimizer, decays_by_default
from npbert.training.sgd import SGD

__all__ = ["LAMB", "OPTIMIZERS", "SGD", "AdamW", "Optimizer", "bert_adam", "decays_by_default"]

OPTIMIZERS: Final[dict[str, Callable[..., Optimizer]]] = {
    "adamw": AdamW,
    "bert_adam": bert_adam,
    "lamb": LAMB,
    "sgd": SGD,
}
