"""`pdserve router`: the process that clients call."""

import argparse
import os

from pdserve.cli.service import run_service
from pdserve.config import RouterConfig
from pdserve.options import add_options, load


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the options of the router."""
    add_options(parser, RouterConfig)


def run(arguments: argparse.Namespace) -> int:
    """Serves until SIGTERM or SIGINT."""
    return run_service(arguments.command, load(RouterConfig, arguments, os.environ))
