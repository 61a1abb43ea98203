"""A report as one HTML page that opens from disk: no network, no other file, readable without JavaScript.

from npbert.gradcheck.html import page
Path("gradients.html").write_text(page([report]), encoding="utf-8")
"""

from npbert.gradcheck.html.page import page

__all__ = ["page"]
