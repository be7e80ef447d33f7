"""What the site tells of itself in numbers, for Prometheus. One object, made by the worker and passed to every part.

Names end in their unit. Labels have few values, known before: never an address, a mailbox or an account. Workers share a
port, so that each answers some of the questions: every number carries its worker's name, or they would seem to jump.
"""

import asyncio
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LAG_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
SIZE_BYTES = (1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26)
LOOP_PAUSE_S = 0.25
CONTENT_TYPE: str = CONTENT_TYPE_LATEST


class Metrics:
    """The registry and what is counted in it. `outcome` labels: ok, refused, invalid, failed."""

    def __init__(self, site: str, worker: str) -> None:
        registry = CollectorRegistry()
        self._registry = registry
        self._labels = {"site": site, "worker": worker}
        self.messages_accepted = Counter(
            "angarium_messages_accepted", "Messages that are durable in the log", ("protocol",), registry=registry
        )
        self.message_bytes = Histogram(
            "angarium_message_bytes", "Sizes of accepted messages", ("protocol",), buckets=SIZE_BYTES, registry=registry
        )
        self.commands = Counter(
            "angarium_commands",
            "Commands by protocol, kind and outcome",
            ("protocol", "kind", "outcome"),
            registry=registry,
        )
        self.command_seconds = Histogram(
            "angarium_command_seconds",
            "From a command to its answer by the log",
            ("protocol",),
            buckets=SECONDS,
            registry=registry,
        )
        self.requests = Counter(
            "angarium_requests",
            "Requests by protocol, word and outcome",
            ("protocol", "word", "outcome"),
            registry=registry,
        )
        self.sessions = Gauge("angarium_sessions", "Open sessions", ("protocol",), registry=registry)
        self.sign_ins = Counter(
            "angarium_sign_ins", "Sign-ins by protocol and outcome", ("protocol", "outcome"), registry=registry
        )
        self.quota_thresholds_reached = Counter(
            "angarium_quota_thresholds_reached",
            "Thresholds of quotas (percent) that accounts reached by what this worker took in; 100 = they are full",
            ("percent",),
            registry=registry,
        )
        self.projection_lag_events = Gauge(
            "angarium_projection_lag_events", "Events that the tables lack", ("partition",), registry=registry
        )
        self.outbox_messages = Gauge(
            "angarium_outbox_messages", "Messages that wait in a queue or spool", ("partition",), registry=registry
        )
        self.outbox_oldest_seconds = Gauge(
            "angarium_outbox_oldest_seconds", "Since the oldest of them was taken in", ("partition",), registry=registry
        )
        self.replication_lag_messages = Gauge(
            "angarium_replication_lag_messages", "Messages that this site's copy lacks", ("partition",), registry=registry
        )
        self.replication_lag_bytes = Gauge(
            "angarium_replication_lag_bytes", "Their bytes, estimated", ("partition",), registry=registry
        )
        self.replication_lag_seconds = Gauge(
            "angarium_replication_lag_seconds",
            "Since this site's copy was last level with its home, or heard from it",
            ("partition",),
            registry=registry,
        )
        self.quarantined_events = Gauge("angarium_quarantined_events", "Events put aside", registry=registry)
        self.search_indexed_messages = Gauge(
            "angarium_search_indexed_messages", "Messages in the search index", registry=registry
        )
        self.search_waiting_messages = Gauge(
            "angarium_search_waiting_messages", "Messages that are to be in it and are not yet", registry=registry
        )
        self.search_bytes = Gauge("angarium_search_bytes", "Its size on disk", registry=registry)
        self.waiting_for_release = Gauge(
            "angarium_waiting_for_release",
            "1 where the next event is of a later release than this",
            ("partition",),
            registry=registry,
        )
        self.digest_agrees = Gauge(
            "angarium_digest_agrees",
            "1 where that site's tables were found equal to ours, 0 where they differ",
            ("partition", "site"),
            registry=registry,
        )
        self.blobs_wanted = Gauge(
            "angarium_blobs_wanted", "Blobs that the site's events name and that it does not have", registry=registry
        )
        self.blobs_lost = Gauge("angarium_blobs_lost", "Of these, those that no other site has either", registry=registry)
        self.blobs_fetched = Gauge(
            "angarium_blobs_fetched", "Blobs that this worker fetched from other sites", registry=registry
        )
        self.blobs_fetched_bytes = Gauge("angarium_blobs_fetched_bytes", "Their bytes", registry=registry)
        self.loop_lag_seconds = Histogram(
            "angarium_loop_lag_seconds", "How late the event loop was", buckets=LAG_SECONDS, registry=registry
        )

    def commanded(self, protocol: str, word: str, outcome: str, seconds: float) -> None:
        self.commands.labels(protocol, word, outcome).inc()
        self.command_seconds.labels(protocol).observe(seconds)

    def quota_reached(self, percent: int) -> None:
        self.quota_thresholds_reached.labels(str(percent)).inc()

    def accepted(self, protocol: str, size: int) -> None:
        self.messages_accepted.labels(protocol).inc()
        self.message_bytes.labels(protocol).observe(size)

    def signed_in(self, protocol: str, *, ok: bool) -> None:
        self.sign_ins.labels(protocol, "ok" if ok else "refused").inc()

    def text(self) -> bytes:
        """In the exposition format that CONTENT_TYPE names."""
        labelled = CollectorRegistry()
        labelled.register(self)
        return generate_latest(labelled)

    def collect(self) -> Iterator[Metric]:
        """As prometheus_client asks a collector: every number with this worker's labels."""
        for metric in self._registry.collect():
            metric.samples = [sample._replace(labels=sample.labels | self._labels) for sample in metric.samples]
            yield metric


async def measure_loop(metrics: Metrics, monotonic: Callable[[], float]) -> None:
    """Until cancelled: how late the loop comes back to who sleeps. What blocks it blocks every session of the worker."""
    while True:
        before = monotonic()
        await asyncio.sleep(LOOP_PAUSE_S)
        metrics.loop_lag_seconds.observe(max(0.0, monotonic() - before - LOOP_PAUSE_S))
