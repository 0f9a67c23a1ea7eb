"""`pdserve prefill` and `pdserve decode`: one instance of a phase."""

import argparse
import os

from pdserve.cli.service import run_service
from pdserve.config import InstanceConfig
from pdserve.options import add_options, load


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the options of an instance."""
    add_options(parser, InstanceConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    return run_service(arguments.command, load(InstanceConfig, arguments, os.environ))
