"""Serve models over HTTP: the flags of every setting, and what is told at the start."""

from __future__ import annotations

import argparse
import asyncio
import re
import signal
from pathlib import Path
from typing import Any

from brolly.commands.flags import MODEL
from brolly.errors import BrollyError, MissingExtra, OptionError

UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "KI": 2**10, "MI": 2**20, "GI": 2**30, "TI": 2**40}
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400}
EXAMPLES = """examples:
  brolly serve                                   every model on this disk, loaded when it is asked for
  brolly serve org/name ./my-clip --alias gpt-4o=org/name --pin org/name --memory 16GB
  brolly serve mini-llm openai:gpt-5 anthropic:claude-opus-4-1 --alias gpt-4o=openai:gpt-5 --max-cost 5
  brolly serve --host 0.0.0.0 --api-key-file keys --log json
"""


def flags(command: argparse.ArgumentParser) -> None:
    """A flag for each field of Settings, whose defaults stay where they are."""
    command.formatter_class = argparse.RawDescriptionHelpFormatter
    command.epilog = EXAMPLES

    def add(flag: str, field: str, help: str, metavar: str | None = None, type: Any = None, **more: Any) -> None:
        if metavar:
            more |= {"metavar": metavar, "type": type}
        command.add_argument(f"--{flag}", dest=field, default=None, help=help, **more)

    command.add_argument("models", nargs="*", help=f"{MODEL} (default: every one in the cache, and the bundled ones)")
    add("host", "host", "where to listen (default: 127.0.0.1; 0.0.0.0 for other machines too)")
    add("port", "port", "default: 8000; 0 for a free one", "N", port)
    add("alias", "alias", "a further name for a model", "NAME=MODEL", pair, action="append")
    add("pin", "pin", "load it at the start and never unload it", "MODEL", action="append")
    add(
        "adapter",
        "adapters",
        "a LoRA in PEFT's layout, a folder or org/name",
        "[MODEL:]NAME=LORA",
        pair,
        action="append",
    )
    add("memory", "memory", "for models, such as 16GB (default: most of what is free)", "SIZE", size)
    add("keep-alive", "keep_alive", "how long one stays idle (default: 10m; -1 for ever)", "TIME", duration)
    add(
        "prefix-cache", "prefix_cache", "share what prompts with one beginning computed; others' timing can tell of it",
        action=argparse.BooleanOptionalAction,
    )  # fmt: skip
    add("device", "device", "cpu, cuda, cuda:1, mps (default: the best one here)")
    add("dtype", "dtype", "float32, bfloat16 or float16 (default: the checkpoint's, where native)")
    add("api-key-file", "api_keys", "keys, one a line, each with user (default) or admin behind it", "FILE", Path)
    add("cors", "cors", "a site whose pages may call; * for all", "ORIGIN", action="append")
    add("allow-host", "hosts", "a further name by which a server without keys is called", "NAME", action="append")
    add("max-cost", "max_cost", "US dollars that models elsewhere may spend together", "DOLLARS", float)
    add(
        "price", "prices", "US dollars a million tokens, read and written: openai:gpt-5=1.25,10", "MODEL=R,W", pair,
        action="append",
    )  # fmt: skip
    add("vendor-rate", "vendor_rate", "requests begun a minute with one vendor", "N", float)
    add("vendor-concurrency", "vendor_concurrency", "requests open at a time with one vendor (default: 1024)", "N", int)
    add("strict", "strict", "refuse what a vendor has no word for, where a warning would do", action="store_true")
    add("fetch", "fetch", "where URLs in requests may point; * for any public host", "HOST", action="append")
    add("max-body", "body_bytes", "of a request (default: 32MiB)", "SIZE", size)
    add("max-upload", "upload_bytes", "of sounds and pictures as files (default: 512MiB)", "SIZE", size)
    add("body-time", "body_seconds", "for a request to arrive (default: 30s)", "TIME", duration)
    add("timeout", "request_seconds", "for an answer, or between two of its events (default: 10m)", "TIME", duration)
    add("room-time", "room_seconds", "that a request waits for memory (default: 1m)", "TIME", duration)
    add("waiting", "waiting", "requests that may wait for one model (default: 1024)", "N", int)
    add("connections", "connections", "open at a time (default: 1024)", "N", int)
    add("store", "store", "where stored responses lie", "FOLDER", Path)
    add("store-size", "store_bytes", "of all stored responses (default: 1GiB)", "SIZE", size)
    add("files-size", "files_bytes", "of all files left here, and of vector stores (default: 16GiB)", "SIZE", size)
    add("store-days", "store_days", "that one is kept behind its last use (default: 30)", "N", float)
    add("shutdown-time", "shutdown_seconds", "for running answers when told to stop (default: 30s)", "TIME", duration)
    add("log", "log", "text (default) or json", choices=("text", "json"))
    add("log-prompts", "log_prompts", "log what is asked, too", action="store_true")
    add("open-metrics", "open_metrics", "/metrics for everybody, not for admins alone", action="store_true")
    add("otel", "otel", "traces and metrics to OTEL_EXPORTER_OTLP_ENDPOINT", action="store_true")


def run(args: argparse.Namespace) -> int | None:
    """Serve until told to stop."""
    try:
        from brolly.serve import server
    except ImportError as error:
        raise MissingExtra("brolly serve", "serve") from error
    settings = settings_of(args)
    told: list[asyncio.Task[None]] = []
    code = server.run(settings, lambda url, app: told.append(asyncio.create_task(announce(url, app))))
    for task in told:
        if task.done() and not task.cancelled():
            task.result()  # raises what ended the server
    return code


def settings_of(args: argparse.Namespace) -> Any:
    """The flags as Settings. Raises OptionError."""
    from dataclasses import fields

    from brolly.serve.keys import read_keys
    from brolly.serve.settings import Settings

    given = {f.name: value for f in fields(Settings) if (value := getattr(args, f.name)) is not None}
    for name, value in given.items():
        if name in ("alias", "adapters", "prices"):
            given[name] = once(value)
        elif isinstance(value, list):
            given[name] = tuple(value)
    return Settings(**given | {"api_keys": read_keys(args.api_keys)})


async def announce(url: str, app: Any) -> None:
    """Tell what is served once the cards are read; a device that is not here ends the server."""
    house, settings = app.state.house, app.state.settings
    try:
        await asyncio.shield(house.surveyed)
    except BrollyError:
        signal.raise_signal(signal.SIGTERM)
        raise
    await asyncio.wait([house.looked])
    print(told(house, url, settings.host, bool(settings.api_keys)), flush=True)


def told(house: Any, url: str, host: str, keys: bool) -> str:
    """What is served, where, with which memory, and three commands to try."""
    from brolly.serve.memory import in_words

    url = url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
    rows = [("MODEL", "KIND", "SIZE", "CAN")]
    notes = list(house.notes)
    for entry in house.entries.values():
        also = f" ({', '.join(entry.aliases)})" if entry.aliases else ""
        also += "".join(f" +{name}" for name in entry.adapters)
        if entry.target is not None:
            rows.append((entry.name + also, f"at {entry.target.host}", "-", ", ".join(entry.verbs)))
            continue
        if entry.fault or entry.card is None:
            notes.append(f"{entry.name}: {entry.fault}")
            rows.append((entry.name + also, "-", "-", "cannot be run"))
            continue
        kind, n_params = entry.card.kind.kind or "-", entry.card.parameters.total
        rows.append((entry.name + also, kind, count(n_params), ", ".join(entry.verbs)))
    widths = [max(len(row[i]) for row in rows) for i in range(3)]
    lines = ["  ".join([*(row[i].ljust(widths[i]) for i in range(3)), row[3]]) for row in rows]
    if len(rows) == 1:
        lines = ["No model is here yet: brolly pull org/name."]
    lines += [f"note: {note}" for note in notes]
    here = not house.entries or any(entry.target is None for entry in house.entries.values())
    stays = house.settings.keep_alive
    idle = "for ever" if stays < 0 else f"{stays:g} s"
    room = f"memory  {in_words(house.ledger.total)} for models on {house.device}; one that is idle stays {idle}"
    lines += [
        "",
        f"at      {url}" + ("  (and every address of this machine)" if host in ("0.0.0.0", "::") else ""),
        *([room] if here else []),
        *([f"costs   at most ${house.settings.max_cost:g} for models elsewhere"] if house.settings.max_cost else []),
        f"keys    {'asked for' if keys else 'none: whoever reaches it may use it'}",
        "",
        *tries(house, url, keys),
    ]
    return "\n".join(lines)


def tries(house: Any, url: str, keys: bool) -> list[str]:
    """Three commands that work as they stand."""
    able = [entry for entry in house.entries.values() if entry.verbs]
    talks = next((entry.name for entry in able if "chat" in entry.verbs), None)
    head = " -H 'Authorization: Bearer KEY'" if keys else ""
    key = "KEY" if keys else "none"
    if talks is None:
        name = able[0].name if able else "MODEL"
        return [
            f"try     curl {url}/v1/models{head}",
            f"        brolly load {name} --url {url}",
            f"        {url} in a browser",
        ]
    body = f'{{"model": "{talks}", "messages": [{{"role": "user", "content": "Hello"}}]}}'
    return [
        f"try     curl {url}/v1/chat/completions{head} -H 'Content-Type: application/json' -d '{body}'",
        f'        OPENAI_BASE_URL={url}/v1 OPENAI_API_KEY={key} python -c "from openai import OpenAI; '
        f"print(OpenAI().responses.create(model='{talks}', input='Hello').output_text)\"",
        f"        {url} in a browser",
    ]


def count(n: int | None) -> str:
    """5.4M, 8B."""
    if n is None:
        return "-"
    for scale, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K")):
        if n >= scale:
            return f"{n / scale:.3g}{letter}"
    return str(n)


def pair(text: str) -> tuple[str, str]:
    """NAME=VALUE."""
    name, equals, value = text.partition("=")
    if not (name.strip() and equals and value.strip()):
        raise argparse.ArgumentTypeError(f"{text[:60]!r} is not of the form NAME=VALUE")
    return name.strip(), value.strip()


def once(pairs: list[tuple[str, str]]) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, value in pairs:
        if found.setdefault(name, value) != value:
            raise OptionError(f"{name!r} is given two meanings, {found[name]!r} and {value!r}; leave one out.")
    return found


def size(text: str) -> int:
    """16GB, 512MiB, 1.5e9 → bytes."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?(?:e\d+)?)\s*([KMGT]?I?)B?\s*", text, re.IGNORECASE)
    unit = UNITS.get(found[2].upper()) if found else None
    if found is None or unit is None or not 0 < float(found[1]) * unit < 2**50:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no size like 16GB or 512MiB")
    return int(float(found[1]) * unit)


def port(text: str) -> int:
    if not text.isdecimal() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no port; expected 0 to 65535")
    return int(text)


def duration(text: str) -> float:
    """10m, 1h, 90, -1 → seconds."""
    found = re.fullmatch(r"\s*(-?\d+(?:\.\d+)?)\s*([smhd]?)\s*", text)
    if not found:
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no time like 10m, 1h or 90")
    return float(found[1]) * SECONDS[found[2]]
