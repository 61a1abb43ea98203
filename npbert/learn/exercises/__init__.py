"""The ladder of exercises, from one product to a whole BERT; one file each."""

from typing import Final

from npbert.learn.exercise import Exercise
from npbert.learn.exercises.attention import ATTENTION
from npbert.learn.exercises.bert import BERT
from npbert.learn.exercises.bias import BIAS
from npbert.learn.exercises.cross_entropy import CROSS_ENTROPY
from npbert.learn.exercises.embedding import EMBEDDING
from npbert.learn.exercises.gelu import GELU
from npbert.learn.exercises.layernorm import LAYERNORM
from npbert.learn.exercises.linear import LINEAR
from npbert.learn.exercises.softmax import SOFTMAX
from npbert.learn.exercises.tied_decoder import TIED_DECODER

__all__ = [
    "ATTENTION",
    "BERT",
    "BIAS",
    "CROSS_ENTROPY",
    "EMBEDDING",
    "GELU",
    "LADDER",
    "LAYERNORM",
    "LINEAR",
    "SOFTMAX",
    "TIED_DECODER",
]

LADDER: Final[tuple[Exercise, ...]] = (
    LINEAR,
    BIAS,
    GELU,
    SOFTMAX,
    CROSS_ENTROPY,
    LAYERNORM,
    EMBEDDING,
    ATTENTION,
    TIED_DECODER,
    BERT,
)
