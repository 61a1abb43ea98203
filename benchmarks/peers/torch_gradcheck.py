"""torch.autograd.gradcheck on a NumPy pair, wrapped as PyTorch's "Extending PyTorch" wraps one.

All tolerances are the documented defaults (eps 1e-6, atol 1e-5, rtol 1e-3). The slow mode compares every
entry of the Jacobian, the fast mode one random projection of it for each pair of an input and an output.

References
----------
https://docs.pytorch.org/docs/stable/generated/torch.autograd.gradcheck.gradcheck.html
https://docs.pytorch.org/docs/stable/notes/extending.html
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch

from benchmarks.op_pairs import OpPair

torch.set_num_threads(1)


def check(pair: OpPair, fast_mode: bool) -> None:
    """Raise if the checker finds the pair wrong."""
    plain = pair.plain()

    class Wrapped(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *tensors: torch.Tensor) -> torch.Tensor:
            y, ctx.numpy_cache = plain.forward(*(tensor.numpy() for tensor in tensors))
            return _tensor(y)

        @staticmethod
        @torch.autograd.function.once_differentiable
        def backward(ctx: Any, dy: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(map(_tensor, plain.backward(dy.numpy()[()], ctx.numpy_cache)))

    inputs = tuple(_tensor(value).requires_grad_() for value in plain.values)
    torch.autograd.gradcheck(Wrapped.apply, inputs, fast_mode=fast_mode)


def _tensor(array: Any) -> torch.Tensor:
    return torch.from_numpy(np.array(array))  # a copy, as torch takes no arrays with negative strides


VERSION = f"torch {torch.__version__}"
CHECKERS: dict[str, Callable[[OpPair], None]] = {
    "torch gradcheck": partial(check, fast_mode=False),
    "torch gradcheck, fast": partial(check, fast_mode=True),
}
