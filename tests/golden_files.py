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
from tests.comparisons import assert_finite
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


def check_outputs(recorded: Recorded, tolerance: float) -> None:
    """Compare loss, scores, hidden states and attentions with those recorded."""
    bert = Bert(recorded.config, recorded.params, task=recorded.task)
    found = bert.forward(**recorded.arguments, output_hidden_states=True, output_attentions=True)
    for name, want in recorded.outputs.items():
        field, _, index = name.partition(".")
        value = getattr(found, field)
        _check(name, value[int(index)] if index else value, want, tolerance)
    recorded_states = [name for name in recorded.outputs if name.startswith("hidden_states.")]
    assert len(recorded_states) == len(found.hidden_states) == recorded.config.num_hidden_layers + 1


def check_gradients(recorded: Recorded, tolerance: float) -> None:
    """Compare the gradient of every parameter; one that transformers does not use must be exactly 0."""
    bert = Bert(recorded.config, recorded.params, task=recorded.task)
    if recorded.cotangents:
        cotangents = {f"d{name}": value for name, value in recorded.cotangents.items()}
        grads, _ = bert.vjp(**cotangents, **recorded.arguments)
    else:
        _, grads = bert.loss_and_grads(**recorded.arguments)
    assert set(grads) == set(recorded.params)
    for name, grad in grads.items():
        if name not in recorded.grads:
            np.testing.assert_array_equal(grad, 0, err_msg=name)
        elif any(fnmatch(name, zero) for zero in structural_zeros(recorded.config, recorded.task)):
            weight = name.replace("key.bias", "value.weight").replace("bias", "weight")
            _check(name, grad, recorded.grads[name], tolerance, scale=np.abs(recorded.grads[weight]).max())
        else:
            _check(name, grad, recorded.grads[name], tolerance)


def _check(
    name: str, actual: Any, expected: np.ndarray, tolerance: float, scale: float | None = None
) -> None:
    """``|actual - expected|`` is at most ``tolerance`` times the largest element expected, or ``scale``."""
    actual = np.asarray(actual)
    assert actual.shape == expected.shape, f"{name} has shape {actual.shape}, expected {expected.shape}"
    assert_finite(actual, name)
    scale = np.abs(expected).max() if scale is None else scale
    assert scale > 0, f"{name}: a comparison with zeros proves nothing"
    error = np.abs(actual - expected).max() / scale
    assert error <= tolerance, (
        f"{name} is off by {error:.1e} of its largest element; {tolerance:.0e} is allowed"
    )
