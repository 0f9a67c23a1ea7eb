import os
import sys
from pathlib import Path

STUB = Path(__file__).with_name("stub_service.py")


def stub_command(*words: str) -> tuple[str, ...]:
    """Takes the place of `pdserve.cli.tethered.command`."""
    return (sys.executable, str(STUB), str(os.getpid()), *words)
