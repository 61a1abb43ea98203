"""What an entry says comes out wrong does, and nothing else: every mutant of an op, on rich inputs."""

import inspect
import types

import numpy as np
import pytest

from npbert import ops
from npbert.ops.activations import ACTIVATIONS
from tests.mutants.catalogue import ROOT, apply, load
from tests.strategies import padding_mask

GRADIENTS = {
    "linear": ("dx", "dweight", "dbias"),
    "layernorm": ("dx", "dweight", "dbias"),
    "gelu": ("dx",),
    "activation": ("dx",),
    "softmax": ("dx",),
    "softmax_attention": ("dq", "dk", "dv", "dbias"),
    "relative_position": ("dq", "dk", "ddistance_embedding"),
    "embedding": ("dinputs_embeds", "dword_embeddings", "dposition_embeddings", "dtoken_type_embeddings"),
    "dropout": ("dx",),
    "cross_entropy": ("dlogits",),
    "mse": ("dprediction", "dtarget"),
    "bce_with_logits": ("dlogits", "dtargets"),
    "cls_pooling": ("dx",),
    "mean_pooling": ("dx",),
    "l2_normalize": ("dx",),
}
# What each forward calls its value; "y" where it is not named here.
VALUES = {
    "softmax": "probs",
    "softmax_attention": "context",
    "relative_position": "bias",
    "cross_entropy": "loss",
    "mse": "loss",
    "bce_with_logits": "loss",
}
OPS_OF_FILE: dict[str, list[str]] = {}
for _name in GRADIENTS:
    _module = inspect.getmodule(getattr(ops, f"{_name}_forward"))
    OPS_OF_FILE.setdefault(_module.__name__.replace(".", "/") + ".py", []).append(_name)

# Entries about something else: an exception, a helper, memory.
TENSORS = {name for names in GRADIENTS.values() for name in names} | set(VALUES.values()) | {"y"}
MUTANTS = [
    mutant
    for mutant in load()
    if mutant.file in OPS_OF_FILE
    and set(mutant.wrong) <= TENSORS
    and mutant.equivalent is None
    and mutant.id != "embedding-dinputs-embeds-is-dy"  # the right numbers, in the wrong memory
]


def problems(op):
    """Arguments of the op's forward on which every mistake shows: all options, all special cases."""
    rng = np.random.default_rng(5)
    normal = rng.standard_normal
    mask = np.arange(5) < np.array([5, 3, 0])[:, None]
    if op == "linear":
        return [(normal((2, 3, 31)), normal((7, 31)), normal(7)), (normal((5, 4)), normal((4, 4)), None)]
    if op == "layernorm":
        return [(1 + 3 * normal((2, 3, 31)), normal(31), normal(31), eps) for eps in (1e-12, 0.3)]
    if op == "gelu":
        x = np.array([*rng.uniform(-12, 12, 60), -400.0, -5.0, 0.0, 1.0])
        return [(x, "erf"), (x, "tanh")]
    if op == "activation":
        x = np.array([*rng.uniform(-12, 12, 60), 0.0, -3.0, 3.0, -0.5, 0.3, 6.0, 15.0])
        return [(x, name) for name in ACTIVATIONS]
    if op == "softmax":
        logits = normal((5, 7)) * np.array([[1e4], [0.0], [1.0], [1.0], [1.0]])
        logits[2] -= 1e5
        some = rng.random((5, 7)) < 0.7
        some[:4, 0], some[4] = True, False
        return [(logits, some), (normal((3, 4)), None)]
    if op == "softmax_attention":
        q, k, v = normal((3, 3, 2, 5, 3))
        keep = rng.random((3, 2, 5, 5)) < 0.8
        return [(q, k, v), (q, k, v, normal((3, 2, 5, 5)), mask, keep, 0.2)]
    if op == "relative_position":
        q, k, table = normal((2, 3, 5, 3)), normal((2, 3, 5, 3)), normal((13, 3))
        return [(q, k, table, "relative_key"), (q, k, table, "relative_key_query")]
    if op == "embedding":
        ids = np.array([[4, 7, 4, 0, 0], [10, 4, 2, 7, 0]])
        positions = np.array([[0, 1, 2, 3, 4], [3, 4, 5, 6, 6]])
        types_ = np.array([[0, 0, 2, 2, 0], [0, 0, 0, 0, 2]])
        tables = normal((11, 3)), normal((9, 3)), normal((3, 3))
        without = (tables[0], None, tables[2])
        by_id = [(ids, None, positions, types_, *tables, padding_idx) for padding_idx in (0, 4, None)]
        vectors = (None, normal((2, 5, 3)), positions, types_, *tables, 0)
        return [*by_id, vectors, (ids, None, positions, types_, *without, 2)]
    if op == "dropout":
        x = normal((3, 5, 7))
        return [(x, rng.random(x.shape) < 0.66, 1 / 3), (x, None, 0.1)]
    if op == "cross_entropy":
        logits, labels = normal((9, 7)), rng.integers(7, size=9)
        logits[0], logits[3] = 1e4 * logits[0], logits[3] - 1e5
        ignored = np.where(np.isin(np.arange(9), [2, 5]), -100, labels)
        extreme = [
            (logits, y, i, r) for r in ("mean", "sum") for y, i in ((ignored, -100), (labels, labels[1]))
        ]
        return [*extreme, (normal((4, 7)), rng.integers(7, size=4))]
    if op in ("mse", "bce_with_logits"):
        x, target = normal((5, 7)), rng.random((5, 7))
        x[2, :3], target[0], target[1] = (40.0, 80.0, -800.0), 0.0, 1.0
        target[2, :3] = (1.0, 0.5, 0.0)
        sure = np.array([[40.0]]), np.array([[1.0]])
        return [(x, target, "mean"), (x, target, "sum"), (*sure, "mean")]
    if op == "cls_pooling":
        return [(normal((3, 5, 7)),)]
    if op == "mean_pooling":
        return [(normal((3, 5, 7)), mask), (normal((2, 5, 7)), padding_mask(rng, 2, 5, empty_text=False))]
    assert op == "l2_normalize"
    x = normal((5, 7)) * np.array([[0.01], [0.3], [1.0], [3.0], [100.0]])
    return [(x, 0.1), (x * (np.arange(5) > 0)[:, None], 1e-12)]


def in_float32(args):
    return tuple(
        a.astype(np.float32) if isinstance(a, np.ndarray) and a.dtype.kind == "f" else a for a in args
    )


def results(module, op, args, dy=None):
    """Return what the op gives, by name, and the cotangent; what cannot be computed is missing."""
    found = {}
    try:
        value, cache = getattr(module, f"{op}_forward")(*args)
    except Exception:
        return found, dy
    found[VALUES.get(op, "y")] = value
    if dy is None:
        dy = np.random.default_rng(3).standard_normal(np.shape(value)).astype(value.dtype)[()]
    if np.shape(value) != np.shape(dy):
        return found, dy
    try:
        gradients = getattr(module, f"{op}_backward")(dy, cache)
    except Exception:
        return found, dy
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    return found | dict(zip(GRADIENTS[op], gradients, strict=True)), dy


def is_same(actual, expected):
    if actual is None or expected is None:
        return actual is expected
    actual, expected = np.asarray(actual), np.asarray(expected)
    if actual.shape != expected.shape or actual.dtype != expected.dtype:
        return False
    return np.allclose(actual, expected, rtol=1e-10, atol=1e-300)


def module_from(text, file):
    module = types.ModuleType("mutant")
    exec(compile(text, file, "exec"), vars(module))
    return module


@pytest.mark.parametrize("file", sorted(OPS_OF_FILE))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_signatures(file):
    text = (ROOT / file).read_text(encoding="utf-8")
    right = module_from(text, file)
    cases = []
    for op in OPS_OF_FILE[file]:
        for args in problems(op):
            for arguments in (args, in_float32(args)):
                expected, dy = results(right, op, arguments)
                assert set(expected) == {VALUES.get(op, "y"), *GRADIENTS[op]}
                cases.append((op, arguments, expected, dy))
    for mutant in MUTANTS:
        if mutant.file != file:
            continue
        module = module_from(apply(mutant, text), file)
        wrong, unknown = set(), set()
        for op, arguments, expected, dy in cases:
            found, _ = results(module, op, arguments, dy)
            value = VALUES.get(op, "y")
            missing = expected.keys() - found.keys()
            if value in missing:
                wrong.add(value)  # the forward raises: of the gradients nothing can be said
            elif missing:
                unknown |= missing  # a wrong shape of the value, or a backward that raises
            wrong |= {name for name in found if not is_same(found[name], expected[name])}
        said = set(mutant.wrong)
        assert wrong <= said <= wrong | unknown, (
            f"{mutant.id}: {sorted(wrong)} wrong, {mutant.wrong} said to be"
        )
        assert said, mutant.id
