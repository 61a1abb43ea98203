"""Exercises in writing backward passes: ``npbert learn``.

Three kinds. The *ladder* (`npbert.learn.exercises`): a forward is given, the backward is to be written, one
named line at a time. *Hunts* (`npbert.learn.hunts`): a backward has a bug, and the report must tell which.
*Fools* (`npbert.learn.fools`): write a backward that is wrong, and that a weak check passes.

`exercise.py` and `fooling.py` say what an exercise is; `checking.py` checks a file, with `tracing.py` for its
lines, the gradient check for what went wrong; `runner.py` and `worker.py` do so in a process of its own;
`whole_bert.py` and `engine.py` join the learner's functions to a BERT and train it.
"""
