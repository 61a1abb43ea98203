"""Every tolerance of the tests, and why it is what it is.

A float64 comparison that is allowed an error of ``ROUND_OFF * U64`` times the sum of the |terms| that a
result is made of fails at the first wrong formula, yet never on account of cancellation: where terms
cancel, the sum of their absolute values stays.
"""

# Unit round-off: the largest relative error of one rounding to nearest.
U16 = 2.0**-11
U32 = 2.0**-24
U64 = 2.0**-53

# Backward against the complex step, float64, relative to the norm of a row of the gradient. Correct ops
# show 1e-15 to 1e-13; a wrong term shows 1e-3 or more. What cancels is covered by ROUND_OFF instead.
COMPLEX_STEP = 1e-11

# Error of a sum, in units of u times the sum of its |terms|. A term passes through at most a dozen
# roundings of random sign; summing K terms adds about log2(K) more (NumPy sums pairwise, BLAS in blocks).
ROUND_OFF = 16

# A matrix product in float32, in units of u (|A| |B|): measured at most 4.9 for K from 64 to 3072.
MATMUL_FLOAT32 = 8 * U32

# layernorm's dx in float32, relative to the norm of the row. An element may cancel to nearly 0, so
# an element-wise bound (or ULPs) would say nothing.
LAYERNORM_DX_FLOAT32 = 8 * U32

# A fused kernel against the op that it stands for, both in one precision and compared with float64: its
# largest error may be FUSED_RATIO times as large, plus FUSED_FLOOR u times the largest element. An unfused
# op, which rounds after each step, errs by more than one that does not: the ratio is not there to be used
# up. Where it is right by chance (few elements, terms that cancel), the floor is taken of the |terms|.
FUSED_RATIO = 2
FUSED_FLOOR = 4

# Rows that sum to 0 in exact arithmetic, in units of u times the sum of the row's |terms|.
ZERO_ROW_SUM = ROUND_OFF

# The Taylor remainder f(x + e v) - f(x) - e J v is of order e^2: dividing e by 8 divides it by 64. Half of
# that is asked for, since the next order (e^3) bends the line a little; a wrong J gives only 8.
TAYLOR_RATIO = 32

# Gradient of a whole model against torch's autograd in float64: largest difference over the tensor's largest
# element. Two correct implementations round differently at every step, and layer norms of nearly constant
# rows amplify that; what is measured is 1e-15 to 1e-12.
GRADIENT_TORCH = 1e-10

# A hidden state, attention or score against transformers in float64: same measure, same reason.
HIDDEN_STATE_TORCH = 1e-11

# Embeddings of real texts in float32 against sentence-transformers, elements of vectors of length 1. Both
# sides round in float32 at every step of six layers, in different orders.
ENCODE_FLOAT32 = 2e-6

# The same as 1 - cosine: far above round-off (1e-12), far below any two texts that differ.
ENCODE_COSINE = 1e-6

# Hidden states (elements of size 1 to 10) and attentions of the real weights in float64.
HIDDEN_STATE_REAL_WEIGHTS = 1e-11

# A number that was rounded to six decimals is this far off, float32 adding a little of its own.
SIX_DECIMALS = 0.5e-6 + 2e-7

# The same numbers added up in another order, through a model of a few layers: a few dozen roundings, and what
# layer norms make of them.
REORDERED = 1e-13

# A small model in float32 against float64, relative to the largest element of a tensor: 2^-24 times the few
# hundred roundings on the longest way through it.
FLOAT32_MODEL = 3e-5

# The losses of 50 training steps in float64 and the parameters at the end, of two correct implementations:
# absolute; losses are of size 1 to 10, parameters of 0.01 to 1. What two roundings make of a gradient, Adam
# divides by the gradient's size, and the next step starts from there. Measured is 2e-15 and 6e-15.
LOSS_OF_A_RUN = 1e-12
PARAMETER_OF_A_RUN = 1e-11
