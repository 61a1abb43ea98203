"""PyTorch's eager ops, recording gradients as they do in training."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from npbert.bench.peers import Peer

if TYPE_CHECKING:
    from npbert.bench.ops import OpCase

Calls = dict[str, Callable[[], Any]]
WHOLE = ""  # the variant that needs no name


def build(case: "OpCase", dy: Any, threads: int) -> dict[str, Calls]:
    """Return PyTorch's versions of an op: for each variant, functions that run forward and backward.

    Parameters
    ----------
    case : OpCase
    dy : floating
        The gradient of the result.
    threads : int
    """
    import torch

    torch.set_num_threads(threads)
    args = [_tensor(arg) for arg in case.args]
    dy_tensor = _tensor(np.asarray(dy))
    inputs = [arg for arg in args if isinstance(arg, torch.Tensor) and arg.requires_grad]
    return {
        variant: _calls(partial(forward, *args), inputs, dy_tensor)
        for variant, forward in _versions()[case.name].items()
    }


def _calls(forward: Callable[[], Any], inputs: list[Any], dy: Any) -> Calls:
    import torch

    kept = forward()

    def backward() -> tuple[Any, ...]:
        gradients = torch.autograd.grad(kept, inputs, dy, retain_graph=True)
        return tuple(gradient.numpy() for gradient in gradients)

    return {"forward": lambda: (forward().detach().numpy(),), "backward": backward}


def _tensor(arg: Any) -> Any:
    import torch

    if not isinstance(arg, np.ndarray):
        return arg
    tensor = torch.from_numpy(np.array(arg, order="K"))  # a copy in the same layout that torch may write to
    return tensor.requires_grad_() if arg.dtype.kind == "f" else tensor


def _versions() -> dict[str, dict[str, Callable[..., Any]]]:
    import torch
    from torch.nn import functional

    def attention(q: Any, k: Any, v: Any, _: None, key_mask: Any) -> Any:
        mask = key_mask[:, None, None, :]
        return functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)

    def unfused_attention(q: Any, k: Any, v: Any, _: None, key_mask: Any) -> Any:
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        scores = scores.masked_fill(~key_mask[:, None, None, :], torch.finfo(scores.dtype).min)
        return scores.softmax(dim=-1) @ v

    def embedding(
        ids: Any, _: None, positions: Any, types: Any, words: Any, places: Any, kinds: Any, padding: int
    ) -> Any:
        found = functional.embedding(ids, words, padding_idx=padding)
        return found + functional.embedding(positions, places) + functional.embedding(types, kinds)

    def mean_pooling(x: Any, mask: Any) -> Any:
        weights = mask.to(x.dtype)[..., None]
        return (x * weights).sum(1) / weights.sum(1)

    return {
        "linear": {WHOLE: functional.linear},
        "gelu erf": {WHOLE: lambda x, form: functional.gelu(x)},
        "gelu tanh": {WHOLE: lambda x, form: functional.gelu(x, approximate="tanh")},
        "relu": {WHOLE: lambda x, name: functional.relu(x)},
        "silu": {WHOLE: lambda x, name: functional.silu(x)},
        "tanh": {WHOLE: lambda x, name: torch.tanh(x)},
        "layernorm": {WHOLE: lambda x, w, b, eps: functional.layer_norm(x, w.shape, w, b, eps)},
        "softmax attention": {"sdpa": attention, "unfused": unfused_attention},
        # The same mask for all: torch's own is another, and drawn within the op.
        "dropout": {"mask given": lambda x, keep, rate: x * keep / (1 - rate)},
        "embedding": {WHOLE: embedding},
        "cross-entropy": {WHOLE: functional.cross_entropy},
        "mean pooling": {WHOLE: mean_pooling},
        "L2 normalisation": {WHOLE: lambda x, eps: functional.normalize(x, dim=-1, eps=eps)},
    }


PEERS: Final = (Peer("torch", ("torch",), ("torch",), build),)
