"""The documentation names what there is: all of it, and nothing else."""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from pdserve.config import InstanceConfig, RouterConfig
from pdserve.errors import EngineError, PdserveError
from pdserve.instance.metrics import InstanceMetrics, LoadCollector
from pdserve.rpc.errors import status_code
from pdserve.rpc.v1 import types_pb2
from services.router.metrics import RouterMetrics

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def section(page: str, heading: str) -> str:
    """The text under `heading`, up to the next heading of any level."""
    text = (ROOT / "docs" / page).read_text("utf-8")
    _, found, rest = text.partition(f"\n{heading}\n")
    assert found, f"{page} has no section {heading!r}"
    return re.split(r"\n#+ ", rest)[0]


def rows(page: str, heading: str) -> Iterator[list[str]]:
    """The cells of each row of the section's tables whose first cell is code."""
    for line in section(page, heading).splitlines():
        if line.startswith("| `"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def code(cell: str) -> str:
    """What the first backticks of a cell hold; nothing where there are none."""
    match = re.match(r"`([^`]*)`", cell)
    return match[1] if match else ""


@pytest.mark.parametrize(
    ("config", "heading"),
    [
        (InstanceConfig, "### Options of an instance"),
        (RouterConfig, "### Options of the router"),
    ],
)
def test_every_option_is_documented_with_its_default_and_choices(
    config: type, heading: str
) -> None:
    documented = {code(row[0]): row for row in rows("operations.md", heading)}
    assert {name: code(row[1]) for name, row in documented.items()} == {
        field.name: str(field.default) for field in fields(config)
    }
    for field in fields(config):
        choices = field.metadata["choices"]
        assert not choices or documented[field.name][2] == ", ".join(
            f"`{each}`" for each in choices
        )


class Idle:
    """An instance that has nothing to report."""

    def report(self) -> types_pb2.LoadReport:
        return types_pb2.LoadReport()


def exported(registry: CollectorRegistry) -> set[str]:
    return {
        f"{metric.name}_total" if metric.type == "counter" else metric.name
        for metric in registry.collect()
    }


def documented_metrics(heading: str) -> set[str]:
    """Names without labels; a name with {role} stands for one of each role."""
    names = set()
    for row in rows("operations.md", heading):
        name = re.sub(r"\{(?!role\}_)[^}]*\}$", "", code(row[0]))
        names |= {name.replace("{role}", role) for role in ("prefill", "decode")}
    return names


def test_every_metric_of_an_instance_is_documented() -> None:
    registry = CollectorRegistry()
    registry.register(LoadCollector(Idle().report))
    for role in ("prefill", "decode"):
        InstanceMetrics(registry, role)
    assert documented_metrics("### Of an instance") == exported(registry)


def test_every_metric_of_the_router_is_documented() -> None:
    registry = CollectorRegistry()
    RouterMetrics(registry)
    assert documented_metrics("### Of the router") == exported(registry)


def test_every_segment_of_the_ledger_is_documented() -> None:
    fields_of = types_pb2.Ledger.DESCRIPTOR.fields_by_name
    derived = {"ttft_s", "total_s", "tpot_s", "transfer_bytes", "transfer_wall_s"}
    segments = {code(row[0]) for row in rows("operations.md", "### The ledger")}
    assert segments == set(fields_of) - derived


def test_every_error_is_documented_with_its_status() -> None:
    documented = {code(row[0]): code(row[1]) for row in rows("protocol.md", "## Errors")}
    kinds = [PdserveError, *PdserveError.__subclasses__(), EngineError]
    assert documented == {kind.reason: status_code(kind("")).name for kind in kinds}


def test_the_tests_that_the_failure_contract_names_exist() -> None:
    text = section("failure-contract.md", "## Tests")
    injected = ROOT / "tests" / "chaos" / "test_failure_contract.py"
    for line in text.splitlines():
        file = injected
        for name in re.findall(r"`([\w/]+\.py|test_\w+)`", line):
            if name.endswith(".py"):
                file = ROOT / name
            else:
                assert f"def {name}(" in file.read_text("utf-8"), f"{name} is not in {file}"
    for name in re.findall(r"def (test_\w+)", injected.read_text("utf-8")):
        assert f"`{name}`" in text, f"{name} injects a failure that no row names"


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", each).strip().lower().replace(" ", "-") for each in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text("utf-8")):
        if target.startswith("https://"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        assert not anchor or anchor in anchors(linked), f"{page.name} links to {target}"
