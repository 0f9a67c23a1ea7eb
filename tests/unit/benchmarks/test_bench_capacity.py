"""The measurement of the load generator itself, cut short."""

import pytest

from benchmarks import bench_capacity


async def test_load_grows_until_the_generator_is_late(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_capacity, "DURATION_S", 0.1)
    shape = bench_capacity.Shape("few", 2, 0, 9, 50)
    late = iter([1000.0, -1.0])
    async with bench_capacity._null_server(shape.interval_ms) as url:
        cost_us, per_s = await bench_capacity._burst(url, shape)
        rows = []
        async for row in bench_capacity._growing(url, shape):
            rows.append(row)
            monkeypatch.setattr(bench_capacity, "LATE_S", next(late))
    assert cost_us * per_s == pytest.approx(1e6)
    assert len(rows) == 2
