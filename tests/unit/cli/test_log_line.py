import pytest

from pdserve.cli.log_line import event_of, is_important


@pytest.mark.parametrize(
    ("line", "important", "event"),
    [
        ('{"level": "info", "event": "loading model", "percent": 25}', False, "loading model 25%"),
        ('{"level": "warning", "event": "no link"}', True, "no link"),
        ('{"event": "no level"}', True, "no level"),
        ("Traceback (most recent call last):", True, "Traceback (most recent call last):"),
        ("[1, 2]", True, "[1, 2]"),
    ],
)
def test_what_a_line_tells(line: str, important: bool, event: str) -> None:
    assert is_important(line) is important
    assert event_of(line) == event
