"""The optimisers once more, straight from the papers' formulas, element by element, with 40 digits."""

from mpmath import mp, mpf

DIGITS = 40


def exact(array):
    """The elements of an array of floats, as a flat list of numbers that lose nothing."""
    return [mpf(float(x)) for x in array.ravel()]


def adamw(start, grads, rates, *, beta1, beta2, epsilon, weight_decay, bias_correction=True):
    """Return where the elements of one parameter are after all steps (n,), their m and their v.

    start : array; grads : one array a step; rates : one learning rate a step
    """
    with mp.workdps(DIGITS):
        beta1, beta2, epsilon, weight_decay = (mpf(x) for x in (beta1, beta2, epsilon, weight_decay))
        theta, m, v = exact(start), [mpf(0)] * start.size, [mpf(0)] * start.size
        for t, (grad, rate) in enumerate(zip(grads, rates, strict=True), start=1):
            alpha = mpf(rate)
            for i, g in enumerate(exact(grad)):
                m[i] = beta1 * m[i] + (1 - beta1) * g
                v[i] = beta2 * v[i] + (1 - beta2) * g**2
                m_hat = m[i] / (1 - beta1**t) if bias_correction else m[i]
                v_hat = v[i] / (1 - beta2**t) if bias_correction else v[i]
                decayed = theta[i] - alpha * weight_decay * theta[i]
                theta[i] = decayed - alpha * m_hat / (mp.sqrt(v_hat) + epsilon)
        return [[float(x) for x in values] for values in (theta, m, v)]
