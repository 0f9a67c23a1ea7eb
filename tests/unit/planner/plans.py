"""Plans and clusters for tests, and what hypothesis draws of them."""

from hypothesis import strategies as st

from pdserve.latency.hardware import Gpu, describe_gpu, find_gpu
from pdserve.planner.cluster import Cluster, Node
from pdserve.planner.plan import InstancePlan, Layout, Role, Stage
from pdserve.planner.plan_file import Percentiles, PlanFile, Prediction, WorkloadFigures
from pdserve.planner.slo import Slo
from pdserve.workload.summary import LengthSummary

# Any letters, digits and signs: what YAML must quote, and what it need not.
NAMES = st.text(st.characters(exclude_categories=("C", "Z")), min_size=1, max_size=12)
POSITIVE = st.floats(1e-6, 1e6)
# Whoever gives a bound gives it in milliseconds.
BOUNDS_S = st.one_of(st.just(float("inf")), POSITIVE.map(lambda ms: ms / 1e3))


def instance(
    name: str,
    role: Role,
    *stages: tuple[str, tuple[int, ...]],
    gpu: str = "H100-SXM5-80GB",
    group: int = 0,
    max_batch_tokens: int = 512,
    max_batch_seqs: int = 64,
) -> InstancePlan:
    """An instance whose TP and PP are those of its stages."""
    return InstancePlan(
        name=name,
        role=role,
        gpu=gpu,
        tp=len(stages[0][1]),
        pp=len(stages),
        max_batch_tokens=max_batch_tokens,
        max_batch_seqs=max_batch_seqs,
        stages=tuple(Stage(*stage) for stage in stages),
        group=group,
    )


def plan(layout: Layout, *instances: InstancePlan, model: str = "m") -> PlanFile:
    """A plan by hand."""
    return PlanFile(model, Slo(0.5, 0.05, 0.9), None, layout, instances)


@st.composite
def plans(draw: st.DrawFn) -> PlanFile:
    """Plans of every layout, with and without figures."""
    layout = draw(
        st.sampled_from(("apart", "paired", "colocated-chunked", "colocated-whole")), "layout"
    )
    roles = ["both"] if layout.startswith("colocated") else ["prefill", "decode"]
    names = draw(st.lists(NAMES, min_size=len(roles), max_size=6, unique=True))
    kinds = [draw(NAMES) for _ in range(2)]
    instances = []
    for index, name in enumerate(names):
        tp, pp = draw(st.integers(1, 4)), draw(st.integers(1, 3))
        stages = [(f"node-{index}", tuple(range(tp * k, tp * k + tp))) for k in range(pp)]
        instances.append(
            instance(
                name,
                roles[index % len(roles)],
                *stages,
                gpu=draw(st.sampled_from(kinds)),
                group=3 if layout == "paired" else 0,
                max_batch_tokens=draw(st.integers(0, 1 << 20)),
                max_batch_seqs=draw(st.integers(1, 1 << 16)),
            )
        )
    return PlanFile(
        model=draw(NAMES),
        slo=Slo(draw(BOUNDS_S), draw(BOUNDS_S), draw(st.floats(0.1, 1))),
        rate=draw(st.one_of(st.none(), POSITIVE)),
        layout=layout,
        instances=tuple(instances),
        prediction=draw(st.one_of(st.none(), _predictions())),
        workload=draw(st.one_of(st.none(), _workloads())),
        pdserve=draw(NAMES),
    )


def _percentiles() -> st.SearchStrategy[Percentiles | None]:
    return st.one_of(st.none(), st.builds(Percentiles, POSITIVE, POSITIVE, POSITIVE))


def _predictions() -> st.SearchStrategy[Prediction]:
    return st.builds(
        Prediction,
        rate=POSITIVE,
        attainment=st.floats(0, 1),
        goodput=POSITIVE,
        goodput_range=st.tuples(POSITIVE, POSITIVE),
        ttft_ms=_percentiles(),
        tpot_ms=_percentiles(),
        seeds=st.integers(1, 9),
        price_per_hour=POSITIVE,
    )


def _workloads() -> st.SearchStrategy[WorkloadFigures]:
    lengths = st.builds(
        LengthSummary, POSITIVE, POSITIVE, POSITIVE, POSITIVE, st.integers(1, 1 << 20)
    )
    rates = st.one_of(st.none(), POSITIVE)
    return st.builds(WorkloadFigures, NAMES, st.integers(1, 10**6), rates, rates, lengths, lengths)


@st.composite
def _gpus(draw: st.DrawFn, name: str) -> Gpu:
    keys = ("memory_gib", "tflops", "tflops_float32", "memory_gbs", "link_gbs")
    figures = {key: draw(st.floats(1e-3, 1e6)) for key in keys}
    return describe_gpu({"name": name, **figures, "link_shared": draw(st.booleans())})


@st.composite
def clusters(draw: st.DrawFn) -> Cluster:
    """Clusters of the catalogue's kinds and others."""
    own = draw(st.lists(NAMES, max_size=3, unique=True))
    kinds = [find_gpu("h100"), find_gpu("l40s"), *(draw(_gpus(name)) for name in own)]
    nodes = tuple(
        Node(
            name=name,
            gpu=draw(st.sampled_from(kinds)),
            gpus=draw(st.integers(1, 16)),
            network_bytes_per_s=draw(POSITIVE) * 1e9 / 8,
            rack=draw(st.sampled_from(("", "r1", "r2"))),
            zone="z",
            gpu_hour_price=draw(st.floats(0, 100)),
        )
        for name in draw(st.lists(NAMES, min_size=1, max_size=5, unique=True))
    )
    racks = {node.rack for node in nodes if node.rack}
    return Cluster(
        nodes=nodes,
        rack_uplinks={rack: draw(POSITIVE) * 1e9 / 8 for rack in sorted(racks)},
        zone_uplinks=draw(st.sampled_from(({}, {"z": 1e11}))),
        link_latency_s=draw(st.floats(0, 1e4)) / 1e3,
    )
