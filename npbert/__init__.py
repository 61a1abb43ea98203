"""npbert: a BERT you can read, check and embed.

>>> import npbert
>>> config = npbert.BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=1, num_attention_heads=2,
...                            intermediate_size=16, max_position_embeddings=8)
>>> bert = npbert.Bert(config, npbert.init_params(config, "masked_lm", seed=0), task="masked_lm")
>>> loss, grads = bert.loss_and_grads(input_ids=[[2, 5, 3]], labels=[[-100, 7, -100]])
>>> grads.keys() == bert.params.keys()
True
"""

from typing import TYPE_CHECKING, Any

from npbert.bert import Bert
from npbert.config import BertConfig
from npbert.output import BertOutput, MaskPrediction
from npbert.params import TASKS, init_params

if TYPE_CHECKING:
    from npbert import gradcheck
    from npbert.loading import load
    from npbert.tokenizer import WordPieceTokenizer

__version__ = "0.1.0"

__all__ = [
    "TASKS",
    "Bert",
    "BertConfig",
    "BertOutput",
    "MaskPrediction",
    "WordPieceTokenizer",
    "__version__",
    "gradcheck",
    "init_params",
    "load",
]


def __getattr__(name: str) -> Any:
    """Import on first use what not every program needs: the checker, the tokenizer, the reading of files."""
    if name == "gradcheck":
        import npbert.gradcheck

        return npbert.gradcheck
    if name == "load":
        from npbert.loading import load

        return load
    if name == "WordPieceTokenizer":
        from npbert.tokenizer import WordPieceTokenizer

        return WordPieceTokenizer
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
