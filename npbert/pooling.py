"""How the vectors of a text's tokens become the vector of the text."""

from dataclasses import dataclass
from types import ModuleType
from typing import Any, Final

from numpy.typing import NDArray

POOLING_MODES: Final = ("cls", "mean")


@dataclass(frozen=True)
class PoolingSettings:
    """How token vectors become the vector of a text.

    Parameters
    ----------
    mode : str
        "mean": the mean over the tokens that are not padding; "cls": the first token's vector.
    normalize : bool
        Whether the result is scaled to length 1.
    max_seq_length : int or None
        Texts are cut to this many tokens; None: to ``max_position_embeddings``.
    do_lower_case : bool
        Whether a text is lower-cased before the tokenizer sees it, whatever the tokenizer does itself.

    Raises
    ------
    ValueError
        If a value is not one of these. Names the setting.
    """

    mode: str = "mean"
    normalize: bool = False
    max_seq_length: int | None = None
    do_lower_case: bool = False

    def __post_init__(self) -> None:
        if self.mode not in POOLING_MODES:
            raise ValueError(
                f"the pooling mode is {self.mode!r}, which npbert does not support; "
                f"supported: {', '.join(POOLING_MODES)}"
            )
        for name in ("normalize", "do_lower_case"):
            if not isinstance(getattr(self, name), bool):
                raise ValueError(f"{name} is {getattr(self, name)!r}; it must be True or False")
        length = self.max_seq_length
        if length is not None and (isinstance(length, bool) or not isinstance(length, int) or length < 1):
            raise ValueError(f"max_seq_length is {length!r}; it must be an integer of at least 1, or None")


def pool(
    last_hidden_state: NDArray[Any], attention_mask: NDArray[Any], settings: PoolingSettings, ops: ModuleType
) -> NDArray[Any]:
    """Make one vector of each text.

    Parameters
    ----------
    last_hidden_state : (B, T, D) floating
    attention_mask : (B, T) bool
        True for real tokens.
    settings : PoolingSettings
    ops : module
        `npbert.ops` or an engine.

    Returns
    -------
    (B, D) floating
    """
    if settings.mode == "cls":
        pooled, _ = ops.cls_pooling_forward(last_hidden_state)
    else:
        pooled, _ = ops.mean_pooling_forward(last_hidden_state, attention_mask)
    if settings.normalize:
        pooled, _ = ops.l2_normalize_forward(pooled)
    vectors: NDArray[Any] = pooled
    return vectors
