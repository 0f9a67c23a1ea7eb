"""The explanation of a plan in plain sentences."""

from dataclasses import dataclass

from pdserve.planner.analysis import Analysis
from pdserve.planner.report import certainty, network, sizing, verdict
from pdserve.planner.report.facts import is_colocated


@dataclass(frozen=True, slots=True)
class Paragraph:
    """A few sentences of plain text on one topic."""

    topic: str
    text: str


def explain(analysis: Analysis) -> list[Paragraph]:
    """What to deploy and why, the most important first; topics that do not apply are left out."""
    numbers = "Why so many instances" if is_colocated(analysis.best) else "Why this ratio"
    paragraphs = [
        Paragraph("Recommendation", verdict.recommendation(analysis)),
        Paragraph("Why", verdict.reason(analysis)),
        Paragraph("What binds", certainty.binding(analysis)),
        Paragraph(numbers, sizing.ratio(analysis)),
        Paragraph("Why this parallelism", sizing.shapes(analysis)),
        Paragraph("KV on the network", network.transfers(analysis)),
        Paragraph("Node affinity", network.affinity(analysis)),
        Paragraph("Margins", certainty.slack(analysis)),
        Paragraph("Confidence", certainty.confidence(analysis)),
        Paragraph("Ruled out", certainty.ruled_out(analysis)),
    ]
    return [each for each in paragraphs if each.text]
