"""The failure contract of docs/failure-contract.md, cell by cell, under load.

Real services and real transfers over an engine that proves where its KV went (see
`tests.doubles.context_engine`), so that a cell takes seconds. With the real model the rows of the
contract are in test_failure_contract.py. `make chaos` sends 200 requests a cell.
"""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.cells import CELLS, Cell
from tests.chaos.cluster import SILENCE_S, ChaosCluster
from tests.chaos.table import write_table
from tests.chaos.trial import Trial, try_cell

pytestmark = [
    pytest.mark.model,
    pytest.mark.asyncio(loop_scope="session"),
    pytest.mark.timeout(600),
]

# 0: as many as it takes for one fault.
REQUESTS = int(os.environ.get("PDSERVE_CHAOS_REQUESTS", "0"))
REPORT = os.environ.get("PDSERVE_CHAOS_REPORT", "")


@pytest.fixture(scope="module")
def trials() -> Iterator[list[Trial]]:
    """The results, which become a page of the documentation where one was asked for."""
    results: list[Trial] = []
    yield results
    if REPORT:
        write_table(Path(REPORT), results, SILENCE_S)


@pytest.mark.parametrize("cell", CELLS, ids=str)
async def test_cell(cell: Cell, cluster: ChaosCluster, trials: list[Trial]) -> None:
    try:
        trials.append(await try_cell(cluster, cell, REQUESTS))
    except BaseException:
        print(cluster.logs())
        raise
