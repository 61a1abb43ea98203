"""What sanitizers print, in a sentence that names the places in the kernel."""

import re
from typing import NamedTuple

from npbert.cuda.emulator.errors import EmulatorError, KernelStopped, OutOfBounds, RaceError

FRAMES = 12  # of a stack, among which the kernel's own is looked for

_ACCESS = re.compile(
    r"\s*(?:Previous )?(?P<what>(?:atomic )?(?:read|write)) of size (?P<bytes>\d+)"
    r".* (?:thread (?P<thread>T\d+)|main thread)",
    re.IGNORECASE,
)
_PLACE = re.compile(r"([^\s/]+\.cuh?:\d+)")
_THREAD = re.compile(r"\s*Thread (T\d+) '(thread \(.*?\) of block \(.*?\))'", re.IGNORECASE)
_UNDEFINED = re.compile(r"^(\S+\.cuh?:\d+)(?::\d+)?: runtime error: (.*)$", re.MULTILINE)


class Access(NamedTuple):
    """One access that a report is about."""

    what: str  # "read", "write", "atomic write"
    nbytes: int
    place: str  # "layernorm.cu:87"
    thread: str | None  # "thread (3, 0, 0) of block (1, 0, 0)"

    def __str__(self) -> str:
        by = f" by {self.thread}" if self.thread else ""
        return f"{self.what} of {self.nbytes} bytes at {self.place}{by}"


def error_of(kernel: str, code: int, report: str) -> EmulatorError:
    """Return the error that a sanitizer's report is about.

    Parameters
    ----------
    kernel : str
        Its name, for the message.
    code : int
        The process's exit code.
    report : str
        What it printed.

    Returns
    -------
    error : EmulatorError
        Its message is one sentence, then the whole report.
    """
    undefined = _UNDEFINED.search(report)
    if undefined is not None:
        place, what = undefined[1].rsplit("/", 1)[-1], undefined[2]
        kind = OutOfBounds if "misaligned" in what or "out of bounds" in what else KernelStopped
        return kind(f"{kernel}: {what} at {place}\n{report}")
    if "ThreadSanitizer: data race" in report:
        return RaceError(f"{kernel}: data race: {_accesses(report)}\n{report}")
    if "AddressSanitizer: FPE" in report:
        return KernelStopped(f"{kernel}: integer division by zero at {_first_place(report)}\n{report}")
    if "AddressSanitizer: stack-overflow" in report:
        return KernelStopped(f"{kernel}: stack overflow at {_first_place(report)}\n{report}")
    if "ERROR: AddressSanitizer" in report:
        return OutOfBounds(f"{kernel}: out of bounds: {_accesses(report)}\n{report}")
    return EmulatorError(f"{kernel}: the emulated launch ended with code {code}: {report.strip()}")


def _accesses(report: str) -> str:
    """Return the accesses that a report is about, one or two."""
    found = "; ".join(str(access) for access in accesses(report)[:2])
    hint = "; install llvm-symbolizer for lines" if "external symbolizer" in report else ""
    return (found or f"an access at {_first_place(report)}") + hint


def accesses(report: str) -> list[Access]:
    """Return the accesses that a report tells of, in its order."""
    lines = report.splitlines()
    threads = {match[1]: match[2] for match in map(_THREAD.match, lines) if match}
    found = []
    for number, line in enumerate(lines):
        access = _ACCESS.match(line)
        if access is not None:
            place = _first_place("\n".join(lines[number + 1 : number + 1 + FRAMES]))
            thread = threads.get(access["thread"] or "")
            found.append(Access(access["what"].lower(), int(access["bytes"]), place, thread))
    return found


def _first_place(text: str) -> str:
    match = _PLACE.search(text)
    return match[1] if match else "an unknown place"
