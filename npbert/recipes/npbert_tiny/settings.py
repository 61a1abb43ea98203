"""What makes npbert-tiny the model it is: its size, and how it is trained."""

from typing import Final

from npbert.checkpoint.shipped import NPBERT_TINY
from npbert.config import BertConfig

MODEL_NAME: Final = NPBERT_TINY
VOCAB_SIZE: Final = 8000
MAX_LENGTH: Final = 32
SEED: Final = 0

CONFIG: Final = BertConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=192,
    num_hidden_layers=4,
    num_attention_heads=6,
    intermediate_size=768,
    max_position_embeddings=MAX_LENGTH,
    initializer_range=0.05,
)

# Options of npbert pretrain; the sequences are short, which is what the model is for, and it finds out sooner
# that neighbours matter. Without dropout: there is more text than it could learn by heart.
TRAINING: Final[dict[str, str | None]] = {
    "steps": "10000",
    "batch-size": "64",
    "learning-rate": "1e-3",
    "warmup": "0.03",
    "no-dropout": None,
    "seed": str(SEED),
    "log-every": "100",
    "save-every": "500",
    "evaluate-every": "1000",
}

# At most this many bytes of weights go into the wheel.
MAX_WEIGHTS: Final = 8_000_000
