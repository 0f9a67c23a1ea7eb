"""A shut gate keeps threads from a transfer's blocks."""

import asyncio
import threading

from pdserve.kv.gate import Gate


async def test_nobody_passes_a_shut_gate():
    gate = Gate()
    with gate.passage() as admitted:
        assert admitted
    gate.shut()
    with gate.passage() as admitted:
        assert not admitted
    await gate.settled()


async def test_it_settles_when_those_inside_have_left():
    gate = Gate()
    inside, leave = threading.Event(), threading.Event()

    def copy():
        with gate.passage():
            inside.set()
            leave.wait(10)

    thread = threading.Thread(target=copy)
    thread.start()
    inside.wait(10)
    gate.shut()
    settled = asyncio.create_task(gate.settled())
    await asyncio.sleep(0)
    assert not settled.done()
    leave.set()
    await settled
    thread.join()


async def test_an_error_inside_does_not_keep_it_from_settling():
    gate = Gate()
    try:
        with gate.passage():
            raise ValueError
    except ValueError:
        pass
    gate.shut()
    await gate.settled()
