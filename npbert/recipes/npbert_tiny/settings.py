"""What makes npbert-tiny the model it is: its name, its size, its seed."""

from typing import Final

from npbert.config import BertConfig

MODEL_NAME: Final = "npbert-tiny"
SEED: Final = 2026
MAX_LENGTH: Final = 128
VOCAB_SIZE: Final = 8000

CONFIG: Final = BertConfig(
    vocab_size=VOCAB_SIZE,
    hidden_size=192,
    num_hidden_layers=4,
    num_attention_heads=6,
    intermediate_size=768,
    max_position_embeddings=MAX_LENGTH,
)
