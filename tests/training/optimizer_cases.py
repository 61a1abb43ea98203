"""Parameters, gradients and learning rates for the tests of all optimisers."""

import numpy as np

SHAPES = {
    "dense.weight": (3, 5),
    "dense.bias": (3,),
    "LayerNorm.weight": (5,),
    "one.weight": (1,),
    "scalar.weight": (),
    "none.weight": (0, 4),
    "unused.weight": (2, 2),  # its gradient is 0
    "zero.weight": (4,),  # all of it is 0 at first
}
RATES = (0.1, 0.0, 0.03, 0.2)
WITHOUT_DECAY = ("dense.bias", "LayerNorm.weight")


def draw_params(seed=0, dtype=np.float64, shapes=SHAPES):
    """Random parameters."""
    rng = np.random.default_rng(seed)
    params = {name: np.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}
    if "zero.weight" in params:
        params["zero.weight"][...] = 0
    return params


def draw_grads(seed=1, dtype=np.float64, shapes=SHAPES, steps=4):
    """Random gradients, of sizes from 0.001 to 1000, for a number of steps."""
    rng = np.random.default_rng(seed)
    grads = []
    for _ in range(steps):
        of_one_step = {
            name: rng.normal(size=shape) * 10 ** rng.uniform(-3, 3) for name, shape in shapes.items()
        }
        if "unused.weight" in of_one_step:
            of_one_step["unused.weight"] *= 0
        grads.append({name: np.asarray(grad, dtype) for name, grad in of_one_step.items()})
    return grads


def take_steps(optimizer, grads, rates=RATES):
    """One step with each of the gradients."""
    for of_one_step, rate in zip(grads, rates, strict=True):
        optimizer.step(of_one_step, rate)


def backwards(work, pieces):
    """Work on the last piece first, as threads may."""
    for piece in reversed(list(pieces)):
        work(piece)


def copied(arrays):
    """The same arrays once more, in memory of their own."""
    return {name: value.copy() for name, value in arrays.items()}
