"""What is refused before anything runs: rejections name the kernel or op, the argument, what is wrong."""

import re
import sys
import types

import numpy as np
import pytest

from npbert.cuda.arguments import (
    DTYPES,
    bind_arguments,
    check_floating,
    check_grid,
    check_mask,
    check_one_place,
    check_rows,
    check_shape,
)
from npbert.cuda.source import kernel_signatures

SOURCE = """
extern "C" __global__ void f(const REAL *x, REAL *y, unsigned char *mask, float scale, int n, long long wide,
                             unsigned int bits, bool flag) {}
"""
PARAMETERS = kernel_signatures(SOURCE)["f"]
NAMES = [parameter.name for parameter in PARAMETERS]
FLOAT = {"REAL": "float"}


class DeviceArray:
    """What a launch looks at of a CuPy array; it does not become NumPy's."""

    def __init__(self, shape, dtype, device=0, contiguous=True):
        self.shape, self.dtype = shape, np.dtype(dtype)
        self.strides = (0,) * len(shape)
        self.device = types.SimpleNamespace(id=device)
        self.flags = types.SimpleNamespace(c_contiguous=contiguous)

    def __array__(self, *args, **kwargs):
        raise TypeError("Implicit conversion to a NumPy array is not allowed")


@pytest.fixture
def cupy(monkeypatch):
    module = types.ModuleType("cupy")
    module.ndarray = DeviceArray
    monkeypatch.setitem(sys.modules, "cupy", module)
    return module


def arguments(**changed):
    """Right arguments of the kernel, but for some."""
    right = {
        "x": np.zeros((2, 3), np.float32),
        "y": np.zeros(6, np.float32),
        "mask": None,
        "scale": 1.5,
        "n": 6,
        "wide": -(2**63),
        "bits": 2**32 - 1,
        "flag": True,
    }
    return [{**right, **changed}[name] for name in NAMES]


def bind(defines=FLOAT, **changed):
    return bind_arguments("f", PARAMETERS, defines, arguments(**changed))


def refused(message, **changed):
    with pytest.raises(ValueError, match=re.escape(message)):
        bind(**changed)


def test_arrays_stay_and_numbers_get_the_parameters_type():
    args = arguments(mask=np.zeros(4, bool))
    values = bind_arguments("f", PARAMETERS, FLOAT, args)
    assert all(value is arg for value, arg in zip(values[:3], args[:3], strict=True))
    types_ = [type(value) for value in values[3:]]
    assert types_ == [np.float32, np.int32, np.int64, np.uint32, np.bool_]
    assert [value.item() for value in values[3:]] == args[3:]


@pytest.mark.parametrize(
    "number", [7, np.int8(7), np.uint64(7), np.array(7), np.bool_(True), True], ids=lambda n: repr(type(n))
)
def test_integers_of_every_kind(number):
    assert bind(n=number)[NAMES.index("n")] == int(number)
    assert bind(scale=number)[NAMES.index("scale")] == float(number)


def test_floats_of_every_kind():
    for number in (0.25, np.float16(0.25), np.float64(0.25), np.array(0.25), np.inf, -np.inf):
        assert bind(scale=number)[NAMES.index("scale")] == number
    assert np.isnan(bind(scale=np.nan)[NAMES.index("scale")])


def test_null_pointers_empty_arrays_and_arrays_without_axes():
    values = bind(x=None, y=np.zeros((0, 5), np.float32), mask=np.zeros((), np.uint8))
    assert values[0] is None
    assert values[1].size == 0


def test_an_array_that_is_read_only_may_be_read():
    x = np.zeros(4, np.float32)
    x.flags.writeable = False
    assert bind(x=x)[0] is x
    refused("f: y is read-only, and the kernel writes to it", y=x)


@pytest.mark.parametrize("count", [0, 7, 9])
def test_a_wrong_number_of_arguments(count):
    expected = f"f takes 8 arguments (x, y, mask, scale, n, wide, bits, flag), got {count}"
    with pytest.raises(ValueError, match=re.escape(expected)):
        bind_arguments("f", PARAMETERS, FLOAT, [*arguments(), 1][:count])


def test_wrong_dtypes():
    refused("f: x is float64; the kernel takes float32", x=np.zeros(3))
    refused("f: y is float16; the kernel takes float32", y=np.zeros(3, np.float16))
    refused("f: x is float32; the kernel takes float16", defines={"REAL": "__half"})
    refused("f: x is bool; the kernel takes float32", x=np.zeros(3, bool))
    refused("f: mask is int8; the kernel takes uint8", mask=np.zeros(3, np.int8))
    refused("f: x is >f4; the kernel takes float32", x=np.zeros(3, ">f4"))


def test_what_is_no_array():
    refused("f: x is a list; it must be an array or None", x=[1.0, 2.0])
    refused("f: y is a float; it must be an array or None", y=1.0)
    refused("f: y is a float32; it must be an array or None", y=np.float32(1))


def test_arrays_that_would_be_misread():
    x = np.zeros((3, 4), np.float32)
    refused("f: x is not C-contiguous: shape (4, 3), strides (4, 16)", x=x.T)
    refused("f: x is not C-contiguous: shape (3, 2), strides (16, 8)", x=x[:, ::2])
    shifted = np.zeros(17, np.uint8)[1:].view(np.float32)
    refused("f: x is not aligned: its address is no multiple of 4 bytes", x=shifted)


def test_wrong_numbers():
    refused("f: n is None; it must be a number", n=None)
    refused("f: scale is None; it must be a number", scale=None)
    refused("f: n is '6'; it must be a number", n="6")
    refused("f: scale is (1+0j); it must be a number", scale=1 + 0j)
    refused("f: n is array([6]); it must be a number", n=np.array([6]))
    refused("f: n is 6.0; it must be an integer", n=6.0)
    refused("f: flag is 1.0; it must be an integer", flag=1.0)
    refused("f: n is 2147483648; it must be in [-2147483648, 2147483647]", n=2**31)
    refused("f: n is -2147483649; it must be in [-2147483648, 2147483647]", n=np.int64(-(2**31) - 1))
    refused("f: bits is -1; it must be in [0, 4294967295]", bits=-1)
    refused("f: wide is 9223372036854775808; it must be in [-9223372036854775808,", wide=2**63)
    refused("f: flag is 2; it must be in [0, 1]", flag=2)
    refused("f: scale is 1e+39; float32 goes up to 3.40282e+38", scale=1e39)
    refused(f"f: scale is {10**400}; float32 goes up to", scale=10**400)


def test_a_number_of_a_device(cupy):
    refused("f: n is <", n=DeviceArray((), np.int32))


def test_a_type_that_no_launch_can_pass():
    parameters = kernel_signatures('extern "C" __global__ void f(float4 *x, float **y) {}')["f"]
    with pytest.raises(
        ValueError, match="f: x has the type float4; a launch can pass: double, float, __half"
    ):
        bind_arguments("f", parameters, {}, [None, None])
    with pytest.raises(ValueError, match=r"f: y has the type float \*; a launch can pass"):
        bind_arguments("f", parameters[1:], {}, [None])


def test_every_type_that_a_launch_can_pass():
    for ctype, dtype in DTYPES.items():
        parameters = kernel_signatures(f'extern "C" __global__ void f({ctype} *x, {ctype} y) {{}}')["f"]
        x, y = bind_arguments("f", parameters, {}, [np.ones(2, dtype), 1])
        assert (x.dtype, y.dtype, y) == (dtype, dtype, 1)


def test_arrays_of_two_places(cupy):
    here, there = np.zeros(6, np.float32), DeviceArray((6,), np.float32)
    assert bind(x=there, y=there)[:2] == [there, there]
    refused("f: x is on device 0 (cupy), y on the host (NumPy); all arrays must be in one place", x=there)
    refused("f: x is on the host (NumPy), y on device 0 (cupy); all", x=here, y=there)
    other = DeviceArray((6,), np.float32, device=1)
    refused("f: x is on device 0 (cupy), y on device 1 (cupy); all", x=there, y=other)


def test_arrays_of_a_device_are_checked_too(cupy):
    there = DeviceArray((6,), np.float32)
    refused("f: x is float64; the kernel takes float32", x=DeviceArray((6,), np.float64), y=there)
    refused("f: x is not C-contiguous", x=DeviceArray((6,), np.float32, contiguous=False), y=there)


# --- the grid -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("grid", "block"),
    [((1,), (1,)), ((2**31 - 1, 65535, 65535), (1024,)), ((np.int64(3), 2), (16, 16, 4)), ((1,), (1, 1, 64))],
)
def test_grids_that_every_device_takes(grid, block):
    check_grid("f", grid, block)


@pytest.mark.parametrize(
    ("grid", "block", "message"),
    [
        ((0,), (32,), "f: grid is (0,); sizes must be integers in [1, 2147483647]"),
        ((3, 0), (32,), "f: grid is (3, 0); sizes must be integers in [1, 65535]"),
        ((2**31,), (32,), "f: grid is (2147483648,); sizes must be integers in [1, 2147483647]"),
        ((1, 65536), (32,), "f: grid is (1, 65536); sizes must be integers in [1, 65535]"),
        ((1,), (1025,), "f: block is (1025,); sizes must be integers in [1, 1024]"),
        ((1,), (1, 1, 65), "f: block is (1, 1, 65); sizes must be integers in [1, 64]"),
        ((1,), (1, -2), "f: block is (1, -2); sizes must be integers in [1, 1024]"),
        ((1,), (32, 33), "f: a block of (32, 33) has 1056 threads; at most 1024"),
        ((1.0,), (32,), "f: grid is (1.0,); sizes must be integers"),
        ((), (32,), "f: grid is (); it must have one to three sizes"),
        ((1,), (1, 1, 1, 1), "f: block is (1, 1, 1, 1); it must have one to three sizes"),
    ],
)
def test_grids_that_no_device_takes(grid, block, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        check_grid("f", grid, block)


# --- launchers ------------------------------------------------------------------------------------------


def test_floating_arrays_of_one_dtype(cupy):
    x = np.zeros(3, np.float32)
    check_floating("gelu", x=x, bias=None, y=x)
    for wrong, message in [
        ({"x": [1.0]}, "gelu: x is a list, not an array"),
        ({"x": np.zeros(3, int)}, "gelu: x is int64; it must be one of float64, float32, float16"),
        ({"x": np.zeros(3, complex)}, "gelu: x is complex128; it must be one of float64, float32, float16"),
        ({"x": np.zeros(3, np.longdouble)}, "gelu: x is float128; it must be one of"),
        ({"x": x, "y": np.zeros(3)}, "gelu: x is float32, y float64; they must have the same dtype"),
        (
            {"x": x, "y": None, "bias": DeviceArray((3,), np.float32)},
            "gelu: x is on the host (NumPy), bias on device 0 (cupy); they must have the same place",
        ),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            check_floating("gelu", **wrong)


def test_one_place(cupy):
    one, other = (DeviceArray((3,), np.float32, device=device) for device in (0, 1))
    check_one_place("gelu", x=one, y=None, z=one)
    with pytest.raises(ValueError, match=re.escape("gelu: x is on device 0 (cupy), z on device 1 (cupy)")):
        check_one_place("gelu", x=one, y=None, z=other)


def test_shapes():
    x = np.zeros((2, 3))
    check_shape("op", "x", x, (2, 3))
    check_rows("op", "x", x)
    check_mask("op", "mask", x > 0, (2, 3))
    for check, message in [
        (lambda: check_shape("op", "x", x, (3, 2)), "op: x has shape (2, 3); expected (3, 2)"),
        (lambda: check_shape("op", "x", 1.0, ()), "op: x is a float, not an array"),
        (
            lambda: check_rows("op", "x", x[:, :0]),
            "op: x has shape (2, 0); its rows must have at least one element",
        ),
        (lambda: check_rows("op", "x", np.array(1.0)), "op: x has shape (); its rows must have at least one"),
        (lambda: check_rows("op", "x", [1.0]), "op: x is a list, not an array"),
        (lambda: check_mask("op", "mask", x, (2, 3)), "op: mask is float64; it must be bool"),
        (lambda: check_mask("op", "mask", [True], (1,)), "op: mask is list; it must be bool"),
        (lambda: check_mask("op", "mask", x > 0, (6,)), "op: mask has shape (2, 3); expected (6,)"),
    ]:
        with pytest.raises(ValueError, match=re.escape(message)):
            check()
