"""`python -m pdserve` is the command `pdserve`."""

from pdserve.cli.main import main

raise SystemExit(main())
