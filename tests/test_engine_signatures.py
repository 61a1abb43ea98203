"""Every engine can stand wherever `npbert.ops` can: the same names, arguments, defaults."""

import inspect

import pytest

from npbert import cpu, cuda, model, ops
from tests.op_signatures import assert_documented, assert_is_pair

ENGINES = {"cpu": cpu, "cuda": cuda}
FUNCTIONS = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
# What only engines have: fused ops. A layer is not an op; its form is that of npbert.model's.
LAYER = ("encoder_layer_forward", "encoder_layer_backward")
ENCODER = ("encoder_forward", "encoder_backward")  # only some engines have one

# One gradient for the two arrays of a sum; and two forwards that share a backward.
GRADIENTS = {
    "residual_layernorm_forward": ("dsum", "dweight", "dbias"),
    "dropout_attention_forward": ("dq", "dk", "dv", "dbias"),
}
BACKWARDS = {"dropout_attention_forward": "softmax_attention_backward"}


def own(engine) -> list[str]:
    """Names of the textbook that mean another function in an engine."""
    return [name for name in FUNCTIONS if getattr(engine, name, None) is not getattr(ops, name)]


def passes(engine) -> list[str]:
    """Names of an engine's own forwards and backwards, fused ones included."""
    extras = [name for name in engine.__all__ if name not in (*ops.__all__, *LAYER, *ENCODER)]
    functions = [*own(engine), *(name for name in extras if inspect.isfunction(getattr(engine, name)))]
    return [name for name in functions if name.endswith(("_forward", "_backward"))]


OWN_PASSES = [(engine, name) for engine in ENGINES for name in passes(ENGINES[engine])]
OWN_FORWARDS = [(engine, name) for engine, name in OWN_PASSES if name.endswith("_forward")]
every_engine = pytest.mark.parametrize("engine", ENGINES.values(), ids=ENGINES)


def shape_of(function):
    """Names, order, kinds and defaults of the parameters."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


@every_engine
def test_the_engine_has_every_name_of_the_textbook(engine):
    assert set(ops.__all__) <= set(engine.__all__)
    assert all(hasattr(engine, name) for name in engine.__all__)


@every_engine
def test_the_ops_that_pay_are_its_own(engine):
    expected = {"softmax_attention", "gelu", "layernorm", "cross_entropy", "embedding", "activation"}
    assert expected <= {name.removesuffix("_forward") for name in own(engine)}


@every_engine
@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_is_that_of_the_textbook(engine, name):
    assert shape_of(getattr(engine, name)) == shape_of(getattr(ops, name))


@pytest.mark.parametrize(("engine", "name"), OWN_PASSES)
def test_the_docstring_has_every_parameter_and_what_is_returned(engine, name):
    assert_documented(getattr(ENGINES[engine], name))


@pytest.mark.parametrize(("engine", "name"), OWN_FORWARDS)
def test_a_forward_and_a_backward_belong_together(engine, name):
    forward = getattr(ENGINES[engine], name)
    backward = getattr(ENGINES[engine], BACKWARDS.get(name, name.replace("_forward", "_backward")))
    assert_is_pair(forward, backward, GRADIENTS.get(name))
    assert backward.__module__.startswith(f"npbert.{engine}.")


@every_engine
@pytest.mark.parametrize("name", LAYER)
def test_the_signature_of_a_layer_is_that_of_the_model(engine, name):
    assert shape_of(getattr(engine, name)) == shape_of(getattr(model, name))


@pytest.mark.parametrize("name", ENCODER)
def test_the_signature_of_the_encoder_is_that_of_the_model(name):
    assert shape_of(getattr(cpu, name)) == shape_of(getattr(model, name))


@every_engine
def test_a_textbook_op_is_replaced_as_a_pair(engine):
    """A cache of one engine means nothing to the backward of the other."""
    stems = [
        {name.rpartition("_")[0] for name in own(engine) if name.endswith(end)}
        for end in ("_forward", "_backward")
    ]
    assert stems[0] == stems[1]
