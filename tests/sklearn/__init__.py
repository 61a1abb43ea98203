"""The tests of `npbert.sklearn`: skipped, file by file, where scikit-learn is not installed."""

import pytest

pytest.importorskip("sklearn")
