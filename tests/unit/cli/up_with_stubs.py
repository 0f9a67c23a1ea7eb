"""Runs `pdserve ARGUMENTS` with stub services."""

import sys

from stub_command import stub_command

from pdserve.cli import local_cluster
from pdserve.cli.main import main

local_cluster.command = stub_command
raise SystemExit(main(sys.argv[1:]))
