"""Every option of every service: its name, type, default, meaning and limits, in one place."""

import math
from dataclasses import dataclass

from pdserve.errors import ConfigError
from pdserve.options import option

DEFAULT_MODEL = "smollm2-135m-instruct"


@dataclass(frozen=True, slots=True)
class InstanceConfig:
    """Options of one prefill or decode instance."""

    model: str = option(DEFAULT_MODEL, "model: built-in name, directory, .gguf file or hub id")
    name: str = option("", "name of the instance; empty: role and port")
    host: str = option("127.0.0.1", "address to listen on")
    advertise_host: str = option(
        "", "this machine's address for KV transfer, as peers reach it; empty: host"
    )
    port: int = option(0, "gRPC port; 0: any free one")
    metrics_port: int = option(0, "port of the Prometheus endpoint; 0: any free one")
    device: str = option("auto", "cpu, cuda or cuda:N; auto: cuda where there is one")
    dtype: str = option(
        "auto",
        "weights and KV; auto: float32 on cpu, bfloat16 on cuda",
        choices=("auto", "float32", "bfloat16", "float16"),
    )
    threads: int = option(0, "CPU threads of the engine; 0: torch's choice")
    block_size: int = option(16, "tokens a KV block")
    kv_memory_bytes: int = option(0, "memory of the KV pool; 0: kv_memory_fraction of what is free")
    kv_memory_fraction: float = option(
        0.0, "share of the free memory that the KV pool takes; 0: 0.1 on cpu, 0.9 on cuda"
    )
    max_model_len: int = option(0, "longest prompt + output, tokens; 0: the model's context length")
    max_batch_tokens: int = option(
        512, "token budget of one step: where prefill saturates the device, and the chunk size"
    )
    max_batch_seqs: int = option(64, "most sequences that run at once")
    max_waiting: int = option(256, "most requests that wait; more are refused")
    prefix_cache: bool = option(True, "keep the KV of full blocks for requests that share a prefix")
    layer_group: int = option(0, "layers that are handed over together; 0: a sixth of the model")
    segment_bytes: int = option(8 << 20, "largest piece of one KV transfer")
    segment_timeout_s: float = option(3.0, "longest time that one piece may take")
    connect_timeout_s: float = option(5.0, "longest time that building a channel may take")
    lease_s: float = option(10.0, "how long KV is kept for a decode instance that is silent")
    max_channels: int = option(64, "most channels that are kept open")
    report_interval_s: float = option(0.5, "longest silence between load reports")
    step_timeout_s: float = option(60.0, "a step that runs longer makes the instance unhealthy")
    drain_grace_s: float = option(30.0, "how long running requests may finish after SIGTERM")
    tls_cert: str = option(
        "", "PEM certificate chain that other processes are shown; empty: no TLS"
    )
    tls_key: str = option("", "PEM private key of tls_cert")
    tls_ca: str = option("", "PEM authorities that other processes' certificates must come from")
    tls_server_name: str = option(
        "", "name that the certificates of called processes must bear; empty: host of the address"
    )
    log_level: str = option("info", "verbosity", choices=("debug", "info", "warning", "error"))

    def __post_init__(self) -> None:
        if self.host in ("0.0.0.0", "::") and not self.advertise_host:
            raise ConfigError(
                f"host is {self.host}: set advertise_host to the address of this machine that "
                "other instances reach",
                field="advertise_host",
            )
        _port("port", self.port)
        _port("metrics_port", self.metrics_port)
        _between("threads", self.threads, 0, 1024)
        _between("block_size", self.block_size, 1, 1024)
        _between("kv_memory_bytes", self.kv_memory_bytes, 0, math.inf)
        _between("kv_memory_fraction", self.kv_memory_fraction, 0, 1)
        _between("max_model_len", self.max_model_len, 0, math.inf)
        _between("max_batch_tokens", self.max_batch_tokens, 1, 1 << 20)
        _between("max_batch_seqs", self.max_batch_seqs, 1, 1 << 16)
        _between("max_waiting", self.max_waiting, 1, 1 << 20)
        _between("layer_group", self.layer_group, 0, 1024)
        _between("segment_bytes", self.segment_bytes, 1 << 12, 1 << 30)
        _between("segment_timeout_s", self.segment_timeout_s, 0.05, 600)
        _between("connect_timeout_s", self.connect_timeout_s, 0.05, 600)
        _between("lease_s", self.lease_s, 0.1, 3600)
        _between("max_channels", self.max_channels, 1, 4096)
        _between("report_interval_s", self.report_interval_s, 0.01, 60)
        _between("step_timeout_s", self.step_timeout_s, 0.1, 3600)
        _between("drain_grace_s", self.drain_grace_s, 0, 3600)
        _check_link_tls(self)


@dataclass(frozen=True, slots=True)
class RouterConfig:
    """Options of the router."""

    model: str = option(DEFAULT_MODEL, "model whose tokenizer and limits apply")
    name: str = option("", "name of the router; empty: role and port")
    host: str = option("127.0.0.1", "address to listen on")
    port: int = option(0, "gRPC port; 0: any free one")
    metrics_port: int = option(0, "port of the Prometheus endpoint; 0: any free one")
    http: bool = option(True, "serve OpenAI's API over HTTP as well")
    http_port: int = option(0, "port of the OpenAI API; 0: any free one")
    api_keys: str = option("", "file of API keys, read again when it changes; empty: no keys")
    max_body_bytes: int = option(4 << 20, "largest body of an HTTP request")
    instances: str = option(
        "",
        "where the instances are looked for: a YAML file that lists them, pods by labels as "
        "kube:[namespace/]selector, or names as dns:prefill=host:port,decode=host:port",
    )
    rack_label: str = option(
        "topology.kubernetes.io/rack", "label of Kubernetes nodes that names their rack"
    )
    placer: str = option(
        "predictive",
        "how a pair is chosen",
        choices=("predictive", "least_load", "round_robin", "random"),
    )
    profile: str = option(
        "", "latency profile, built in or a file; empty: what the instances learn of themselves"
    )
    slo_ttft_ms: float = option(0.0, "TTFT objective of requests that name none; 0: none")
    slo_tpot_ms: float = option(0.0, "TPOT objective of requests that name none; 0: none")
    slo_hard: bool = option(False, "refuse requests that are predicted to miss their objectives")
    node_bytes_per_s: float = option(5e9, "bandwidth assumed within a node until it is measured")
    clique_bytes_per_s: float = option(50e9, "the same within an NVLink domain of several nodes")
    rack_bytes_per_s: float = option(10e9, "the same within a rack")
    zone_bytes_per_s: float = option(3e9, "the same within a zone")
    far_bytes_per_s: float = option(1e9, "the same where nothing tells that two instances are near")
    bandwidth_half_life_s: float = option(60.0, "after which a measured bandwidth counts half")
    canary_interval_s: float = option(
        30.0, "a pair unused for so long hands over a canary; at most one runs; 0: none"
    )
    canary_tokens: int = option(64, "length of a canary's prompt, tokens")
    breaker_failures: int = option(3, "failed hand-offs in a row after which a pair is not used")
    breaker_cooldown_s: float = option(5.0, "after which a canary tries the pair again")
    retry_share: float = option(0.2, "retries for each request on average; more fail at once")
    silence_floor_s: float = option(1.0, "shortest silence that an SLO makes of silence_timeout_s")
    max_queued: int = option(256, "most requests that wait at the router while max_running run")
    explain_requests: int = option(2048, "requests that have ended and can still be explained")
    colocated: bool = option(False, "run both phases on decode instances: the baseline")
    max_running: int = option(1024, "most requests at once; more are refused")
    max_attempts: int = option(4, "placements of one request before it fails")
    request_timeout_s: float = option(600.0, "deadline of a request whose client sets none")
    silence_timeout_s: float = option(3.0, "an instance that sends no report for so long is silent")
    connect_timeout_s: float = option(2.0, "longest time to reach an instance")
    step_timeout_s: float = option(60.0, "an instance whose step runs longer is silent")
    placement_timeout_s: float = option(
        5.0, "how long a request waits for an instance that can take it before it fails"
    )
    drain_grace_s: float = option(30.0, "how long running requests may finish after SIGTERM")
    tls_cert: str = option(
        "", "PEM certificate chain that other processes are shown; empty: no TLS"
    )
    tls_key: str = option("", "PEM private key of tls_cert")
    tls_ca: str = option("", "PEM authorities that other processes' certificates must come from")
    tls_server_name: str = option(
        "", "name that the certificates of called processes must bear; empty: host of the address"
    )
    tls_door_cert: str = option("", "PEM certificate chain that clients are shown; empty: tls_cert")
    tls_door_key: str = option("", "PEM private key of tls_door_cert")
    tls_door_ca: str = option(
        "", "PEM authorities that clients' certificates must come from; empty: they need none"
    )
    log_level: str = option("info", "verbosity", choices=("debug", "info", "warning", "error"))

    def __post_init__(self) -> None:
        _port("port", self.port)
        _port("metrics_port", self.metrics_port)
        _port("http_port", self.http_port)
        _between("max_body_bytes", self.max_body_bytes, 1 << 10, 64 << 20)
        _between("max_running", self.max_running, 1, 1 << 20)
        _between("max_attempts", self.max_attempts, 1, 100)
        _between("request_timeout_s", self.request_timeout_s, 0.1, 86400)
        _between("silence_timeout_s", self.silence_timeout_s, 0.05, 600)
        _between("connect_timeout_s", self.connect_timeout_s, 0.05, 600)
        _between("step_timeout_s", self.step_timeout_s, 0.1, 3600)
        _between("slo_ttft_ms", self.slo_ttft_ms, 0, 1e9)
        _between("slo_tpot_ms", self.slo_tpot_ms, 0, 1e9)
        for distance in ("node", "clique", "rack", "zone", "far"):
            name = f"{distance}_bytes_per_s"
            _between(name, getattr(self, name), 1, 1e15)
        _between("bandwidth_half_life_s", self.bandwidth_half_life_s, 0.1, 86400)
        _between("canary_interval_s", self.canary_interval_s, 0, 86400)
        _between("canary_tokens", self.canary_tokens, 1, 1 << 16)
        _between("breaker_failures", self.breaker_failures, 1, 1000)
        _between("breaker_cooldown_s", self.breaker_cooldown_s, 0.01, 3600)
        _between("retry_share", self.retry_share, 0, 10)
        _between("silence_floor_s", self.silence_floor_s, 0.05, 600)
        _between("max_queued", self.max_queued, 0, 1 << 20)
        _between("explain_requests", self.explain_requests, 0, 1 << 20)
        _between("placement_timeout_s", self.placement_timeout_s, 0, 600)
        _between("drain_grace_s", self.drain_grace_s, 0, 3600)
        _check_link_tls(self)
        _check_door_tls(self)


def _check_link_tls(config: InstanceConfig | RouterConfig) -> None:
    files = {name: getattr(config, name) for name in ("tls_cert", "tls_key", "tls_ca")}
    wanted = {**files, "tls_server_name": config.tls_server_name}
    given = [name for name, value in wanted.items() if value]
    missing = [name for name, path in files.items() if not path]
    if given and missing:
        raise ConfigError(
            f"{given[0]} is set, but not {missing[0]}: processes show each other certificates, "
            "which takes tls_cert, tls_key and tls_ca (tls_door_cert and tls_door_key are for a "
            "router's clients alone)",
            field=missing[0],
        )


def _check_door_tls(config: RouterConfig) -> None:
    if bool(config.tls_door_cert) != bool(config.tls_door_key):
        missing = "tls_door_key" if config.tls_door_cert else "tls_door_cert"
        text = f"{missing} is not set: tls_door_cert and tls_door_key go together"
        raise ConfigError(text, field=missing)
    if config.tls_door_ca and not (config.tls_door_cert or config.tls_cert):
        text = "tls_door_ca is set, but neither tls_door_cert nor tls_cert: clients get no TLS"
        raise ConfigError(text, field="tls_door_cert")


def _port(name: str, value: int) -> None:
    _between(name, value, 0, 65535)


def _between(name: str, value: float, low: float, high: float) -> None:
    if low <= value <= high:
        return
    limit = f"[{low}, {high}]"
    raise ConfigError(f"{name} is {value}; it must lie in {limit}", field=name, limit=limit)
