"""Settings for all tests."""

import os

from hypothesis import settings

# No deadline: a busy machine is not a failing test. In CI every run draws the same examples.
settings.register_profile("default", deadline=None, max_examples=25, print_blob=True)
settings.register_profile("ci", parent=settings.get_profile("default"), derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "default")
