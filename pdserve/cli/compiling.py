"""Tells the user why the first simulation on a machine takes a while to begin."""

from rich.console import Console

from pdserve.errors import ConfigError


def prepare_simulator() -> None:
    """Loads the simulator, or compiles it with a word on stderr; `ConfigError` without numba."""
    try:
        from pdserve.planner.simulator.warm_up import is_warm, warm_up
    except ImportError as error:
        raise ConfigError(
            f"the planner needs {error.name}: pip install 'pdserve[planner]'", field="planner"
        ) from error
    if is_warm():
        warm_up()
        return
    with Console(stderr=True).status("compiling the simulator, once on this machine (about 30 s)"):
        warm_up()
