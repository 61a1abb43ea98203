"""The benchmarks behind ``npbert bench``: npbert against its peers and against the matrix products alone.

All follow one protocol, `contest.py`: every contender's result is checked before anything is timed, then they
take turns, round by round, and are compared round by round. `floor.py` has the lower bound: the very matrix
products of the work and nothing else. `peers/` has one file for each library compared with, imported only
where it is used.
"""
