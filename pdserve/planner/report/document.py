"""The report as a document of plain values, for `--json`."""

import math
from collections.abc import Sequence
from typing import Any

from pdserve.planner.analysis import Analysis, names
from pdserve.planner.phases import Candidate
from pdserve.planner.plan import InstancePlan, Shape
from pdserve.planner.report.facts import (
    is_colocated,
    mean_kv_bytes,
    million_tokens_price,
    moved_bytes_per_s,
    near_runner_up,
    percentiles,
)
from pdserve.planner.report.verdict import headline
from pdserve.planner.report.words import explain
from pdserve.planner.search import Found
from pdserve.planner.simulator.result import Floats

Document = dict[str, Any]


def to_document(analysis: Analysis) -> Document:
    """All of the report but its pictures; what is not known or unlimited is None.

    - `headline`, `disaggregate`, `explanation` (`topic`, `text`): the verdict.
    - `model`, `workload`, `slo`, `asked` (`rate`, `gpus`): what was asked.
    - `plan`: the layout's figures, as in `layouts`, and `instances` with their stages.
    - `prediction`: at `rate`: `attainment` and half its range over seeds, `attainment_spread`;
      `ttft_ms` and `tpot_ms` as p50, p90 and p99; `goodput_range` over seeds.
    - `layouts`, the best first: `goodput` and `goodput_per_gpu` in requests per second,
      `price_per_hour`, `price_per_million_output_tokens`, `shapes` with their `count`; `absent`
      says why the others have no plan; `runner_up_within_noise`.
    - `margins`: by which factor of the SLO `ttft`, `tpot` or `both` can shrink.
    - `binding`: the `resource` that gives way first, and the shares that miss each SLO then.
    - `kv`: `mean_prompt_bytes`, `moved_bytes_per_s`, `local_share`, `links`, and `flows` in bytes
      per second by prefill (rows) and decode instance (columns).
    - `curves`: attainment against rate by layout, its mean, least and most over the seeds.
    - `single_instances`: the goodput of one instance of each shape by phase, the best first.
    """
    problem, best = analysis.problem, analysis.best
    document: Document = {
        "headline": headline(analysis),
        "disaggregate": not is_colocated(best),
        "model": problem.model,
        "workload": {
            "name": problem.workload.name,
            "requests": len(problem.workload),
            "mean_prompt_tokens": float(problem.workload.prompt_tokens.mean()),
            "mean_output_tokens": float(problem.workload.output_tokens.mean()),
        },
        "slo": {
            "ttft_ms": problem.slo.ttft_s * 1e3,
            "tpot_ms": problem.slo.tpot_s * 1e3,
            "attainment": problem.slo.attainment,
        },
        "asked": {"rate": problem.rate, "gpus": problem.gpu_budget},
        "plan": _layout(analysis, best)
        | {"instances": [_instance(each) for each in best.placement.instances]},
        "prediction": _prediction(analysis),
        "layouts": [_layout(analysis, found) for found in analysis.search.found],
        "absent": dict(sorted(analysis.search.absent.items())),
        "runner_up_within_noise": near_runner_up(analysis),
        "margins": {
            "ttft": analysis.margins.ttft if math.isfinite(problem.slo.ttft_s) else None,
            "tpot": analysis.margins.tpot if math.isfinite(problem.slo.tpot_s) else None,
            "both": analysis.margins.both,
        },
        "binding": {
            "resource": analysis.binding.resource,
            "ttft_missed": analysis.binding.ttft_missed,
            "tpot_missed": analysis.binding.tpot_missed,
        },
        "kv": _kv(analysis),
        "curves": [
            {
                "layout": curve.found.layout,
                "rate": list(curve.rates),
                "attainment": list(curve.attainment),
                "least": list(curve.least),
                "most": list(curve.most),
            }
            for curve in analysis.curves
        ],
        "single_instances": {
            phase: [_candidate(each) for each in judged]
            for phase, judged in analysis.search.instances.items()
        },
        "explanation": [{"topic": each.topic, "text": each.text} for each in explain(analysis)],
    }
    finite: Document = _finite(document)
    return finite


def _prediction(analysis: Analysis) -> Document:
    evaluation = analysis.evaluation
    return {
        "rate": evaluation.rate,
        "goodput": analysis.best.goodput,
        "goodput_per_gpu": analysis.best.per_gpu,
        "goodput_range": list(analysis.goodput_range),
        "seeds": len(evaluation.attainments),
        "attainment": evaluation.attainment,
        "attainment_spread": evaluation.spread,
        "ttft_ms": _milliseconds(evaluation.ttft_s),
        "tpot_ms": _milliseconds(evaluation.tpot_s),
    }


def _milliseconds(seconds: Floats) -> Document:
    return {f"p{p}": value * 1e3 for p, value in percentiles(seconds).items()}


def _layout(analysis: Analysis, found: Found) -> Document:
    placement = found.placement
    return {
        "layout": found.layout,
        "goodput": found.goodput,
        "gpus": placement.gpus,
        "goodput_per_gpu": found.per_gpu,
        "price_per_hour": found.price or None,
        "price_per_million_output_tokens": million_tokens_price(analysis.problem, found) or None,
        "shapes": [_shape(shape) | {"count": count} for shape, count in placement.shapes().items()],
    }


def _shape(shape: Shape) -> Document:
    return {
        "role": shape.role,
        "gpu": shape.gpu,
        "tp": shape.tp,
        "pp": shape.pp,
        "max_batch_tokens": shape.max_batch_tokens,
        "max_batch_seqs": shape.max_batch_seqs,
    }


def _instance(instance: InstancePlan) -> Document:
    return {
        "name": instance.name,
        "role": instance.role,
        "gpu": instance.gpu,
        "tp": instance.tp,
        "pp": instance.pp,
        "group": instance.group,
        "stages": [{"node": stage.node, "gpus": list(stage.gpus)} for stage in instance.stages],
    }


def _candidate(candidate: Candidate) -> Document:
    figures = {"goodput": candidate.goodput, "goodput_per_gpu": candidate.per_gpu}
    return _shape(candidate.shape) | figures


def _kv(analysis: Analysis) -> Document:
    placement = analysis.best.placement
    return {
        "mean_prompt_bytes": mean_kv_bytes(analysis.problem),
        "moved_bytes_per_s": moved_bytes_per_s(analysis),
        "local_share": analysis.local_share,
        "links": [
            {
                "name": link.name,
                "bytes_per_s": link.bytes_per_s,
                "capacity": link.capacity,
                "utilisation": link.utilisation,
            }
            for link in analysis.links
        ],
        "flows": {
            "prefill": names(placement, "prefill"),
            "decode": names(placement, "decode"),
            "bytes_per_s": analysis.flows.tolist(),
        },
    }


def _finite(value: Any) -> Any:
    """The same with None for what JSON has no number for."""
    if isinstance(value, dict):
        return {key: _finite(each) for key, each in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
