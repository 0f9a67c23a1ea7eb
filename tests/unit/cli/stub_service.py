"""Stands in for a pdserve service, so that the supervisor is tested without a model.

    python stub_service.py PARENT_PID ROLE --host=… --port=… [--instances=…]

STUB_FAULT names what goes wrong: `dies:NAME` ends that process at once, `deaf` ignores SIGTERM.
"""

import argparse
import asyncio
import os
import signal
import sys
from pathlib import Path

from pdserve.cli.tethered import die_with
from pdserve.cluster.file import read_instances
from pdserve.process import StopSignal, announce, new_incarnation
from pdserve.rpc.server import RpcServer
from pdserve.rpc.v1 import router_pb2, router_pb2_grpc


class Inference(router_pb2_grpc.InferenceServicer):
    def __init__(self, instances: str) -> None:
        self._addresses = [each.address for each in read_instances(Path(instances))]

    async def GetCluster(self, request, context):  # noqa: N802
        states = [
            router_pb2.InstanceStatus(address=address, state="up") for address in self._addresses
        ]
        return router_pb2.GetClusterResponse(instances=states)


async def serve(role: str, options: argparse.Namespace) -> int:
    stop = StopSignal()
    if os.environ.get("STUB_FAULT") == "deaf":
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: None)
    server = RpcServer(options.host, int(options.port), [])
    if role == "router":
        server.register(
            router_pb2_grpc.add_InferenceServicer_to_server, Inference(options.instances)
        )
    await server.start()
    await server.set_serving(True)
    print(f"threads={options.threads} stub is up", file=sys.stderr, flush=True)
    metrics_url = "http://127.0.0.1:1/metrics"
    http_url = f"http://{options.host}:{options.http_port}" if role == "router" else ""
    announce(role, options.name, server.address, metrics_url, new_incarnation(), http_url)
    await stop.wait()
    await server.stop(0.0)
    return 0


def main() -> int:
    die_with(int(sys.argv[1]))
    role = sys.argv[2]
    parser = argparse.ArgumentParser()
    for flag in ("name", "host", "port", "http-port", "instances", "threads"):
        parser.add_argument(f"--{flag}", default="127.0.0.1" if flag == "host" else "")
    options, _ = parser.parse_known_args(sys.argv[3:])
    if os.environ.get("STUB_FAULT") == f"dies:{options.name}":
        print("error: model 'x' not found", file=sys.stderr)
        return 1
    return asyncio.run(serve(role, options))


if __name__ == "__main__":
    raise SystemExit(main())
