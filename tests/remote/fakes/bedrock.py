"""A server that speaks as AWS's Bedrock runtime does of Claude: signatures checked by hand, frames with checksums."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import struct
from typing import Any
from urllib.parse import quote, unquote
from zlib import crc32

from tests.remote.fakes import KEY, Reply, Request
from tests.remote.fakes.anthropic import NEW, OLD, FakeAnthropic, Refused, says, talk

ID, SECRET, TOKEN = "AKIDEXAMPLE0TEST", KEY, "sk-test-session-2c9d1f"
VERSIONS = {"bedrock-2023-05-31": OLD, NEW: NEW}
KINDS = {
    "not_found_error": (404, "ResourceNotFoundException"), "authentication_error": (403, "UnrecognizedClientException"),
    "rate_limit_error": (429, "ThrottlingException"), "overloaded_error": (503, "ServiceUnavailableException"),
}  # fmt: skip


def frame(payload: bytes, **headers: str) -> bytes:
    """One frame of an event stream; names of headers have no colon before them here."""
    head = b""
    for name, value in headers.items():
        key = f":{name.replace('_', '-')}".encode()
        head += bytes([len(key)]) + key + b"\x07" + struct.pack("!H", len(value)) + value.encode()
    start = struct.pack("!II", 16 + len(head) + len(payload), len(head))
    whole = start + struct.pack("!I", crc32(start)) + head + payload
    return whole + struct.pack("!I", crc32(whole))


def chunk(data: Any, _: str = "") -> bytes:
    """An event of the model's, as it is framed."""
    packed = {"bytes": base64.b64encode(json.dumps(data).encode()).decode(), "p": "abcdefgh"}
    return frame(json.dumps(packed).encode(), event_type="chunk", content_type="application/json", message_type="event")


def exception(kind: str, message: str) -> bytes:
    return frame(json.dumps({"message": message}).encode(), exception_type=kind, message_type="exception")


class FakeBedrock(FakeAnthropic):
    """Takes requests that are signed by ID and SECRET, or carry KEY."""

    def answer(self, request: Request) -> Reply:
        try:
            if request.headers.get("authorization") != f"Bearer {KEY}":
                check(request)
            found = re.fullmatch(r"/model/([^/]+)/([a-z-]+)", request.target)
            if request.method != "POST" or not found:
                raise Refused("no such operation", "not_found_error")
            body, model = dict(request.json), unquote(found[1])
            if found[2] == "count-tokens":
                body = json.loads(base64.b64decode(body["input"]["invokeModel"]["body"]))
                return Reply(200, {}, {"inputTokens": says(talk(body)).prompt_tokens})
            if "model" in body or "stream" in body:
                raise Refused("model, stream: Extra inputs are not permitted")
            version = VERSIONS.get(body.pop("anthropic_version", ""))
            if version is None:
                raise Refused("anthropic_version: Field required")
            body.pop("anthropic_beta", None)
            stream = found[2] == "invoke-with-response-stream"
            reply = self.message({**body, "model": model, **({"stream": True} if stream else {})}, version, chunk)
            if stream:
                reply.headers["content-type"] = "application/vnd.amazon.eventstream"
            return reply
        except Refused as error:
            return failed(error.kind, str(error))


def failed(kind: str, message: str) -> Reply:
    """An error as AWS tells it."""
    status, name = KINDS.get(kind, (400, "ValidationException"))
    return Reply(status, {"x-amzn-errortype": f"{name}:http://internal.amazon.com/"}, {"message": message})


def check(request: Request) -> None:
    """Hold a request against its signature, by AWS's description of version 4. Raises Refused."""
    found = re.fullmatch(
        r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([a-z0-9-]+)/bedrock/aws4_request, "
        r"SignedHeaders=([a-z0-9;-]+), Signature=([0-9a-f]{64})",
        request.headers.get("authorization", ""),
    )
    if not found or found[1] != ID:
        raise Refused("The security token included in the request is invalid.", "authentication_error")
    _, day, region, names, given = found.groups()
    if not {"host", "x-amz-date"} <= set(names.split(";")):
        raise Refused("the host and the date must be signed", "authentication_error")
    headers = "".join(f"{name}:{' '.join(request.headers[name].split())}\n" for name in names.split(";"))
    path = quote(request.target, safe="/~-_.")
    digest = hashlib.sha256(request.body).hexdigest()
    asked = "\n".join([request.method, path, "", headers, names, digest])
    scope = f"{day}/{region}/bedrock/aws4_request"
    text = "\n".join(
        ["AWS4-HMAC-SHA256", request.headers["x-amz-date"], scope, hashlib.sha256(asked.encode()).hexdigest()]
    )
    key = b"AWS4" + SECRET.encode()
    for part in (day, region, "bedrock", "aws4_request"):
        key = hmac.new(key, part.encode(), hashlib.sha256).digest()
    if not hmac.compare_digest(hmac.new(key, text.encode(), hashlib.sha256).hexdigest(), given):
        raise Refused("The request signature we calculated does not match.", "authentication_error")
