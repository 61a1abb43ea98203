"""Read what tests/golden/recording.py wrote down of transformers, and compare npbert with it."""

import json
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors import safe_open
from safetensors.numpy import load_file

from npbert import Bert
from npbert.config import BertConfig
from tests.models import structural_zeros

GOLDEN = Path(__file__).parent / "golden"


class Recorded(NamedTuple):
    """One case of a golden file."""

    task: str
    config: BertConfig
    params: dict[str, np.ndarray]
    arguments: dict[str, np.ndarray]
    cotangents: dict[str, np.ndarray]
    outputs: dict[str, np.ndarray]
    grads: dict[str, np.ndarray]


def case_names(file: str) -> list[str]:
    """The cases of a golden file."""
    return list(_open(file)[0])


def read_case(file: str, case: str) -> Recorded:
    """Read one case, parameters as float64."""
    cases, tensors = _open(file)
    kinds: dict[str, dict[str, Any]] = {kind: {} for kind in Recorded._fields[2:]}
    for key, value in tensors.items():
        owner, kind, name = key.split("/")
        if owner == case:
            kinds[kind][name] = value.astype(np.float64) if kind == "params" else value
    return Recorded(cases[case]["task"], BertConfig(**cases[case]["fields"]), **kinds)


def _open(file: str) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    with safe_open(GOLDEN / file, framework="numpy") as opened:
        cases = json.loads(opened.metadata()["cases"])
    return cases, load_file(GOLDEN / file)


def output_errors(recorded: Recorded) -> dict[str, float]:
    """Compare loss, scores, hidden states and attentions; return the relative error of each."""
    bert = Bert(recorded.config, recorded.params, task=recorded.task)
    found = bert.forward(**recorded.arguments, output_hidden_states=True, output_attentions=True)
    assert len(found.hidden_states or ()) == recorded.config.num_hidden_layers + 1
    assert f"hidden_states.{recorded.config.num_hidden_layers}" in recorded.outputs
    errors = {}
    for name, want in recorded.outputs.items():
        field, _, index = name.partition(".")
        value = getattr(found, field)
        errors[name] = _error(value[int(index)] if index else value, want)
    return errors


def gradient_errors(recorded: Recorded) -> dict[str, float]:
    """Compare the gradient of every parameter; return the relative error of each.

    Where transformers did not use a parameter, any gradient but 0 is an infinite error. A structural zero is
    measured against the gradient of a weight beside it.
    """
    bert = Bert(recorded.config, recorded.params, task=recorded.task)
    if recorded.cotangents:
        cotangents = {f"d{name}": value for name, value in recorded.cotangents.items()}
        grads, _ = bert.vjp(**cotangents, **recorded.arguments)
    else:
        _, grads = bert.loss_and_grads(**recorded.arguments)
    assert set(grads) == set(recorded.params)
    errors = {}
    for name, grad in grads.items():
        if name not in recorded.grads:
            errors[name] = np.inf if np.any(grad) else 0.0
        elif any(fnmatch(name, zero) for zero in structural_zeros(recorded.config, recorded.task)):
            weight = name.replace("key.bias", "value.weight").replace("bias", "weight")
            errors[name] = _error(grad, recorded.grads[name], scale=np.abs(recorded.grads[weight]).max())
        else:
            errors[name] = _error(grad, recorded.grads[name])
    return errors


def assert_within(errors: dict[str, float], tolerance: float) -> None:
    """Fail for the worst of the errors if it is above the tolerance."""
    worst = max(errors, key=errors.__getitem__)
    assert errors[worst] <= tolerance, f"{worst} is off by {errors[worst]:.1e}; {tolerance:.0e} is allowed"


def _error(actual: Any, expected: np.ndarray, scale: float | None = None) -> float:
    """The largest difference over the largest element expected, or over ``scale``."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"shape {actual.shape}, expected {expected.shape}"
    if not np.isfinite(actual).all():
        return np.inf
    scale = np.abs(expected).max() if scale is None else scale
    assert scale > 0, "a comparison with zeros proves nothing"
    return float(np.abs(actual - expected).max() / scale)
