"""Kernels written for a test: several in one text, compiled together."""

from collections.abc import Sequence
from typing import Any

from npbert.cuda import emulator


class Text:
    """A source of kernels; ``// [mark]`` at the end of a line lets a test say where something must be found.

    Parameters
    ----------
    file : str
        What messages call it.
    source : str
        CUDA C++.
    """

    def __init__(self, file: str, source: str, **defines: object) -> None:
        self.file = file
        self.source = source
        self.program = emulator.Program(source, tuple((k, str(v)) for k, v in defines.items()), file)

    def launch(
        self,
        name: str,
        args: Sequence[Any],
        grid: Sequence[int] = (1,),
        block: Sequence[int] = (32,),
        shared=0,
    ) -> None:
        """Run a kernel."""
        emulator.EmulatedKernel(self.program, name)(grid, block, args, shared)

    def place(self, mark: str) -> str:
        """Return where a mark is, as messages say it."""
        before, found, _ = self.source.partition(f"// [{mark}]\n")
        assert found, mark
        return f"{self.file}:{before.count(chr(10)) + 1}"
