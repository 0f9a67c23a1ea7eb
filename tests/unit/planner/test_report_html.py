"""The report as a page: complete by itself, safe, and with every section."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
import report_analyses
from plans import instance

from pdserve.errors import ConfigError
from pdserve.latency.hardware import find_gpu
from pdserve.planner.analysis import Analysis
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import Placement
from pdserve.planner.report.cluster_view import MOST_CARDS, view_nodes
from pdserve.planner.report.html import render_html, write_html
from pdserve.planner.report.words import explain

SECTIONS = {
    "why",
    "goodput",
    "latency",
    "margins",
    "placement",
    "traffic",
    "load",
    "layouts",
    "instances",
    "inputs",
}
# What a browser fetches, and where from.
FETCHED = {"src", "href", "srcset", "data", "poster", "action"}


class Page(HTMLParser):
    """The tags of a page, its text outside of scripts and styles, and the data of its figures."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.figures = ""
        self._within = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._within = dict(attrs).get("id") or tag if tag in ("script", "style") else ""

    def handle_endtag(self, tag: str) -> None:
        self._within = ""

    def handle_data(self, data: str) -> None:
        if self._within == "figures":
            self.figures += data
        elif not self._within:
            self.text += data

    @property
    def ids(self) -> set[str | None]:
        return {attributes.get("id") for _, attributes in self.tags}


@pytest.fixture(scope="module", params=["disaggregated", "colocated", "for_rate"])
def analysis(request: pytest.FixtureRequest) -> Analysis:
    made: Analysis = getattr(report_analyses, request.param)()
    return made


@pytest.fixture(scope="module")
def page(analysis: Analysis) -> Page:
    return Page(render_html(analysis))


def test_the_page_fetches_nothing(page: Page) -> None:
    assert not {tag for tag, _ in page.tags} & {"link", "img", "iframe", "object", "embed", "base"}
    assert not [attributes for _, attributes in page.tags if FETCHED & set(attributes)]


def test_styles_fetch_nothing(analysis: Analysis) -> None:
    style = render_html(analysis).partition("<style>")[2].partition("</style>")[0]
    assert "{" in style
    assert not re.search(r"url\(|@import|//", style)


def test_every_section_is_there(page: Page) -> None:
    assert page.ids >= SECTIONS


def test_every_figure_has_its_place_and_is_valid(page: Page) -> None:
    figures = json.loads(page.figures)
    assert {"attainment", "ttft", "tpot", "scale", "queued", "kv"} <= set(figures)
    assert {f"plot-{name}" for name in figures} <= page.ids
    for figure in figures.values():
        go.Figure(_coloured(figure))


def test_flows_are_drawn_where_there_are_any(page: Page, analysis: Analysis) -> None:
    assert ("plot-flows" in page.ids) == bool(analysis.flows.any())


def test_the_sentences_are_on_the_page(page: Page, analysis: Analysis) -> None:
    for each in explain(analysis):
        assert each.text in page.text


def test_names_are_text(page: Page) -> None:
    """The model is named like a script, and nodes like bold text."""
    assert report_analyses.PROFILE.model in page.text
    assert "<b>node-0</b>" in page.text
    scripts = [attributes for tag, attributes in page.tags if tag == "script"]
    assert len(scripts) == 3


def test_every_gpu_of_the_cluster_is_drawn(page: Page, analysis: Analysis) -> None:
    cells = [1 for tag, attributes in page.tags if tag == "i" and "class" not in attributes]
    assert len(cells) == analysis.problem.cluster.gpus


def test_the_page_is_written(tmp_path: Path) -> None:
    analysis = report_analyses.for_rate()
    write_html(analysis, tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8") == render_html(analysis)


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "report.html"
    with pytest.raises(ConfigError, match=re.escape(str(path))):
        write_html(report_analyses.for_rate(), path)


def test_many_nodes_share_cards_by_what_is_on_them() -> None:
    count = MOST_CARDS + 6
    gpu = find_gpu("h100")
    cluster = Cluster([Node(f"n{k}", gpu, 4, 1e9, rack=f"r{k % 3}") for k in range(count)])
    instances = [
        instance(f"prefill-{k}", "prefill", (f"n{k}", (0, 1)), (f"n{k}", (2, 3)))
        for k in range(count - 1)
    ]
    view = view_nodes(cluster, Placement("apart", instances))
    assert [card.count for card in view.cards] == [count - 1, 1]
    assert [len(nodes) for _, nodes in view.racks] == [count // 3] * 3
    assert sorted(name for card in view.cards for name in card.nodes) == sorted(
        node.name for node in cluster.nodes
    )
    assert [block.detail for block in view.cards[0].blocks] == ["stage 1/2", "stage 2/2"]


def test_neighbours_of_one_role_differ_in_shade() -> None:
    cluster = Cluster([Node("n", find_gpu("h100"), 4, 1e9)])
    instances = [instance(f"decode-{k}", "decode", ("n", (k,))) for k in range(3)]
    blocks = view_nodes(cluster, Placement("apart", instances)).cards[0].blocks
    assert [block.shade for block in blocks] == [0, 1, 0, 0]
    assert [block.role for block in blocks] == ["decode", "decode", "decode", "free"]


def _coloured(value: object) -> object:
    """A figure with a colour wherever the page's script puts one."""
    if isinstance(value, dict):
        return {key: _coloured(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_coloured(each) for each in value]
    return "#123456" if isinstance(value, str) and value.startswith("var(") else value
