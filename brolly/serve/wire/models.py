"""GET /v1/models: OpenAI's fields, and brolly's card of each model."""

from __future__ import annotations

from typing import Literal

from brolly.serve.wire.common import Answer


class ParametersBody(Answer):
    total: int | None
    activated: int | None  # touched for one token


class LicenceBody(Answer):
    id: str | None
    name: str | None
    commercial: str | None  # yes, no, conditional
    free_and_open: bool | None
    url: str | None


class RuleBody(Answer):
    """One rule's indicative outcome; not legal advice."""

    id: str
    name: str
    outcome: Literal["meets", "does-not-meet", "cannot-tell"]
    article: str
    because: str


class CardBody(Answer):
    """What `brolly identify` tells, in short. `error` stands in its place where the files cannot be read."""

    kind: str | None = None
    family: str | None = None
    size_class: str | None = None
    parameters: ParametersBody | None = None
    precision: str | None = None
    quantization: str | None = None
    context_length: int | None = None
    modalities: dict[str, list[str]] | None = None
    licence: LicenceBody | None = None
    rules: list[RuleBody] | None = None
    verbs: list[str] = []
    loaded: bool
    aliases: list[str] = []
    adapter_of: str | None = None
    error: str | None = None


class ModelBody(Answer):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str
    max_model_len: int | None = None  # vLLM's name of the context
    brolly: CardBody


class ModelList(Answer):
    object: Literal["list"]
    data: list[ModelBody]
