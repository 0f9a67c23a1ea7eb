"""What may stand behind a key in the file of keys."""

from pathlib import Path

import pytest

from pdserve.api_keys import ApiKeys, read_keys
from pdserve.errors import ConfigError
from pdserve.key_limits import KeyLimits
from pdserve.rpc.v1.types_pb2 import PRIORITY_HIGH, PRIORITY_LOW

SECRET = "a-very-secret-key"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "keys"


def test_limits_follow_the_key_with_a_name_or_without(path: Path) -> None:
    path.write_text(
        f"alice: {SECRET}  requests_per_minute=60 tokens_per_minute=1.5\tconcurrent=4\n"
        "another-key priority=low weight=0.5\n"
        "'quoted-key' concurrent=1\n"
        "unlimited-key   \n"
    )
    limits = {client.name: client.limits for client in read_keys(path).values()}
    assert limits == {
        "alice": KeyLimits(requests_per_minute=60, tokens_per_minute=1.5, concurrent=4),
        "line-2": KeyLimits(priority=PRIORITY_LOW, weight=0.5),
        "line-3": KeyLimits(concurrent=1),
        "line-4": KeyLimits(priority=PRIORITY_HIGH),
    }


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (
            "requests_per_minute=0",
            r"requests_per_minute is 0; it must be a number in \[1, 1e\+12\]",
        ),
        ("requests_per_minute=nan", "requests_per_minute is nan"),
        ("requests_per_minute=", "requests_per_minute is ;"),
        ("tokens_per_minute=-5", "tokens_per_minute is -5"),
        ("tokens_per_minute=1e9", "tokens_per_minute is 1e9"),
        ("concurrent=0", r"concurrent is 0; it must be a whole number in \[1, 1048576\]"),
        ("concurrent=2.5", "concurrent is 2.5"),
        ("concurrent=٣", "concurrent is ٣"),
        (f"concurrent={'9' * 5000}", "concurrent is 999"),
        ("weight=0", r"weight is 0; it must be a number in \[0.01, 1000\]"),
        ("weight=1001", "weight is 1001"),
        ("priority=urgent", r"priority is urgent; it must be one of low\|normal\|high"),
        ("concurrent=1 concurrent=2", "concurrent is there twice"),
        ("rpm=5", "what follows a key must be NAME=VALUE, of requests_per_minute, "),
        (SECRET, "what follows a key must be NAME=VALUE"),
        (f"{SECRET}==", "what follows a key must be NAME=VALUE"),
    ],
)
def test_what_is_wrong_with_limits_is_said_with_file_and_line(
    path: Path, words: str, complaint: str
) -> None:
    path.write_text(f"# keys\nalice: {SECRET} {words}\n")
    with pytest.raises(ConfigError, match=f"{path}, line 2: {complaint}") as raised:
        ApiKeys(path)
    assert raised.value.field == "api_keys"
    assert SECRET not in str(raised.value)


def test_a_name_with_a_short_key_is_no_key_with_a_limit(path: Path) -> None:
    path.write_text("production: short\n")
    with pytest.raises(ConfigError, match="line 1: must be a key of 8 to 512"):
        read_keys(path)
