"""The textbook: every operation of BERT, one a file, forward and hand-written backward.

Each file has ``<op>_forward``, which returns the result and a cache of what the way back needs, and
``<op>_backward``, which turns the gradient of the result into the gradients of the arguments. A gradient
is called ``d`` plus the name of what it belongs to; the output's comes first; the others are returned
in the order of the forward's arguments. Nothing writes to its inputs. Sums of gradients, where one value
is used twice, are made by the caller (:mod:`npbert.model`, :mod:`npbert.heads`), where they can be seen.

Ops do not check what they are given (:mod:`npbert.inputs` does that, once, at the door).

Shapes are written with these letters everywhere:

====== ==================================================================
letter meaning
====== ==================================================================
B      batch: how many texts
T      tokens in a text, padding included
N      attention heads
H      width of a head
D      hidden size, N * H
F      width of the feed-forward layer
V      vocabulary size
P      positions: the longest text that the position table has room for
S      segments (token types)
====== ==================================================================
"""

from npbert.ops.activations import activation_backward, activation_forward
from npbert.ops.array_module import array_module
from npbert.ops.binary_cross_entropy import bce_with_logits_backward, bce_with_logits_forward
from npbert.ops.cross_entropy import cross_entropy_backward, cross_entropy_forward
from npbert.ops.dropout import dropout_backward, dropout_forward, dropout_keep_mask
from npbert.ops.embedding import (
    default_position_ids,
    embedding_backward,
    embedding_forward,
    sinusoidal_positions,
)
from npbert.ops.erf import erf, erfc, normal_cdf
from npbert.ops.gelu import gelu_backward, gelu_forward
from npbert.ops.layernorm import layernorm_backward, layernorm_forward
from npbert.ops.linear import linear_backward, linear_forward
from npbert.ops.mean_squared_error import mse_backward, mse_forward
from npbert.ops.pooling import (
    cls_pooling_backward,
    cls_pooling_forward,
    l2_normalize_backward,
    l2_normalize_forward,
    mean_pooling_backward,
    mean_pooling_forward,
)
from npbert.ops.relative_position import relative_position_backward, relative_position_forward
from npbert.ops.softmax import softmax_backward, softmax_forward
from npbert.ops.softmax_attention import (
    merge_heads,
    softmax_attention_backward,
    softmax_attention_forward,
    split_heads,
)

__all__ = [
    "activation_backward",
    "activation_forward",
    "array_module",
    "bce_with_logits_backward",
    "bce_with_logits_forward",
    "cls_pooling_backward",
    "cls_pooling_forward",
    "cross_entropy_backward",
    "cross_entropy_forward",
    "default_position_ids",
    "dropout_backward",
    "dropout_forward",
    "dropout_keep_mask",
    "embedding_backward",
    "embedding_forward",
    "erf",
    "erfc",
    "gelu_backward",
    "gelu_forward",
    "l2_normalize_backward",
    "l2_normalize_forward",
    "layernorm_backward",
    "layernorm_forward",
    "linear_backward",
    "linear_forward",
    "mean_pooling_backward",
    "mean_pooling_forward",
    "merge_heads",
    "mse_backward",
    "mse_forward",
    "normal_cdf",
    "relative_position_backward",
    "relative_position_forward",
    "sinusoidal_positions",
    "softmax_attention_backward",
    "softmax_attention_forward",
    "softmax_backward",
    "softmax_forward",
    "split_heads",
]
