"""Check a hand-written backward pass, anyone's, against independent oracles.

    import npbert.gradcheck
    report = npbert.gradcheck.check(forward, backward, args)  # or check(obj, args=args)
    print(report)
    report.raise_if_failed()

`check` compares every gradient with the derivative of the forward, by the complex step or, where the forward
is not analytic, by extrapolated real differences that know how far to trust themselves. It also tests what
any correct pair has in common: the adjoint identity, Taylor's remainder, linearity in the cotangent, exact
shapes and dtypes, inputs left alone, the same result twice. ``mode="jacobian"`` compares every derivative of
every output; ``mode="directional"``, a model of any size. `accuracy` holds float32 and float16 against a
budget.

A pair may be two functions or an object with two methods (see `npbert.gradcheck.conventions`):

>>> import numpy as np
>>> class Scale:
...     def __init__(self, factor):
...         self.factor = np.array(factor)
...     def forward(self, x):
...         self.x = x
...         return self.factor * x
...     def backward(self, dy):
...         self.dfactor = (dy * self.x).mean()
...         return dy * self.factor
>>> report = check(Scale(3.0), args=(np.array([1.0, -2.0, 0.5]),), parameters=["factor"])
>>> [(row.name, row.status) for row in report.tensors]  # a mean where there must be a sum
[('factor', 'failed'), ('x', 'passed')]

Of a wrong gradient the report says in a sentence which mistake it looks like (`npbert.gradcheck.diagnosis`).
Who knows the mistakes that people make there passes them as ``mistakes=[Mistake(...)]`` to have them named.

``npbert.gradcheck.suite`` is the table of checks over this package's own ops, layers and heads.
``npbert.gradcheck.strategies`` draws inputs on which mistakes show, for tests with hypothesis;
``npbert.gradcheck.html`` makes a page of reports; pytest has the fixture ``gradcheck`` (``pytest_npbert``).
"""

from npbert.gradcheck.accuracy import accuracy
from npbert.gradcheck.check import check
from npbert.gradcheck.diagnosis import Diagnosis, Mistake
from npbert.gradcheck.oracles import Estimate, complex_step, ridders
from npbert.gradcheck.report import CheckResult, GradientCheckError, Report, TensorResult

__all__ = [
    "CheckResult",
    "Diagnosis",
    "Estimate",
    "GradientCheckError",
    "Mistake",
    "Report",
    "TensorResult",
    "accuracy",
    "check",
    "complex_step",
    "ridders",
]
