"""Compiles the simulator's functions to machine code, and keeps the result on disk."""

import functools
import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.extending import register_jitable

from pdserve.latency import cost

Function = TypeVar("Function", bound=Callable[..., Any])

# Compiled functions may call these, which everybody else calls as they are.
for formula in (
    *(cost.dispatch_s, cost.prefill_stage_s, cost.prefill_s),
    *(cost.decode_line_s, cost.decode_s, cost.mixed_s),
):
    register_jitable(formula)


def compiled(function: Function) -> Function:
    """`function` as machine code that other compiled functions call.

    It may use numbers, arrays, records, tuples of them, and other compiled functions.
    """
    # Without the wrappers that would let others call it, it compiles a third faster.
    return _jit(function, no_cpython_wrapper=True, no_cfunc_wrapper=True)


def entry(function: Function) -> Function:
    """`function` as machine code that Python calls; it runs without the GIL."""
    return _jit(function, nogil=True)


def _jit(function: Function, **options: bool) -> Function:
    kept = cache_folder()
    before = numba.config.CACHE_DIR
    numba.config.CACHE_DIR = str(kept or "")
    try:
        jit = numba.njit(cache=kept is not None, error_model="numpy", **options)
        return cast("Function", jit(function))
    finally:
        numba.config.CACHE_DIR = before


@functools.cache
def cache_folder() -> Path | None:
    """Where machine code is kept; None where nothing can be written.

    The folder is named after the sources: numba itself does not see it when a function that
    another file's function calls has changed.
    """
    digest = hashlib.sha256()
    for path in sorted([*Path(__file__).parent.glob("*.py"), Path(cost.__file__)]):
        digest.update(path.read_bytes())
    base = os.environ.get("PDSERVE_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = Path(base).expanduser() / "pdserve" / f"simulator-{digest.hexdigest()[:16]}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
