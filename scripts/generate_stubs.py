"""Generates pdserve/rpc/v1 from proto/; with --check, fails when the committed stubs are stale."""

import argparse
import filecmp
import os
import sys
import sysconfig
import tempfile
from pathlib import Path

from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
PROTO = ROOT / "proto"
STUBS = ROOT / "pdserve" / "rpc" / "v1"
INIT = '"""Generated from proto/pdserve/v1 by `make proto`."""\n'


def generate(target: Path) -> None:
    """Writes the stubs into the directory `target`, importable as `pdserve.rpc.v1`."""
    with tempfile.TemporaryDirectory() as scratch:
        outputs = ("python", "grpc_python", "mypy", "mypy_grpc")
        sources = sorted(str(path) for path in PROTO.rglob("*.proto"))
        # protoc finds the mypy plugins on PATH.
        os.environ["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
        well_known = Path(protoc.__file__).parent / "_proto"
        command = ["protoc", f"-I{PROTO}", f"-I{well_known}"]
        command += [f"--{output}_out={scratch}" for output in outputs]
        if protoc.main(command + sources) != 0:
            raise SystemExit("protoc failed")
        target.mkdir(parents=True, exist_ok=True)
        (target / "__init__.py").write_text(INIT)
        for stub in sorted(Path(scratch, "pdserve", "v1").iterdir()):
            # The proto package is pdserve.v1; the Python package lives under pdserve.rpc.
            code = stub.read_text().replace("pdserve.v1 import", "pdserve.rpc.v1 import")
            (target / stub.name).write_text(code)


def stale_files(fresh: Path) -> list[str]:
    """Names of stubs that are missing, superfluous or different from those in `fresh`."""
    names = {path.name for path in fresh.iterdir()}
    committed = (
        {path.name for path in STUBS.iterdir() if path.is_file()} if STUBS.exists() else set()
    )
    _, differing, missing = filecmp.cmpfiles(fresh, STUBS, sorted(names), shallow=False)
    return sorted({*differing, *missing, *(committed - names)})


def main() -> int:
    """Generates or checks; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    if not parser.parse_args().check:
        generate(STUBS)
        return 0
    with tempfile.TemporaryDirectory() as scratch:
        generate(Path(scratch))
        stale = stale_files(Path(scratch))
    if stale:
        print(f"stale stubs (run `make proto`): {', '.join(stale)}", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    raise SystemExit(main())
