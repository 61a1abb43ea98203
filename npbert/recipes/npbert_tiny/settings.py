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
)

# Options of npbert pretrain. Without dropout: there is more text than such a small model can remember.
TRAINING: Final = {
    "steps": "25000",
    "batch-size": "16",
    "learning-rate": "1e-3",
    "warmup": "0.05",
    "no-dropout": None,
    "log-every": "100",
    "save-every": "500",
    "evaluate-every": "1000",
    "seed": str(SEED),
}

# At most this many bytes of weights go into the wheel.
MAX_WEIGHTS: Final = 8_000_000
