"""Whether the instances that a plan file lists make sense together."""

from collections.abc import Sequence

from pdserve.planner.plan import InstancePlan, Layout
from pdserve.planner.yaml_fields import Fields


def check_instances(
    layout: Layout, instances: Sequence[InstancePlan], entries: Sequence[Fields]
) -> None:
    """Raises `ConfigError` with the entry that contradicts itself, another one or the layout.

    `entries` are what the instances were read from, in the same order.
    """
    for instance, entry in zip(instances, entries, strict=True):
        _check_role(layout, instance, entry)
        _check_stages(instance, entry)
    _check_names(instances, entries)
    _check_gpus(instances, entries)
    if not layout.startswith("colocated"):
        _check_groups(instances, entries)


def _check_role(layout: Layout, instance: InstancePlan, entry: Fields) -> None:
    if (instance.role == "both") == layout.startswith("colocated"):
        return
    wanted = "both" if layout.startswith("colocated") else "prefill or decode"
    raise entry.wrong("role", f"is {instance.role!r}; in layout {layout} it must be {wanted}")


def _check_stages(instance: InstancePlan, entry: Fields) -> None:
    if len(instance.stages) != instance.pp:
        raise entry.wrong("stages", f"there are {len(instance.stages)}, but pp is {instance.pp}")
    for index, stage in enumerate(instance.stages):
        if len(set(stage.gpus)) != instance.tp:
            why = (
                f"is {list(stage.gpus)}; tp is {instance.tp}, so it must be as many different ones"
            )
            raise entry.wrong(f"stages[{index}].gpus", why)


def _check_names(instances: Sequence[InstancePlan], entries: Sequence[Fields]) -> None:
    first: dict[str, Fields] = {}
    for instance, entry in zip(instances, entries, strict=True):
        other = first.setdefault(instance.name, entry)
        if other is not entry:
            raise entry.wrong("name", f"{instance.name!r} is that of {other.where} too")


def _check_gpus(instances: Sequence[InstancePlan], entries: Sequence[Fields]) -> None:
    owner: dict[tuple[str, int], str] = {}
    for instance, entry in zip(instances, entries, strict=True):
        for index, stage in enumerate(instance.stages):
            for gpu in stage.gpus:
                place = f"stages[{index}].gpus"
                if (stage.node, gpu) in owner:
                    other = owner[stage.node, gpu]
                    raise entry.wrong(place, f"GPU {gpu} of {stage.node} is that of {other} too")
                owner[stage.node, gpu] = entry.place(place)


def _check_groups(instances: Sequence[InstancePlan], entries: Sequence[Fields]) -> None:
    """Both phases are there, and each instance finds the other one in its group."""
    groups = {
        role: {each.group for each in instances if each.role == role}
        for role in ("prefill", "decode")
    }
    for instance, entry in zip(instances, entries, strict=True):
        other = "decode" if instance.role == "prefill" else "prefill"
        if instance.group not in groups[other]:
            raise entry.wrong("group", f"is {instance.group}; no {other} instance is in that group")
