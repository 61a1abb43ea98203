"""What makes npbert-tiny the model it is: its size, and how it is trained."""

from typing import Final

from npbert.checkpoint.shipped import NPBERT_TINY
from npbert.config import BertConfig

MODEL_NAME: Final = NPBERT_TINY
VOCAB_SIZE: Final = 8000
MAX_LENGTH: Final = 128
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

# Options of npbert pretrain, run after run. Short sequences first, as in the BERT paper: with them the model
# finds out sooner that neighbours matter. Without dropout: there is more text than it could learn by heart.
COMMON: Final[dict[str, str | None]] = {
    "no-dropout": None,
    "seed": str(SEED),
    "log-every": "100",
    "save-every": "500",
    "evaluate-every": "1000",
}
PHASES: Final[tuple[dict[str, str | None], ...]] = (
    {
        "max-length": "32",
        "batch-size": "64",
        "steps": "10000",
        "learning-rate": "1e-3",
        "warmup": "0.03",
        **COMMON,
    },
    {
        "max-length": str(MAX_LENGTH),
        "batch-size": "16",
        "steps": "1000",
        "learning-rate": "5e-4",
        "warmup": "0.05",
        **COMMON,
    },
)

# At most this many bytes of weights go into the wheel.
MAX_WEIGHTS: Final = 8_000_000
