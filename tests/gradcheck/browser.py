"""A headless Chromium that opens a page from disk: what it made of it, and what it complained about."""

import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
# No network, no first-run pages, no other user's settings.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
)
SECONDS = 120  # mostly a second or two, but not on a machine that is busy with other things


class Opened(NamedTuple):
    """The page as the browser had it in the end, and the messages of its console."""

    dom: str
    console: list[str]


def find_browser() -> str:
    """Return the path of a Chromium; skip the test where there is none."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("no Chromium; try: apt-get install chromium")
    return found


def open_page(path: Path, *flags: str, fragment: str = "") -> Opened:
    """Open a page and return what became of it once its scripts had run."""
    done = _run("--dump-dom", *flags, f"{path.resolve().as_uri()}{fragment}")
    console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
    return Opened(done.stdout, console)


def screenshot(path: Path, image: Path, *flags: str) -> bytes:
    """Return a picture of a page, as PNG."""
    _run(f"--screenshot={image}", *flags, path.resolve().as_uri())
    return image.read_bytes()


def _run(*arguments: str) -> subprocess.CompletedProcess:
    browser = find_browser()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        command = [browser, *FLAGS, f"--user-data-dir={profile}", *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=True)
