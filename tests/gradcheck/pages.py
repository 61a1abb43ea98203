"""Reports worth a page, and a reader of HTML strict enough to notice what a browser would forgive."""

from html.parser import HTMLParser

import numpy as np

from npbert.gradcheck import Report, check
from tests.gradcheck.pairs import linear, linear_backward, random_arguments, softmax, softmax_backward

HOSTILE = (
    "</code><script>document.title = 'hacked'</script><img src=x onerror=\"document.title='hacked'\">&'\""
)
VOID = {"meta", "input", "br", "img", "hr", "link"}


def wrong_backward(dy, cache):
    """Return the gradients of `linear`, one entry of dweight too large."""
    dx, dweight, dbias = linear_backward(dy, cache)
    dweight[3, 2] += 1
    return dx, dweight, dbias


def passed() -> Report:
    return check(softmax, softmax_backward, random_arguments(0)["softmax"])


def failed(**options) -> Report:
    return check(linear, wrong_backward, random_arguments(0)["linear"], **options)


def inconclusive() -> Report:
    return check(lambda x: (0 * x, None), lambda dy, cache: 0 * dy, (np.ones(3),))


def hostile() -> Report:
    return check(
        linear, wrong_backward, random_arguments(0)["linear"], names=[HOSTILE, HOSTILE + "2", "bias"]
    )


class Reader(HTMLParser):
    """Collects elements and attributes; fails where tags do not nest.

    Attributes
    ----------
    elements : list of (str, dict)
        Name and attributes of every element, in order.
    texts : list of (str, str)
        The element a text is in, and the text.
    """

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict]] = []
        self.texts: list[tuple[str, str]] = []
        self._open: list[str] = []
        self.feed(page)
        self.close()
        assert not self._open, f"never closed: {self._open}"

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self._open and self._open[-1] == tag, f"</{tag}> closes {self._open}"
        self._open.pop()

    def handle_data(self, data):
        self.texts.append((self._open[-1] if self._open else "", data))

    def all(self, tag, **attributes) -> list[dict]:
        """Return the attributes of the elements of a name that have certain attributes."""
        return [
            found
            for name, found in self.elements
            if name == tag and all(found.get(key.rstrip("_")) == value for key, value in attributes.items())
        ]

    def text(self) -> str:
        """Return all text but that of style and script."""
        return "".join(data for tag, data in self.texts if tag not in ("style", "script"))
