"""transformers and PyTorch: whole training steps from npbert's parameters, at PyTorch's fastest."""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from numpy.typing import NDArray

from npbert.bench.peers import Peer
from npbert.bench.peers.torch_training import build_model
from npbert.training.optimizer import decays_by_default

if TYPE_CHECKING:
    from npbert.bench.training import Problem


def whole_step(
    problem: "Problem", threads: int, dropout: bool
) -> Callable[[], tuple[float, Mapping[str, NDArray[Any]]]]:
    """Return a function that takes the next step: its loss, and the parameters, which are torch's memory.

    AdamW is the fused one, attention transformers' own choice, PyTorch's fused one (sdpa).
    """
    import torch

    from npbert.bench.training_steps import LEARNING_RATE, MAX_NORM, WEIGHT_DECAY

    model = build_model(problem, threads).train(dropout)
    optimizer = torch.optim.AdamW(decay_groups(model, WEIGHT_DECAY), lr=LEARNING_RATE, fused=True)
    batch = {name: torch.from_numpy(value) for name, value in problem.batch.items()}
    params = {name: value.detach().numpy() for name, value in model.named_parameters()}

    def step() -> tuple[float, Mapping[str, NDArray[Any]]]:
        optimizer.zero_grad(set_to_none=True)
        loss = model(**batch).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), MAX_NORM)
        optimizer.step()
        return loss.item(), params

    return step


def decay_groups(model: Any, weight_decay: float) -> list[dict[str, Any]]:
    """Return a model's parameters as ``torch.optim`` takes them: biases and layer norms do not decay."""
    named = list(model.named_parameters())
    return [
        {"params": [p for name, p in named if decays_by_default(name, p)], "weight_decay": weight_decay},
        {"params": [p for name, p in named if not decays_by_default(name, p)], "weight_decay": 0.0},
    ]


PEERS: Final = (
    Peer("transformers (torch)", ("transformers", "torch"), ("transformers", "torch"), whole_step),
)
