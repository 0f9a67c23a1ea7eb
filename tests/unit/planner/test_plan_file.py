"""Plans as YAML files: what is read, what is written, and what every mistake is called."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from plans import instance, plan, plans

from pdserve import __version__
from pdserve.errors import ConfigError
from pdserve.planner.plan import Placement
from pdserve.planner.plan_file import Percentiles, PlanFile, read_plan, write_plan
from pdserve.planner.slo import Slo
from pdserve.workload.workload import Workload

ROOT = Path(__file__).parents[3]
APART = plan(
    "apart",
    instance("p", "prefill", ("a", (0, 1)), ("b", (0, 1))),
    instance("d", "decode", ("a", (2,))),
)
SOUND = """\
version: 1
model: m
slo: {ttft_ms: 500, attainment: 0.9}
layout: apart
instances:
- {name: p, role: prefill, gpu: L4, tp: 2, pp: 1, max_batch_tokens: 512, max_batch_seqs: 8,
   stages: [{node: a, gpus: [0, 1]}]}
- {name: d, role: decode, gpu: L4, tp: 1, pp: 1, max_batch_tokens: 512, max_batch_seqs: 8,
   stages: [{node: a, gpus: [2]}]}
"""
PREDICTED = """\
prediction: {rate: 3, attainment: 0.95, goodput: 3.5, goodput_range: [3, 4], seeds: 3}
workload:
  name: w
  requests: 9
  prompt_tokens: {mean: 5, p50: 5, p90: 6, p99: 7, max: 8}
  output_tokens: {mean: 5, p50: 5, p90: 6, p99: 7, max: 8}
"""


def read(tmp_path: Path, text: str) -> PlanFile:
    path = tmp_path / "plan.yaml"
    path.write_text(text, encoding="utf-8")
    return read_plan(path)


@given(plans())
def test_a_plan_that_is_written_is_read_back(planned: PlanFile) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "plan.yaml")
        write_plan(planned, path)
        assert read_plan(path) == planned


@given(plans())
@settings(max_examples=10)
def test_the_same_plan_gives_the_same_bytes(planned: PlanFile) -> None:
    with TemporaryDirectory() as folder:
        one, other = Path(folder, "one.yaml"), Path(folder, "other.yaml")
        write_plan(planned, one)
        write_plan(read_plan(one), other)
        assert one.read_bytes() == other.read_bytes()


def test_what_a_plan_by_hand_may_leave_out(tmp_path: Path) -> None:
    planned = read(tmp_path, SOUND)
    assert planned.slo == Slo(0.5)
    assert (planned.rate, planned.prediction, planned.workload) == (None, None, None)
    assert planned.pdserve == __version__
    assert (planned.gpus, planned.colocated) == (3, False)
    assert planned.placement == Placement("apart", planned.instances)
    predicted = read(tmp_path, SOUND + PREDICTED)
    assert predicted.prediction is not None
    assert predicted.prediction.ttft_ms is None
    assert predicted.workload is not None
    assert predicted.workload.arrival_cv is None


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("version: 1", "version: 7", "version: is 7; this pdserve reads version 1"),
        ("version: 1\n", "", "version: is missing"),
        ("layout: apart", "layout: apart\ncost: 3", "cost: is not a key here"),
        ("layout: apart", "layout: near", "layout: is 'near'; it must be one of apart, paired"),
        ("layout: apart", "layout: colocated-chunked", "instances[0].role: is 'prefill'; in"),
        ("role: decode", "role: both", "instances[1].role: is 'both'; in layout apart"),
        ("role: decode", "role: [decode]", "instances[1].role: is ['decode']"),
        ("role: decode", "role: prefill", "instances[0].group: is 0; no decode instance"),
        ("layout: apart", "layout: apart\nrate: 0", "rate: is 0"),
        ("layout: apart", "layout: apart\nrate: .nan", "rate: is nan"),
        ("model: m", "model: 7", "model: is 7"),
        ("model: m\n", "", "model: is missing"),
        ("slo: {", "slo: {tpot_ms: -5, ", "slo.tpot_ms: is -5"),
        ("attainment: 0.9", "attainment: 1.1", "slo.attainment: is 1.1"),
        ("attainment: 0.9", "share: 0.9", "slo.share: is not a key"),
        ("name: d", "name: p", "instances[1].name: 'p' is that of instances[0] too"),
        ("tp: 1,", "tp: 0,", "instances[1].tp: is 0"),
        ("tp: 1,", "tp: 2,", "instances[1].stages[0].gpus: is [2]; tp is 2"),
        ("pp: 1", "pp: 2", "instances[0].stages: there are 1, but pp is 2"),
        ("gpus: [0, 1]", "gpus: [0, 0]", "instances[0].stages[0].gpus: is [0, 0]; tp is 2"),
        ("gpus: [2]", "gpus: [1]", "GPU 1 of a is that of instances[0].stages[0].gpus too"),
        ("gpus: [2]", "gpus: [-1]", "instances[1].stages[0].gpus: is [-1]"),
        ("gpus: [2]", "gpus: 2", "instances[1].stages[0].gpus: is 2"),
        ("stages: [{node: a, gpus: [2]}]", "stages: []", "instances[1].stages: must be a list"),
        ("max_batch_seqs: 8", "max_batch_seqs: 0", "instances[0].max_batch_seqs: is 0"),
        ("max_batch_tokens: 512", "max_batch_tokens: -1", "instances[0].max_batch_tokens: is -1"),
        ("gpu: L4, tp: 1", "gpu: L4, group: 4, tp: 1", "instances[0].group: is 0; no decode"),
        ("attainment: 0.95", "attainment: 95", "prediction.attainment: is 95"),
        ("[3, 4]", "[3]", "prediction.goodput_range: is [3]"),
        ("[3, 4]", "[3, .nan]", "prediction.goodput_range: is [3, nan]"),
        ("seeds: 3", "seeds: 3, ttft_ms: {p50: 1}", "prediction.ttft_ms.p90: is missing"),
        ("max: 8", "max: 8.5", "workload.prompt_tokens.max: is 8.5"),
    ],
)
def test_a_mistake_is_named_with_file_and_key(
    tmp_path: Path, old: str, new: str, named: str
) -> None:
    sound = SOUND + PREDICTED
    assert old in sound
    with pytest.raises(ConfigError) as caught:
        read(tmp_path, sound.replace(old, new, 1))
    assert "plan.yaml: " in str(caught.value)
    assert named in str(caught.value)


def test_a_file_that_is_no_plan_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: No such file"):
        read_plan(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match=r"plan\.yaml: is \[1\]; it must be a mapping"):
        read(tmp_path, "[1]")
    with pytest.raises(ConfigError, match=r"no/p\.yaml: No such file"):
        write_plan(APART, tmp_path / "no/p.yaml")


def test_each_phase_of_a_group_has_the_other(tmp_path: Path) -> None:
    lonely = replace(
        plan(
            "paired",
            instance("p", "prefill", ("a", (0,)), group=1),
            instance("d", "decode", ("a", (1,)), group=1),
            instance("e", "decode", ("b", (0,)), group=2),
        )
    )
    write_plan(lonely, tmp_path / "plan.yaml")
    with pytest.raises(ConfigError, match=r"instances\[2\]\.group: is 2; no prefill instance"):
        read_plan(tmp_path / "plan.yaml")


def analysis() -> SimpleNamespace:
    """What `plan_of` reads of an analysis; a search takes too long for a unit test."""
    workload = Workload("w", np.array([0.0, 1.0, 3.0]), np.array([5, 6, 9]), np.array([1, 2, 3]))
    return SimpleNamespace(
        problem=SimpleNamespace(model="m", slo=Slo(0.5, 0.05), rate=2.0, workload=workload),
        evaluation=SimpleNamespace(
            rate=2.0,
            attainment=0.923456789,
            ttft_s=np.array([0.1, 0.2, np.nan]),
            tpot_s=np.array([np.nan, np.nan]),
            results=[None, None],
        ),
        best=SimpleNamespace(
            placement=APART.placement, layout="apart", goodput=2.123456789, price=10.0
        ),
        goodput_range=(2.0, 2.2),
    )


def test_the_plan_of_an_analysis(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from pdserve.planner.plan_of import plan_of

    planned = plan_of(analysis())
    assert planned.instances == APART.instances
    assert (planned.model, planned.rate, planned.layout) == ("m", 2.0, "apart")
    predicted, workload = planned.prediction, planned.workload
    assert predicted is not None
    assert (predicted.attainment, predicted.goodput) == (0.923457, 2.12346)
    assert predicted.ttft_ms == Percentiles(150.0, 190.0, 199.0)
    assert (predicted.tpot_ms, predicted.seeds, predicted.price_per_hour) == (None, 2, 10.0)
    assert workload is not None
    assert (workload.requests, workload.prompt_tokens.mean) == (3, 6.66667)
    write_plan(planned, tmp_path / "plan.yaml")
    assert read_plan(tmp_path / "plan.yaml") == planned


def test_plans_are_read_without_the_planner_and_the_engine() -> None:
    absent = "import sys; sys.modules.update(dict.fromkeys(['numba', 'scipy', 'plotly', 'torch']))"
    used = "import pdserve.planner.plan_file, pdserve.planner.helm_values, pdserve.cli.up"
    subprocess.run([sys.executable, "-c", f"{absent}; {used}"], check=True)


def test_the_page_on_plans_shows_a_file_that_is_read(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "plan-file.md").read_text("utf-8")
    examples = [part.partition("```")[0] for part in page.split("```yaml\n")[1:]]
    shown = [each for each in examples if each.startswith("version:")]
    assert shown
    for text in shown:
        planned = read(tmp_path, text)
        write_plan(planned, tmp_path / "again.yaml")
        assert yaml.safe_load((tmp_path / "again.yaml").read_text()) == yaml.safe_load(text)
