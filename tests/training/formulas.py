"""The optimisers once more, straight from the papers' formulas, element by element, with 40 digits.

All have ``start``, the parameter's array; ``grads``, one array a step; ``rates``, one learning rate a step.
They return where the elements are after the last step, and what was kept for them, as lists of floats.
"""

from mpmath import mp, mpf

DIGITS = 40


def adamw(start, grads, rates, *, beta1, beta2, epsilon, weight_decay, bias_correction):
    """θ, m and v."""
    with mp.workdps(DIGITS):
        theta, weight_decay = _exact(start), mpf(weight_decay)
        moments = _Moments(start.size, beta1, beta2, epsilon, bias_correction)
        for grad, rate in zip(grads, rates, strict=True):
            directions = moments.take_in(grad)
            for i, direction in enumerate(directions):
                theta[i] = theta[i] - mpf(rate) * weight_decay * theta[i] - mpf(rate) * direction
        return _floats(theta), _floats(moments.m), _floats(moments.v)


def lamb(start, grads, rates, *, beta1, beta2, epsilon, weight_decay, bias_correction, adapts):
    """θ, m and v."""
    with mp.workdps(DIGITS):
        theta, weight_decay = _exact(start), mpf(weight_decay)
        moments = _Moments(start.size, beta1, beta2, epsilon, bias_correction)
        for grad, rate in zip(grads, rates, strict=True):
            u = [r + weight_decay * t for r, t in zip(moments.take_in(grad), theta, strict=True)]
            theta_norm, u_norm = _norm(theta), _norm(u)
            ratio = theta_norm / u_norm if adapts and theta_norm and u_norm else mpf(1)
            theta = [t - mpf(rate) * ratio * e for t, e in zip(theta, u, strict=True)]
        return _floats(theta), _floats(moments.m), _floats(moments.v)


def sgd(start, grads, rates, *, momentum, nesterov, weight_decay):
    """θ and b."""
    with mp.workdps(DIGITS):
        theta, momentum, weight_decay = _exact(start), mpf(momentum), mpf(weight_decay)
        b = [mpf(0)] * start.size
        for grad, rate in zip(grads, rates, strict=True):
            d = [g + weight_decay * t for g, t in zip(_exact(grad), theta, strict=True)]
            b = [momentum * e + f for e, f in zip(b, d, strict=True)]
            moves = [f + momentum * e for e, f in zip(b, d, strict=True)] if nesterov else b
            theta = [t - mpf(rate) * move for t, move in zip(theta, moves, strict=True)]
        return _floats(theta), _floats(b)


class _Moments:
    """Adam's m and v."""

    def __init__(self, size, beta1, beta2, epsilon, bias_correction):
        self.beta1, self.beta2, self.epsilon = mpf(beta1), mpf(beta2), mpf(epsilon)
        self.bias_correction = bias_correction
        self.m, self.v, self.t = [mpf(0)] * size, [mpf(0)] * size, 0

    def take_in(self, grad):
        """Return m̂ / (√v̂ + ε)."""
        self.t += 1
        g = _exact(grad)
        self.m = [self.beta1 * m + (1 - self.beta1) * e for m, e in zip(self.m, g, strict=True)]
        self.v = [self.beta2 * v + (1 - self.beta2) * e**2 for v, e in zip(self.v, g, strict=True)]
        m_hat, v_hat = self.m, self.v
        if self.bias_correction:
            m_hat = [m / (1 - self.beta1**self.t) for m in m_hat]
            v_hat = [v / (1 - self.beta2**self.t) for v in v_hat]
        return [m / (mp.sqrt(v) + self.epsilon) for m, v in zip(m_hat, v_hat, strict=True)]


def _exact(array):
    """The elements of an array of floats; nothing is lost."""
    return [mpf(float(x)) for x in array.ravel()]


def _floats(numbers):
    return [float(x) for x in numbers]


def _norm(numbers):
    return mp.sqrt(mp.fsum(x**2 for x in numbers))
