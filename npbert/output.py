"""What the methods of `npbert.Bert` return."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from numpy.typing import NDArray

Array = NDArray[Any]


# Not compared by value: == on arrays gives arrays.
@dataclass(frozen=True, eq=False)
class BertOutput:
    """What `Bert.forward` returns, under Hugging Face's names. What a task does not have is None.

    Attributes
    ----------
    loss : () floating
        Where labels were given.
    logits : floating
        Scores: (B, T, V) for masked_lm, (B, 2) for next_sentence, (B, num_labels) for
        sequence_classification, (B, T, num_labels) for token_classification, (B, C) for
        multiple_choice.
    prediction_logits, seq_relationship_logits : (B, T, V) and (B, 2) floating
        Of pretraining.
    start_logits, end_logits : (B, T) floating
        Of question_answering.
    last_hidden_state : (B, T, D) floating
    pooler_output : (B, D) floating
    hidden_states : tuple of (B, T, D) floating
        The embeddings, then each layer's output; on request.
    attentions : tuple of (B, N, T, T) floating
        Each layer's attention probabilities; on request.
    """

    loss: Any = None
    logits: Array | None = None
    prediction_logits: Array | None = None
    seq_relationship_logits: Array | None = None
    start_logits: Array | None = None
    end_logits: Array | None = None
    last_hidden_state: Array | None = None
    pooler_output: Array | None = None
    hidden_states: tuple[Array, ...] | None = None
    attentions: tuple[Array, ...] | None = None


class MaskPrediction(NamedTuple):
    """One word that `Bert.fill_mask` proposes for one mask."""

    token: str
    token_id: int
    probability: float
