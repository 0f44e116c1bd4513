"""The way to an address: through the proxy, and trusting the authorities, that the usual variables name."""

from __future__ import annotations

import os
import ssl
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

from brolly.errors import MissingExtra, OptionError
from brolly.remote.sockets import IDLE, Backend, Connections
from brolly.remote.target import Target

SCHEMES = ("http", "https", "socks5", "socks5h")


def connections(target: Target) -> Connections:
    """Connections to a target on the running event loop, by the environment of now. Raises OptionError."""
    import httpcore
    import httpx

    url = httpx.URL(target.base)
    context = trust() if url.scheme == "https" else None
    common: dict[str, Any] = {"ssl_context": context, "network_backend": Backend(), "keepalive_expiry": IDLE}
    proxy = proxy_of(url.scheme, url.host, url.port)
    if proxy is None:
        pool: Any = httpcore.AsyncConnectionPool(**common)
    else:
        its = httpcore.URL(
            scheme=proxy.url.raw_scheme, host=proxy.url.raw_host, port=proxy.url.port, target=proxy.url.raw_path
        )
        if proxy.url.scheme.startswith("socks"):
            try:
                pool = httpcore.AsyncSOCKSProxy(proxy_url=its, proxy_auth=proxy.raw_auth, **common)
            except ImportError:
                raise MissingExtra("a SOCKS proxy", "socks") from None
        else:
            inner = trust() if proxy.url.scheme == "https" else None
            pool = httpcore.AsyncHTTPProxy(proxy_url=its, proxy_auth=proxy.raw_auth, proxy_ssl_context=inner, **common)
    port = url.port or {"http": 80, "https": 443}[url.scheme]
    origin = httpcore.Origin(url.raw_scheme, url.raw_host, port)
    way = f" through the proxy at {proxy.url.host}" if proxy is not None else ""
    return Connections(lambda: pool.create_connection(origin), way)


def proxy_of(scheme: str, host: str, port: int | None) -> Any:
    """The httpx.Proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, unless NO_PROXY has the host; None: straight on.

    Raises OptionError, which does not show the proxy's password.
    """
    import httpx

    known = getproxies()
    said = known.get(scheme) or known.get("all")
    if not said or proxy_bypass(f"{host}:{port}" if port else host):
        return None
    try:
        proxy = httpx.Proxy(said if "://" in said else f"http://{said}")
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not proxy.url.host:
        told = said.rpartition("@")[2]
        raise OptionError(f"{scheme.upper()}_PROXY says {told!r:.80}; expected http://host:port.")
    return proxy


def trust() -> ssl.SSLContext:
    """Whose certificates are believed: SSL_CERT_FILE's, SSL_CERT_DIR's, else Mozilla's list. Raises OptionError."""
    return _trust(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(8)
def _trust(file: str, folder: str) -> ssl.SSLContext:
    import httpx

    try:
        return httpx.create_ssl_context()
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
    raise OptionError(
        f"SSL_CERT_FILE or SSL_CERT_DIR names {file or folder!r}, which cannot be read as certificates ({why})."
    )
