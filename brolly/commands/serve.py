"""Serve models over HTTP. SKELETON."""

from __future__ import annotations

import argparse

from brolly.errors import MissingExtra


def flags(command: argparse.ArgumentParser) -> None:
    command.add_argument("models", nargs="*", help="models to serve (default: every one in the cache)")
    command.add_argument("--host", default="127.0.0.1")
    command.add_argument("--port", type=int, default=8000)


def run(args: argparse.Namespace) -> int | None:
    try:
        import uvicorn

        from brolly.serve.app import create
    except ImportError as error:
        raise MissingExtra("brolly serve", "serve") from error
    from brolly.serve.settings import Settings

    settings = Settings(models=tuple(args.models), host=args.host, port=args.port)
    uvicorn.run(create(settings), host=settings.host, port=settings.port)
    return 0
