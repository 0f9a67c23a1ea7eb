"""`pdserve explain`: why one request went as it did."""

import argparse
import json
from dataclasses import asdict

from pdserve.cli.client import add_connection_flags, router_client
from pdserve.cli.explanation_view import explanation_view
from pdserve.cli.terminal import output_console


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Adds the request, and where to ask for it."""
    parser.add_argument("request_id", metavar="REQUEST_ID", help="as the answer or the log has it")
    parser.add_argument("--json", action="store_true", help="print it for programs")
    add_connection_flags(parser)


def run(arguments: argparse.Namespace) -> int:
    """Prints what the router knows of the request."""
    with router_client(arguments) as client:
        explanation = client.explain(arguments.request_id)
    if arguments.json:
        print(json.dumps(asdict(explanation), indent=2))
    else:
        output_console().print(explanation_view(explanation))
    return 0
