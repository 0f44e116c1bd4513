"""How a server runs: what it serves, where, within which limits. No HTTP here."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Set once at the start; the command line has a flag for each."""

    models: tuple[str, ...] = ()  # references; none: every model in the cache and the bundled ones
    alias: dict[str, str] = field(default_factory=dict)  # name in requests → one of the models
    pin: tuple[str, ...] = ()  # loaded at the start and never unloaded
    adapters: dict[str, str] = field(default_factory=dict)  # "base:name" or "name" → a LoRA in PEFT's layout
    host: str = "127.0.0.1"
    port: int = 8000
    memory: int | None = None  # bytes for models; None: most of what is free
    prefix_cache: bool = True  # whether a prompt takes over what others with the same beginning have computed
    keep_alive: float = 600.0  # seconds that a model stays after its last use; below 0: for ever
    device: str | None = None
    dtype: str | None = None
    api_keys: tuple[tuple[str, str], ...] = ()  # (key, scope), scope "user" or "admin"; none: no key is asked for
    cors: tuple[str, ...] = ()  # origins that may call from a browser
    hosts: tuple[str, ...] = ()  # further names by which a server without keys on loopback may be called
    open_metrics: bool = False  # /metrics for everybody, not for admins alone
    otel: bool = False  # spans and metrics for an OpenTelemetry collector; OTEL_EXPORTER_OTLP_ENDPOINT turns it on too
    body_bytes: int = 32 << 20
    upload_bytes: int = 512 << 20  # sounds and pictures as files
    request_seconds: float = 600.0  # for an answer that is not streamed, and between two events of one that is
    body_seconds: float = 30.0  # for a request's head and body to arrive
    connections: int = 1024
    room_seconds: float = 60.0  # that a request waits until other models make room for its own
    waiting: int = 1024  # requests that may wait for one model
    strict: bool = False  # models elsewhere: refuse what a vendor has no word for, where a warning would do
    max_cost: float | None = None  # US dollars that all of them may spend together
    prices: dict[str, str] = field(default_factory=dict)  # one of the models → dollars a million tokens: "1.25,10"
    vendor_rate: float | None = None  # requests begun a minute with one vendor
    vendor_concurrency: int = 1024  # and open at a time
    fetch: tuple[str, ...] = ()  # hosts from which URLs in requests are fetched; "*" any public one
    log: str = "text"  # or "json"
    log_prompts: bool = False
    store: Path | None = None  # where stored responses lie; None: the user's state folder
    store_bytes: int = 1 << 30
    files_bytes: int = 16 << 30  # of all that clients upload to be kept
    store_days: float = 30.0  # after its last use a stored response is forgotten
    shutdown_seconds: float = 30.0  # that running answers have when the server is told to stop
