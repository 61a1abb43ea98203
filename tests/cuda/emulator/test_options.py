"""How a launch is told in which order to run, and what to look for."""

import contextvars
import threading

import pytest

from npbert.cuda.emulator import Options, current_options, options


def test_the_innermost_block_counts():
    assert current_options() == Options("ascending", 0, False, None)
    with options(schedule="random", seed=2**32 - 1, perturb=True):
        assert current_options() == Options("random", 2**32 - 1, True, None)
        with options(sanitizer="thread"):
            assert current_options() == Options("ascending", 0, False, "thread")
        assert current_options().schedule == "random"
        with pytest.raises(KeyError), options(schedule="descending"):
            raise KeyError
        assert current_options().schedule == "random"
    assert current_options() == Options()


def test_other_threads_have_options_of_their_own():
    seen = []
    with options(schedule="random"):
        for run in (lambda f: f(), contextvars.copy_context().run):
            thread = threading.Thread(target=run, args=(lambda: seen.append(current_options().schedule),))
            thread.start()
            thread.join()
    assert seen == ["ascending", "random"]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"schedule": "up"}, "schedule is 'up'; it must be one of ascending, descending, random"),
        ({"sanitizer": "memory"}, 'sanitizer is \'memory\'; it must be None, "address" or "thread"'),
        ({"seed": -1}, "seed is -1; it must be an integer, at least 0 and less than 2\\^32"),
        ({"seed": 2**32}, "seed is 4294967296; it must be"),
        ({"seed": 1.5}, "seed is 1.5; it must be an integer"),
        ({"perturb": 2}, "perturb is 2; it must be True or False"),
    ],
)
def test_values_that_are_none(wrong, message):
    with pytest.raises(ValueError, match=message), options(**wrong):
        pass
    assert current_options() == Options()
