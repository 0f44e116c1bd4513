"""The way to an address: through the proxy, and trusting the authorities, that the usual variables name."""

from __future__ import annotations

import base64
import os
import ssl
from functools import lru_cache
from typing import Any
from urllib.request import getproxies, proxy_bypass

from brolly.errors import OptionError
from brolly.remote.sockets import Way
from brolly.remote.target import Target

PORTS = {"http": 80, "https": 443}


def way_to(target: Target) -> Way:
    """How a target is reached, by the environment of now. Raises OptionError."""
    import httpx

    url = httpx.URL(target.base)
    host = url.raw_host.decode("ascii")
    context = trust() if url.scheme == "https" else None
    port = url.port or PORTS[url.scheme]
    proxy = proxy_of(url.scheme, host, port)
    if proxy is None:
        return Way(host, port, context)
    its = proxy.url
    user = b":".join(proxy.raw_auth) if proxy.raw_auth else b""
    return Way(
        host,
        port,
        context,
        (its.host, its.port or PORTS[its.scheme]),
        trust() if its.scheme == "https" else None,
        b"Basic " + base64.b64encode(user) if user else b"",
    )


def proxy_of(scheme: str, host: str, port: int) -> Any:
    """The httpx.Proxy of HTTP_PROXY, HTTPS_PROXY or ALL_PROXY, unless NO_PROXY has the host; None: straight on.

    Raises OptionError, which does not show the proxy's password.
    """
    import httpx

    known = getproxies()
    said = known.get(scheme) or known.get("all")
    if not said or proxy_bypass(f"{host}:{port}"):
        return None
    try:
        proxy = httpx.Proxy(said if "://" in said else f"http://{said}")
    except (httpx.InvalidURL, ValueError):
        proxy = None
    if proxy is None or not proxy.url.host or proxy.url.scheme not in PORTS:
        name = f"{scheme.upper()}_PROXY" if known.get(scheme) else "ALL_PROXY"
        raise OptionError(
            f"{name} says {said.rpartition('@')[2]!r:.80}; expected http://host:port or https://host:port."
        )
    return proxy


def trust() -> ssl.SSLContext:
    """Whose certificates are believed: SSL_CERT_FILE's, SSL_CERT_DIR's, else Mozilla's list. Raises OptionError."""
    return _trust(os.environ.get("SSL_CERT_FILE", ""), os.environ.get("SSL_CERT_DIR", ""))


@lru_cache(8)
def _trust(file: str, folder: str) -> ssl.SSLContext:
    import httpx

    try:
        context: ssl.SSLContext = httpx.create_ssl_context()
        context.set_alpn_protocols(["http/1.1"])
        return context
    except (OSError, ssl.SSLError) as error:
        why = getattr(error, "strerror", None) or str(error)
    raise OptionError(
        f"SSL_CERT_FILE or SSL_CERT_DIR names {file or folder!r}, which cannot be read as certificates ({why})."
    )
