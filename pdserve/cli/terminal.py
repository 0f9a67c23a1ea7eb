"""Where the commands write what they were asked for."""

import sys

from rich.console import Console

_WIDE = 200


def output_console() -> Console:
    """The standard output. What is piped is not cut or broken at a width that nobody sees."""
    return Console(width=None if sys.stdout.isatty() else _WIDE)


def write_text(text: str) -> None:
    """Shows text at once."""
    sys.stdout.write(text)
    sys.stdout.flush()
