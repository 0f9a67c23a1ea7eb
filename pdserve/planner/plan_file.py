"""A plan as a YAML file, which commands and charts read; docs/plan-file.md describes the format.

Reading and writing need neither the simulator nor the engine.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pdserve import __version__
from pdserve.planner.plan import ANYWHERE, InstancePlan, Layout, Placement, Role, Stage
from pdserve.planner.plan_check import check_instances
from pdserve.planner.slo import Slo
from pdserve.planner.yaml_fields import Fields, read_fields
from pdserve.planner.yaml_output import in_unit, tidy, write_yaml
from pdserve.workload.summary import LengthSummary

VERSION = 1
LAYOUTS: tuple[Layout, ...] = ("apart", "paired", "colocated-chunked", "colocated-whole")

_KEYS = (
    "version",
    "pdserve",
    "model",
    "slo",
    "rate",
    "layout",
    "instances",
    "prediction",
    "workload",
)
_SLO_KEYS = ("ttft_ms", "tpot_ms", "attainment")
_INSTANCE_KEYS = (
    "name",
    "role",
    "gpu",
    "tp",
    "pp",
    "max_batch_tokens",
    "max_batch_seqs",
    "stages",
    "group",
)
_PREDICTION_KEYS = (
    "rate",
    "attainment",
    "goodput",
    "goodput_range",
    "seeds",
    "price_per_hour",
    "ttft_ms",
    "tpot_ms",
)
_WORKLOAD_KEYS = ("name", "requests", "rate", "arrival_cv", "prompt_tokens", "output_tokens")
_PERCENTILES = ("p50", "p90", "p99")
_LENGTHS = ("mean", *_PERCENTILES, "max")
_ROLES: tuple[Role, ...] = ("prefill", "decode", "both")
# Those of the options of the same names.
_MOST_BATCH_TOKENS, _MOST_BATCH_SEQS = 1 << 20, 1 << 16
_MOST_RANKS = 1024


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Of a time in milliseconds."""

    p50: float
    p90: float
    p99: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the simulation of the plan showed, over workloads of so many `seeds`.

    `rate` is that of the simulation, `goodput` the highest one at which the target share of
    requests meets the SLOs, both in requests per second; `goodput_range` has its least and its most
    over the seeds. `attainment` is a share of all requests; percentiles are over those that came
    so far, None where none did. `price_per_hour` is 0 where the cluster has no prices.
    """

    rate: float
    attainment: float
    goodput: float
    goodput_range: tuple[float, float]
    ttft_ms: Percentiles | None
    tpot_ms: Percentiles | None
    seeds: int
    price_per_hour: float = 0.0


@dataclass(frozen=True, slots=True)
class WorkloadFigures:
    """The workload that a plan was made for; None is what a workload is too short to tell.

    `rate` is that of the workload as it was given, in requests per second, and `arrival_cv` the
    coefficient of variation of the times between arrivals.
    """

    name: str
    requests: int
    rate: float | None
    arrival_cv: float | None
    prompt_tokens: LengthSummary
    output_tokens: LengthSummary


@dataclass(frozen=True, slots=True)
class PlanFile:
    """What to run, and what it was planned for.

    `rate` is the rate that was asked for, None where the most goodput was. A plan that was written
    by hand may lack `prediction` and `workload`. `pdserve` is the version that made it.
    """

    model: str
    slo: Slo
    rate: float | None
    layout: Layout
    instances: tuple[InstancePlan, ...]
    prediction: Prediction | None = None
    workload: WorkloadFigures | None = None
    pdserve: str = __version__

    @property
    def placement(self) -> Placement:
        """The instances on their nodes, as the simulator takes them."""
        return Placement(self.layout, self.instances)

    @property
    def gpus(self) -> int:
        """How many GPUs it takes."""
        return self.placement.gpus

    @property
    def colocated(self) -> bool:
        """Whether every instance does both phases."""
        return self.layout.startswith("colocated")


def write_plan(plan: PlanFile, path: str | Path) -> None:
    """Writes the plan so that `read_plan` gives an equal one; the same plan, the same bytes.

    A bound of the SLO that no float of milliseconds gives may change in its last bit. Raises
    `ConfigError` where the file cannot be written.
    """
    document: dict[str, Any] = {
        "version": VERSION,
        "pdserve": plan.pdserve,
        "model": plan.model,
        "slo": slo_entry(plan.slo),
    }
    if plan.rate is not None:
        document["rate"] = tidy(plan.rate)
    document["layout"] = plan.layout
    document["instances"] = [_instance_entry(each) for each in plan.instances]
    if plan.prediction is not None:
        document["prediction"] = _prediction_entry(plan.prediction)
    if plan.workload is not None:
        document["workload"] = _workload_entry(plan.workload)
    write_yaml(document, Path(path))


def read_plan(path: str | Path) -> PlanFile:
    """The plan in the file.

    Raises `ConfigError` with the file, the key, its value and the limit, or the line where the text
    is not YAML; so too for a plan that contradicts itself.
    """
    document = read_fields(Path(path), "plan", VERSION, _KEYS)
    layout: Layout = document.choice("layout", LAYOUTS)
    entries = document.mappings("instances", _INSTANCE_KEYS)
    instances = tuple(_instance(entry) for entry in entries)
    check_instances(layout, instances, entries)
    return PlanFile(
        model=document.text("model"),
        slo=_slo(document.mapping("slo", _SLO_KEYS)),
        rate=_positive_or_none(document, "rate"),
        layout=layout,
        instances=instances,
        prediction=(
            _prediction(document.mapping("prediction", _PREDICTION_KEYS))
            if document.has("prediction")
            else None
        ),
        workload=(
            _workload(document.mapping("workload", _WORKLOAD_KEYS))
            if document.has("workload")
            else None
        ),
        pdserve=document.text("pdserve", default=__version__),
    )


def slo_entry(slo: Slo) -> dict[str, Any]:
    """The SLO in milliseconds; a bound that is infinite is left out."""
    bounds = {"ttft_ms": slo.ttft_s, "tpot_ms": slo.tpot_s}
    entry: dict[str, Any] = {
        name: in_unit(bound, bound * 1e3, seconds)
        for name, bound in bounds.items()
        if math.isfinite(bound)
    }
    return entry | {"attainment": tidy(slo.attainment)}


def seconds(ms: float) -> float:
    """Milliseconds of a file as the seconds of the code."""
    return ms / 1e3


def _instance_entry(instance: InstancePlan) -> dict[str, Any]:
    return {
        "name": instance.name,
        "role": instance.role,
        "gpu": instance.gpu,
        "tp": instance.tp,
        "pp": instance.pp,
        "max_batch_tokens": instance.max_batch_tokens,
        "max_batch_seqs": instance.max_batch_seqs,
        "stages": [{"node": each.node, "gpus": list(each.gpus)} for each in instance.stages],
        "group": instance.group,
    }


def _prediction_entry(prediction: Prediction) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "rate": tidy(prediction.rate),
        "attainment": tidy(prediction.attainment),
        "goodput": tidy(prediction.goodput),
        "goodput_range": [tidy(each) for each in prediction.goodput_range],
        "seeds": prediction.seeds,
        "price_per_hour": tidy(prediction.price_per_hour),
    }
    for name, times in (("ttft_ms", prediction.ttft_ms), ("tpot_ms", prediction.tpot_ms)):
        if times is not None:
            entry[name] = {"p50": tidy(times.p50), "p90": tidy(times.p90), "p99": tidy(times.p99)}
    return entry


def _workload_entry(workload: WorkloadFigures) -> dict[str, Any]:
    entry: dict[str, Any] = {"name": workload.name, "requests": workload.requests}
    if workload.rate is not None:
        entry["rate"] = tidy(workload.rate)
    if workload.arrival_cv is not None:
        entry["arrival_cv"] = tidy(workload.arrival_cv)
    for name, lengths in (
        ("prompt_tokens", workload.prompt_tokens),
        ("output_tokens", workload.output_tokens),
    ):
        entry[name] = {
            "mean": tidy(lengths.mean),
            "p50": tidy(lengths.p50),
            "p90": tidy(lengths.p90),
            "p99": tidy(lengths.p99),
            "max": lengths.max,
        }
    return entry


def _instance(entry: Fields) -> InstancePlan:
    return InstancePlan(
        name=entry.text("name"),
        role=entry.choice("role", _ROLES),
        gpu=entry.text("gpu"),
        tp=entry.whole("tp", 1, _MOST_RANKS),
        pp=entry.whole("pp", 1, _MOST_RANKS),
        max_batch_tokens=entry.whole("max_batch_tokens", 0, _MOST_BATCH_TOKENS),
        max_batch_seqs=entry.whole("max_batch_seqs", 1, _MOST_BATCH_SEQS),
        stages=tuple(
            Stage(each.text("node"), each.wholes("gpus"))
            for each in entry.mappings("stages", ("node", "gpus"))
        ),
        group=entry.whole("group", default=ANYWHERE),
    )


def _slo(entry: Fields) -> Slo:
    return Slo(
        ttft_s=seconds(entry.positive("ttft_ms")) if entry.has("ttft_ms") else math.inf,
        tpot_s=seconds(entry.positive("tpot_ms")) if entry.has("tpot_ms") else math.inf,
        attainment=entry.positive("attainment", 1.0),
    )


def _prediction(entry: Fields) -> Prediction:
    least, most = entry.numbers("goodput_range", 2)
    return Prediction(
        rate=entry.number("rate"),
        attainment=entry.number("attainment", high=1.0),
        goodput=entry.number("goodput"),
        goodput_range=(least, most),
        ttft_ms=_read_percentiles(entry, "ttft_ms"),
        tpot_ms=_read_percentiles(entry, "tpot_ms"),
        seeds=entry.whole("seeds", 1),
        price_per_hour=entry.number("price_per_hour", default=0.0),
    )


def _read_percentiles(entry: Fields, key: str) -> Percentiles | None:
    if not entry.has(key):
        return None
    times = entry.mapping(key, _PERCENTILES)
    return Percentiles(*(times.number(each) for each in _PERCENTILES))


def _workload(entry: Fields) -> WorkloadFigures:
    return WorkloadFigures(
        name=entry.text("name"),
        requests=entry.whole("requests", 1),
        rate=_positive_or_none(entry, "rate"),
        arrival_cv=entry.number("arrival_cv") if entry.has("arrival_cv") else None,
        prompt_tokens=_read_lengths(entry.mapping("prompt_tokens", _LENGTHS)),
        output_tokens=_read_lengths(entry.mapping("output_tokens", _LENGTHS)),
    )


def _read_lengths(entry: Fields) -> LengthSummary:
    mean, p50, p90, p99 = (entry.number(each) for each in ("mean", *_PERCENTILES))
    return LengthSummary(mean, p50, p90, p99, entry.whole("max", 1))


def _positive_or_none(entry: Fields, key: str) -> float | None:
    return entry.positive(key) if entry.has(key) else None
