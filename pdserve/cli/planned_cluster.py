"""A plan as a local cluster: what `pdserve up --plan` starts."""

import argparse
import os
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace

from pdserve.cli.cluster_options import load_cluster_spec
from pdserve.cli.local_cluster import ClusterSpec
from pdserve.config import InstanceConfig
from pdserve.errors import ConfigError
from pdserve.planner.plan import InstancePlan
from pdserve.planner.plan_file import PlanFile, read_plan

# What the plan decides.
_PLANNED = ("prefill", "decode", "colocated", "max_batch_tokens", "max_batch_seqs")


def planned_cluster_spec(flags: argparse.Namespace, environ: Mapping[str, str]) -> ClusterSpec:
    """The cluster of the plan in the file `flags.plan`, with flags and environment for the rest.

    Instances that do both phases become decode instances of a colocated cluster. A planned GPU is a
    CPU core with one thread, or a CUDA device of its own. Raises `ConfigError` for a flag that the
    plan contradicts, for what the engine cannot run, and where the plan is too large for this
    machine.
    """
    for name in _PLANNED:
        if getattr(flags, name) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(f"{flag} does not go with --plan, which decides it", field=name)
    plan = read_plan(flags.plan)
    where = str(flags.plan)
    _check_engine(plan, where)
    # As if they were flags: the plan wins over environment and configuration file.
    given = argparse.Namespace(**vars(flags))
    given.model = flags.model or plan.model
    given.colocated = str(plan.colocated).lower()
    roles = Counter(_role(each) for each in plan.instances)
    spec = load_cluster_spec(given, environ, roles["prefill"], roles["decode"])
    numbers = Counter[str]()
    differing: dict[str, InstanceConfig] = {}
    devices = _devices(plan, spec.instance, where)
    for instance, device in zip(plan.instances, devices, strict=True):
        role = _role(instance)
        differing[f"{role}-{numbers[role]}"] = _options(instance, spec.instance, device)
        numbers[role] += 1
    return replace(spec, differing=differing)


def _role(instance: InstancePlan) -> str:
    return "prefill" if instance.role == "prefill" else "decode"


def _check_engine(plan: PlanFile, where: str) -> None:
    """What the engine cannot do is an error; what it does otherwise than planned, a note."""
    for each in plan.instances:
        if each.gpus > 1:
            raise ConfigError(
                f"{where}: {each.name} has tp {each.tp} and pp {each.pp}; the engine runs "
                "instances of one GPU only",
                field="tp" if each.tp > 1 else "pp",
                limit="1",
            )
    if plan.layout == "colocated-whole":
        text = "is planned with whole prompts first, but instances compute prompts in chunks"
        print(f"note: {where}: {text}", file=sys.stderr)


def _options(instance: InstancePlan, given: InstanceConfig, device: str) -> InstanceConfig:
    return replace(
        given,
        # 0 is a plan without a limit, which an instance cannot be.
        max_batch_tokens=instance.max_batch_tokens or given.max_batch_tokens,
        max_batch_seqs=instance.max_batch_seqs,
        device=device,
        threads=given.threads or (instance.gpus if device == "cpu" else 0),
    )


def _devices(plan: PlanFile, given: InstanceConfig, where: str) -> list[str]:
    """The device of each instance; refuses more GPUs than there are CUDA devices or cores."""
    if given.device not in ("auto", "cpu", "cuda"):  # one that all of them are to share
        return [given.device] * len(plan.instances)
    cuda = 0 if given.device == "cpu" else _cuda_devices()
    if cuda or given.device == "cuda":
        if plan.gpus > cuda:
            raise ConfigError(
                f"{where}: the plan has {plan.gpus} GPUs; CUDA devices on this machine: {cuda}",
                field="instances",
                limit=str(cuda),
            )
        return [f"cuda:{index}" for index in range(len(plan.instances))]
    cores = len(os.sched_getaffinity(0))
    if plan.gpus > cores and not given.threads:
        raise ConfigError(
            f"{where}: the plan has {plan.gpus} GPUs, each a core here; CPU cores on this machine: "
            f"{cores}. With --threads (of each instance) it is started all the same",
            field="instances",
            limit=str(cores),
        )
    return ["cpu"] * len(plan.instances)


def _cuda_devices() -> int:
    """How many torch finds; without torch none, which the services will complain of."""
    try:
        import torch
    except ModuleNotFoundError:
        return 0
    return torch.cuda.device_count()
