"""The page on the Python client names what there is."""

import inspect
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pdserve import client

PAGE = (Path(__file__).parents[3] / "docs" / "client.md").read_text("utf-8")


def section(heading: str) -> str:
    return PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]


def names(heading: str) -> set[str]:
    """What the first cells of the section's tables hold as code, without arguments."""
    cells = [line.split("|")[1] for line in section(heading).splitlines() if line.startswith("| `")]
    return {name for cell in cells for name in re.findall(r"`(\w+)", cell)}


def public(kind: type) -> set[str]:
    return {name for name in vars(kind) if not name.startswith("_")}


def test_every_option_is_documented() -> None:
    assert names("Prompts and options") == set(client.Options.__annotations__)


def test_both_clients_do_what_is_documented() -> None:
    arguments = set(inspect.signature(client.Client).parameters)
    assert arguments == set(inspect.signature(client.AsyncClient).parameters)
    assert public(client.Client) == public(client.AsyncClient)
    assert names("The two clients") == public(client.Client) | arguments


@pytest.mark.parametrize("kind", [client.Piece, client.Token, client.Answer, client.Usage])
def test_every_field_of_an_answer_is_documented(kind: type) -> None:
    rows = section("Answers").splitlines()
    row = next(line for line in rows if line.startswith(f"| `{kind.__name__}`"))
    missing = {field.name for field in fields(kind)} - set(re.findall(r"`(\w+)`", row))
    assert missing == set()
