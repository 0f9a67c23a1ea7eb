"""A plan is started as it says, and serves."""

import argparse
from dataclasses import replace
from pathlib import Path

import pytest

from pdserve.cli import up
from pdserve.cli.local_cluster import ClusterSpec, LocalCluster
from pdserve.planner.plan import InstancePlan, Stage
from pdserve.planner.plan_file import PlanFile, write_plan
from pdserve.planner.slo import Slo
from pdserve.rpc.channel import open_channel
from tests.integration.harness import START_TIMEOUT_S, assert_nothing_left, by_ids, generate, greedy

pytestmark = pytest.mark.model

MODEL = "smollm2-135m-instruct"
# Patience: a machine that is busy elsewhere must not look like a failure.
FLAGS = ("--port=0", "--device=cpu", "--threads=1", "--max-model-len=512")
PATIENCE = ("--segment-timeout-s=60", "--connect-timeout-s=60", "--lease-s=60")


def cluster_of(plan: PlanFile, path: Path) -> ClusterSpec:
    """What `pdserve up --plan` would start."""
    write_plan(plan, path)
    parser = argparse.ArgumentParser()
    up.add_flags(parser)
    words = [f"--plan={path}", *FLAGS, *PATIENCE, "--silence-timeout-s=60"]
    return replace(up.cluster_spec(parser.parse_args(words), {}), start_timeout_s=START_TIMEOUT_S)


async def test_a_planned_pair_answers_with_both_phases(tmp_path: Path) -> None:
    here = [Stage("localhost", (core,)) for core in (0, 1)]
    plan = PlanFile(
        model=MODEL,
        slo=Slo(2.0, 0.2),
        rate=0.5,
        layout="apart",
        instances=(
            InstancePlan("p", "prefill", "core", 1, 1, 16, 4, (here[0],)),
            InstancePlan("d", "decode", "core", 1, 1, 128, 2, (here[1],)),
        ),
    )
    async with LocalCluster(cluster_of(plan, tmp_path / "plan.yaml")) as started:
        channel = open_channel(started.router_address)
        try:
            answer = await generate(channel, by_ids(list(range(1000, 1040)), greedy(8)))
        finally:
            await channel.close()
        [attempt] = answer.end.attempts
        assert (attempt.rung, attempt.prefill, attempt.decode) == (
            "remote",
            "prefill-0",
            "decode-0",
        )
        assert len(answer.tokens) == 8
        assert answer.end.ledger.transfer_bytes > 0
        await assert_nothing_left(started)
