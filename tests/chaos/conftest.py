"""One cluster without a model for all tests that leave it whole."""

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.chaos.cluster import ChaosCluster, chaos_cluster


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def cluster(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[ChaosCluster]:
    async with chaos_cluster(tmp_path_factory.mktemp("chaos")) as started:
        yield started
