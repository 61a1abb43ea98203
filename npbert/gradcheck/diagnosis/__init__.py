"""Which mistake a wrong gradient looks like, in one sentence.

A gradient and its reference say more than how far apart they are: a forgotten mean term leaves an error
that is the same number throughout a row, ``+=`` with repeated ids is wrong in the rows of repeated ids only,
a mean in the place of a sum is off by a constant that is one over a length. `order.diagnose` tries such
patterns in a fixed order:

- `known`: the gradients of mistakes that the caller knows. They are exact, so they come first.
- `places`: right numbers in wrong places: swapped, transposed, reordered, of another shape.
- `factors`: a constant, a vector, or an array that is multiplied with once too often, or not at all.
- `terms`: a missing term, a mean term, a variance term, a softmax correction.
- `support`: only some entries are wrong: repeated ids, masked places, labels, a range of values, the tail.
- `precision`: errors as small as those of float32 or float16.

A pattern counts only if it explains the error to round-off, row by row, and has fewer free numbers than the
error has entries. Where none does, the answer is that none does.
"""

from npbert.gradcheck.diagnosis.finding import Diagnosis, Mistake

__all__ = ["Diagnosis", "Mistake"]
