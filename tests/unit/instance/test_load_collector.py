"""A scrape happens in a thread of its own; what it reads belongs to the event loop."""

import asyncio
import threading

from prometheus_client import CollectorRegistry

from pdserve.instance.metrics import LoadCollector
from pdserve.metrics import read_in_loop
from pdserve.rpc.v1 import types_pb2


async def test_a_scrape_reads_the_report_in_the_event_loop():
    readers = []

    def report():
        readers.append(threading.get_ident())
        return types_pb2.LoadReport(steps=7)

    registry = CollectorRegistry()
    registry.register(LoadCollector(read_in_loop(report)))
    steps = await asyncio.to_thread(registry.get_sample_value, "pdserve_steps_total")
    assert steps == 7
    assert set(readers) == {threading.get_ident()}
