"""What the forked processes run: importing this module is what they need not wait for."""

from services.router.main import run as run_router
from tests.doubles.shaped_instance import run as run_instance

__all__ = ["run_instance", "run_router"]
