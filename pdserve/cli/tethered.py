"""Runs `pdserve …` so that it dies with the process that started it.

    python -m pdserve.cli.tethered PARENT_PID prefill --port=…

A supervisor that is killed cannot stop its children, so the children ask the kernel to (prctl(2),
PR_SET_PDEATHSIG). They ask themselves, after the start: code between fork and exec is not safe in
a parent that has threads, and one that speaks gRPC has.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1


def command(*words: str) -> tuple[str, ...]:
    """The command line of `pdserve WORDS` as a child of this process that dies with it."""
    return (sys.executable, "-m", "pdserve.cli.tethered", str(os.getpid()), *words)


def die_with(parent_pid: int) -> None:
    """Has this process killed when its parent, `parent_pid`, ends. Linux only; else nothing."""
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL) != 0:
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_PDEATHSIG) failed")
    if os.getppid() != parent_pid:  # it ended before the kernel was asked
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    die_with(int(sys.argv.pop(1)))
    from pdserve.cli.main import main

    raise SystemExit(main())
