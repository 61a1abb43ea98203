"""Correct forward/backward pairs to check, and to plant bugs in; written for these tests alone."""

import numpy as np


def linear(x, weight, bias):
    return x @ weight.T + bias, (x, weight)


def linear_backward(dy, cache):
    x, weight = cache
    rows = x.reshape(-1, x.shape[-1])
    drows = dy.reshape(-1, dy.shape[-1])
    return dy @ weight, drows.T @ rows, drows.sum(axis=0)


def layernorm(x, weight, bias, eps):
    centred = x - x.mean(axis=-1, keepdims=True)
    inv_std = 1 / np.sqrt((centred * centred).mean(axis=-1, keepdims=True) + eps)
    x_hat = centred * inv_std
    return x_hat * weight + bias, (x_hat, inv_std, weight)


def layernorm_backward(dy, cache):
    x_hat, inv_std, weight = cache
    dx_hat = dy * weight
    mean = dx_hat.mean(axis=-1, keepdims=True)
    projection = (dx_hat * x_hat).mean(axis=-1, keepdims=True)
    rows = tuple(range(dy.ndim - 1))
    return inv_std * (dx_hat - mean - x_hat * projection), (dy * x_hat).sum(axis=rows), dy.sum(axis=rows)


def softmax(x):
    exponentials = np.exp(x - x.real.max(axis=-1, keepdims=True))
    probs = exponentials / exponentials.sum(axis=-1, keepdims=True)
    return probs, probs


def softmax_backward(dy, probs):
    return probs * (dy - (dy * probs).sum(axis=-1, keepdims=True))


def gather(ids, table):
    return table[ids], (ids, table.shape)


def gather_backward(dy, cache):
    ids, shape = cache
    dtable = np.zeros(shape, dtype=dy.dtype)
    np.add.at(dtable, ids, dy)
    return dtable


def network(params, x):
    """Two layers; the parameters are one dictionary, the outputs are two, one of them absent."""
    hidden = np.tanh(x @ params["w1"])
    return (hidden, None, hidden @ params["w2"]), (params, x, hidden)


def network_backward(douts, cache):
    dhidden_out, _, dy = douts
    params, x, hidden = cache
    dhidden = dhidden_out + dy @ params["w2"].T
    dinner = dhidden * (1 - hidden**2)
    return {"w1": x.T @ dinner, "w2": hidden.T @ dy}, dinner @ params["w1"].T


def cross_entropy(logits, labels):
    probs, _ = softmax(logits)
    picked = np.take_along_axis(probs, labels[:, None], axis=1)
    return -np.log(picked).mean(), (probs, labels)


def cross_entropy_backward(dloss, cache):
    probs, labels = cache
    onehot = np.arange(probs.shape[1]) == labels[:, None]
    return dloss * (probs - onehot) / np.asarray(len(labels), dtype=probs.dtype)


def random_arguments(seed, rows=3, width=5, out=7):
    """Return float64 arguments for each pair, by its forward's name."""
    rng = np.random.default_rng(seed)
    draw = rng.standard_normal
    return {
        "linear": (draw((2, rows, width)), draw((out, width)), draw(out)),
        "layernorm": (draw((2, rows, width)), draw(width), draw(width), 1e-5),
        "softmax": (draw((2, rows, width)),),
        "gather": (rng.integers(out, size=(2, rows)), draw((out, width))),
        "network": ({"w1": draw((width, out)), "w2": draw((out, 2))}, draw((rows, width))),
        "cross_entropy": (3 * draw((rows, width)), rng.integers(width, size=rows)),
    }


PAIRS = {
    "linear": (linear, linear_backward),
    "layernorm": (layernorm, layernorm_backward),
    "softmax": (softmax, softmax_backward),
    "gather": (gather, gather_backward),
    "network": (network, network_backward),
    "cross_entropy": (cross_entropy, cross_entropy_backward),
}


def cast(args, dtype):
    """Return the arguments with every floating-point array in another dtype."""

    def one(arg):
        if isinstance(arg, dict):
            return {key: one(value) for key, value in arg.items()}
        return arg.astype(dtype) if isinstance(arg, np.ndarray) and arg.dtype.kind == "f" else arg

    return tuple(one(arg) for arg in args)


def check_named(report, name):
    """Return the result of one property."""
    return {check.name: check for check in report.checks}[name]


def row_named(report, name):
    """Return the result of one tensor."""
    return {row.name: row for row in report.tensors}[name]
