"""Independent answers to compare with.

- Loops: each op once more, element by element, in Python floats, straight from its formula.
- The complex step: derivatives of a forward pass without a backward pass, exact to round-off.
- torch, imported only where it is used.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest

# Squared, it vanishes beside 1; divided out again, nothing is lost.
STEP = 1e-30


# --- the complex step ---------------------------------------------------------------------------------


def complex_step_gradient(function: Callable, args: Sequence, position: int, dy: np.ndarray) -> np.ndarray:
    """Return the gradient of ``sum(dy * function(*args))`` for ``args[position]``, element by element.

    ``f(x + i h) = f(x) + i h f'(x) - h² f''(x) / 2 - ...``: the imaginary part is the derivative, and
    nothing is subtracted, so nothing cancels. The function must be analytic, as the ops' forwards are.
    """
    gradient = np.empty(args[position].shape)
    for index in np.ndindex(gradient.shape):
        gradient[index] = complex_step_element(function, args, position, dy, index)
    return gradient


def complex_step_element(function: Callable, args: Sequence, position: int, dy, index: tuple) -> float:
    """Return one element of `complex_step_gradient`."""
    moved = list(args)
    moved[position] = args[position].astype(np.complex128)
    moved[position][index] += 1j * STEP
    return np.sum(dy * function(*moved).imag) / STEP


def complex_step_along(function: Callable, args: Sequence, directions: Sequence) -> np.ndarray:
    """Return ``J v``: how the function's value moves when each argument moves along its direction.

    A direction of None leaves its argument where it is.
    """
    moved = [arg if v is None else arg + 1j * STEP * v for arg, v in zip(args, directions, strict=True)]
    return np.imag(function(*moved)) / STEP


# --- loops ----------------------------------------------------------------------------------------------


def linear_loop(x, weight, bias):
    """x (rows, in)."""
    y = np.zeros((x.shape[0], weight.shape[0]))
    for r in range(x.shape[0]):
        for o in range(weight.shape[0]):
            terms = [x[r, i] * weight[o, i] for i in range(x.shape[1])]
            y[r, o] = math.fsum(terms) + (0.0 if bias is None else bias[o])
    return y


def layernorm_loop(x, weight, bias, eps):
    """x (rows, D)."""
    y = np.zeros(x.shape)
    for r, row in enumerate(x.tolist()):
        mean = math.fsum(row) / len(row)
        variance = math.fsum((e - mean) ** 2 for e in row) / len(row)
        for i, element in enumerate(row):
            y[r, i] = (element - mean) / math.sqrt(variance + eps) * weight[i] + bias[i]
    return y


def layernorm_mpmath(x, weight, bias, eps, dy):
    """The same, and its gradients (dx, dweight, dbias), with 50 digits; the numbers given are taken as exact.

    The gradients are the textbook's sums over all pairs: ``dx_j = sum_i dy_i w_i ∂x̂_i/∂x_j``.
    """
    from mpmath import mp, mpf

    y, dx, dweight, dbias = np.zeros(x.shape), np.zeros(x.shape), [mpf(0)] * x.shape[1], [mpf(0)] * x.shape[1]
    with mp.workdps(50):
        w, b = [mpf(float(e)) for e in weight], [mpf(float(e)) for e in bias]
        for r in range(x.shape[0]):
            row, drow = [mpf(float(e)) for e in x[r]], [mpf(float(e)) for e in dy[r]]
            size = len(row)
            mean = sum(row) / size
            centred = [e - mean for e in row]
            total = sum(c * c for c in centred) / size + mpf(eps)
            std = mp.sqrt(total)
            for i in range(size):
                y[r, i] = centred[i] / std * w[i] + b[i]
                dweight[i] += drow[i] * centred[i] / std
                dbias[i] += drow[i]
            for j in range(size):
                slopes = [
                    ((i == j) - mpf(1) / size) / std - centred[i] * centred[j] / (size * total * std)
                    for i in range(size)
                ]
                dx[r, j] = sum(drow[i] * w[i] * slopes[i] for i in range(size))
    return y, dx, np.array(dweight, dtype=float), np.array(dbias, dtype=float)


def embedding_loop(
    input_ids, inputs_embeds, position_ids, token_type_ids, word_table, position_table, token_type_table
):
    """Pick the three rows of each token and add them."""
    batch, tokens = token_type_ids.shape
    y = np.zeros((batch, tokens, token_type_table.shape[1]))
    for b in range(batch):
        for t in range(tokens):
            for d in range(y.shape[2]):
                word = inputs_embeds[b, t, d] if input_ids is None else word_table[input_ids[b, t], d]
                position = 0.0 if position_table is None else position_table[position_ids[b, t], d]
                y[b, t, d] = word + position + token_type_table[token_type_ids[b, t], d]
    return y


def softmax_row(row, allowed):
    """One row of probabilities, as a list; places that are not allowed get 0."""
    largest = max((s for s, a in zip(row, allowed, strict=True) if a), default=0.0)
    exponentials = [math.exp(s - largest) if a else 0.0 for s, a in zip(row, allowed, strict=True)]
    total = math.fsum(exponentials)
    return [e / total if total else 0.0 for e in exponentials]


def softmax_loop(x, mask):
    """x (rows, C), mask of that shape."""
    return np.array([softmax_row(row, allowed) for row, allowed in zip(x.tolist(), mask, strict=True)])


def softmax_attention_loop(q, k, v, bias, key_mask, keep_mask, rate):
    """Equation 1 of "Attention Is All You Need", for one query at a time."""
    batch, heads, queries, width = q.shape
    keys = k.shape[2]
    context = np.zeros((batch, heads, queries, v.shape[3]))
    for b in range(batch):
        for n in range(heads):
            for i in range(queries):
                scores = []
                for j in range(keys):
                    score = math.fsum(q[b, n, i, h] * k[b, n, j, h] for h in range(width))
                    score += 0.0 if bias is None else bias[b, n, i, j]
                    scores.append(score / math.sqrt(width))
                probs = softmax_row(scores, [True] * keys if key_mask is None else key_mask[b])
                for j in range(keys):
                    if keep_mask is not None:
                        probs[j] = probs[j] / (1 - rate) if keep_mask[b, n, i, j] else 0.0
                for h in range(v.shape[3]):
                    context[b, n, i, h] = math.fsum(probs[j] * v[b, n, j, h] for j in range(keys))
    return context


def relative_position_loop(q, k, distance_embedding, kind):
    """One pair of tokens at a time; the row of distance 0 is the middle one."""
    batch, heads, tokens, width = q.shape
    middle = len(distance_embedding) // 2
    bias = np.zeros((batch, heads, tokens, tokens))
    for b, n, i, j in np.ndindex(bias.shape):
        vector = distance_embedding[middle + i - j]
        terms = [q[b, n, i, h] * vector[h] for h in range(width)]
        if kind == "relative_key_query":
            terms += [k[b, n, j, h] * vector[h] for h in range(width)]
        bias[b, n, i, j] = math.fsum(terms)
    return bias


def cross_entropy_loop(logits, labels, ignore_index, reduction):
    """logits (rows, C), labels (rows,)."""
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        if label == ignore_index:
            continue
        largest = max(row)
        log_total = math.log(math.fsum(math.exp(e - largest) for e in row))
        losses.append(log_total - (row[label] - largest))
    if not losses:
        return 0.0
    return math.fsum(losses) / (len(losses) if reduction == "mean" else 1)


def mse_loop(prediction, target, reduction):
    """Any shape."""
    losses = [(p - t) ** 2 for p, t in zip(prediction.ravel().tolist(), target.ravel().tolist(), strict=True)]
    return math.fsum(losses) / (len(losses) if reduction == "mean" else 1)


def bce_with_logits_mpmath(logits, targets, reduction):
    """The definition as it stands, -t log σ(x) - (1 - t) log(1 - σ(x)), with digits enough for 1 - σ(x)."""
    from mpmath import mp, mpf

    with mp.workdps(50 + int(np.abs(logits).max())):
        losses = []
        for x, t in zip(logits.ravel().tolist(), targets.ravel().tolist(), strict=True):
            sigmoid = 1 / (1 + mp.exp(-mpf(x)))
            losses.append(-mpf(t) * mp.log(sigmoid) - (1 - mpf(t)) * mp.log(1 - sigmoid))
        return float(sum(losses) / (len(losses) if reduction == "mean" else 1))


def mean_pooling_loop(x, mask):
    """Average over the real tokens of each text; 0 where there is none."""
    y = np.zeros((x.shape[0], x.shape[2]))
    for b in range(x.shape[0]):
        tokens = [t for t in range(x.shape[1]) if mask[b, t]]
        for d in range(x.shape[2]):
            y[b, d] = math.fsum(x[b, t, d] for t in tokens) / max(len(tokens), 1)
    return y


def l2_normalize_loop(x, eps):
    """x (rows, D)."""
    return np.array([[e / max(math.hypot(*row), eps) for e in row] for row in x.tolist()])


# --- torch ----------------------------------------------------------------------------------------------


def torch_value_and_gradients(function: Callable, args: Sequence, dy) -> tuple[np.ndarray, list]:
    """Return ``function(*args)`` and the gradients of ``sum(dy * it)``, both by torch in float64.

    Arrays become tensors; the gradients are those of the floating-point arrays among ``args``, in order,
    with None for one that was not used.
    """
    torch = pytest.importorskip("torch")
    torch.set_num_threads(1)
    tensors = [torch.tensor(a) if isinstance(a, np.ndarray) else a for a in args]
    leaves = [t.requires_grad_() for t in tensors if isinstance(t, torch.Tensor) and t.is_floating_point()]
    y = function(*tensors)
    gradients = torch.autograd.grad(y, leaves, torch.tensor(np.asarray(dy)), allow_unused=True)
    return y.detach().numpy(), [None if g is None else g.numpy() for g in gradients]
