"""The matrix has no gap that nobody knows of."""

from tests.chaos.cells import ALL, CELLS, LEFT_OUT, Fault, Moment, Victim


def test_every_combination_is_a_cell_or_left_out_for_a_reason() -> None:
    assert len(CELLS) + len(LEFT_OUT) == len(ALL) == len(Victim) * len(Fault) * len(Moment)
    assert not set(CELLS) & set(LEFT_OUT)
    assert all(LEFT_OUT.values())


def test_every_victim_fault_and_moment_is_in_a_cell() -> None:
    assert {cell.victim for cell in CELLS} == set(Victim)
    assert {cell.fault for cell in CELLS} == set(Fault)
    assert {cell.moment for cell in CELLS} == set(Moment)
