"""From files to batches: corpora to pre-train on, and labelled texts to fine-tune on.

Nothing here knows a model: what comes out are NumPy arrays, keyed like the arguments of
`npbert.Bert.loss_and_grads`.
"""
