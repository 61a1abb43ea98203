"""The engine `npbert.cuda` can stand wherever `npbert.ops` can: the same names, arguments, defaults."""

import inspect

import pytest

from npbert import cuda, model, ops
from tests.op_signatures import assert_documented, assert_is_pair

FUNCTIONS = [name for name in ops.__all__ if inspect.isfunction(getattr(ops, name))]
OWN = [name for name in FUNCTIONS if getattr(cuda, name, None) is not getattr(ops, name)]
# What only the engine has: fused ops. A layer is not an op; its form is that of npbert.model's.
LAYER = ("encoder_layer_forward", "encoder_layer_backward")
EXTRAS = [
    name
    for name in cuda.__all__
    if name not in (*ops.__all__, *LAYER) and inspect.isfunction(getattr(cuda, name))
]
OWN_FORWARDS = [name for name in [*OWN, *EXTRAS] if name.endswith("_forward")]

# One gradient for the two arrays of a sum; and two forwards that share a backward.
GRADIENTS = {
    "residual_layernorm_forward": ("dsum", "dweight", "dbias"),
    "dropout_attention_forward": ("dq", "dk", "dv", "dbias"),
}
BACKWARDS = {"dropout_attention_forward": "softmax_attention_backward"}


def shape_of(function):
    """Names, order, kinds and defaults of the parameters."""
    return [(p.name, p.kind, p.default) for p in inspect.signature(function).parameters.values()]


def test_the_engine_has_every_name_of_the_textbook():
    assert set(ops.__all__) <= set(cuda.__all__)
    assert all(hasattr(cuda, name) for name in cuda.__all__)


def test_the_ops_that_pay_are_its_own():
    expected = {"softmax_attention", "gelu", "layernorm", "cross_entropy", "embedding", "activation"}
    assert expected <= {name.removesuffix("_forward") for name in OWN}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_signature_is_that_of_the_textbook(name):
    assert shape_of(getattr(cuda, name)) == shape_of(getattr(ops, name))


@pytest.mark.parametrize("name", [n for n in OWN + EXTRAS if n.endswith(("_forward", "_backward"))])
def test_the_docstring_has_every_parameter_and_what_is_returned(name):
    assert_documented(getattr(cuda, name))


@pytest.mark.parametrize("name", OWN_FORWARDS)
def test_a_forward_and_a_backward_belong_together(name):
    backward = getattr(cuda, BACKWARDS.get(name, name.replace("_forward", "_backward")))
    assert_is_pair(getattr(cuda, name), backward, GRADIENTS.get(name))
    assert backward.__module__.startswith("npbert.cuda.")


@pytest.mark.parametrize("name", LAYER)
def test_the_signature_of_a_layer_is_that_of_the_model(name):
    assert shape_of(getattr(cuda, name)) == shape_of(getattr(model, name))


def test_a_textbook_op_is_replaced_as_a_pair():
    """A cache of one engine means nothing to the backward of the other."""
    stems = [
        {name.rpartition("_")[0] for name in OWN if name.endswith(end)} for end in ("_forward", "_backward")
    ]
    assert stems[0] == stems[1]
