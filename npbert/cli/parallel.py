"""Commands that ``mpirun`` may start several times, to work on one thing together."""

import argparse
import os
import traceback
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING

from npbert.cli.arguments import Run
from npbert.cli.errors import FAILED, exit_code_of, flush_or_abandon_output
from npbert.errors import BackendError
from npbert.training.launcher import find_launch, rank_0_reports_it

if TYPE_CHECKING:
    from npbert.training.data_parallel import MPICommunicator


def on_all_ranks(run: Run) -> Run:
    """Let a command work on all processes that a launcher has started.

    Parameters
    ----------
    run : callable
        Takes the parsed arguments, among them ``ranks``, the `npbert.training.communicator.Communicator` to
        use, and returns the exit code. What ranks other than 0 print is not shown.

    Returns
    -------
    callable
        Of the parsed arguments alone. If all ranks fail, rank 0 reports it; if one fails, it does, and ends
        the others.
    """

    def run_on_all_ranks(arguments: argparse.Namespace) -> int:
        launch = find_launch()
        if launch is None:
            return run(arguments)

        from npbert.training.data_parallel import MPICommunicator, connect, takes_device_memory

        try:
            with _silent_unless(launch.rank == 0):  # mpi4py may have a warning
                world = connect(launch)
        except BackendError:
            if rank_0_reports_it():
                return FAILED
            raise
        ranks = arguments.ranks = MPICommunicator(world, takes_device_memory())
        try:
            with _share_of_the_machine(ranks, arguments), _silent_unless(ranks.rank == 0):
                code = run(arguments)
            ranks.wait_for_all()  # or the launcher would end rank 0 before it has said what it has to say
        except BaseException as error:
            code = _report(error, arguments, ranks)
        return code

    return run_on_all_ranks


def _report(error: BaseException, arguments: argparse.Namespace, ranks: "MPICommunicator") -> int:
    """Say what went wrong, once, and see to it that all ranks end; return the exit code."""
    program = f"npbert {arguments.command}"
    have_all_failed = ranks.have_all_failed()
    if not have_all_failed:
        program = f"{program}: rank {ranks.rank}"
    with _silent_unless(ranks.rank == 0 or not have_all_failed):
        flush_or_abandon_output()
        if arguments.debug:
            traceback.print_exception(error)
        code = exit_code_of(error, program)
    if not have_all_failed:
        ranks.abort(code)
    ranks.have_all_failed()  # once more: none leaves before rank 0 has spoken
    return code


@contextmanager
def _share_of_the_machine(ranks: "MPICommunicator", arguments: argparse.Namespace) -> Iterator[None]:
    """Use, inside a ``with`` block, this rank's share of the processors, and a device of its own."""
    from threadpoolctl import threadpool_limits

    from npbert.cpu.workers import workers
    from npbert.training.data_parallel import share_of_machine

    share = share_of_machine(ranks.world)
    if arguments.backend == "cuda":
        use_device(share.rank)
    with workers(share.workers), threadpool_limits(share.workers, "blas"):
        yield


def use_device(rank: int) -> None:
    """Compute on the device of this number, or, where there are more ranks than devices, share them."""
    from npbert.cuda.device import require_device

    cupy = require_device()
    cupy.cuda.Device(rank % cupy.cuda.runtime.getDeviceCount()).use()


@contextmanager
def _silent_unless(condition: bool) -> Iterator[None]:
    """Show, inside a ``with`` block, nothing that is printed, unless the condition holds."""
    with ExitStack() as stack:
        if not condition:
            nowhere = stack.enter_context(Path(os.devnull).open("w", encoding="utf-8"))
            stack.enter_context(redirect_stdout(nowhere))
            stack.enter_context(redirect_stderr(nowhere))
        yield
