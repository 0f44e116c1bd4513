"""OpenAI's /v1/embeddings, with vLLM's messages for pictures and the roles that Cohere and Jina call input_type."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from brolly.serve.wire.common import Answer, Open, Strict

Token = Annotated[int, Field(ge=0, lt=1 << 31, strict=True)]


class ImageURL(Open):
    url: str


class ImagePart(Open):
    """A picture: a data: URL, or an http(s) one where the server fetches such."""

    type: Literal["image_url", "input_image", "image"]
    image_url: ImageURL | str | None = None
    image: str | None = Field(None, description="Base64, without data: before it.")


class TextPart(Open):
    type: Literal["text", "input_text"]
    text: str


Part = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Open):
    role: str = "user"
    content: str | list[Part]


class EmbeddingsRequest(Strict):
    """`input` is a text, a text's tokens, a picture, or a list of them."""

    model: str
    input: str | list[str] | list[Token] | list[list[Token]] | list[str | Part] | Part | None = Field(
        None, description="A text, a text's tokens, a picture, or a list of them, 2048 at most."
    )
    messages: list[Message] | None = Field(
        None, description="Instead of `input`: one text or one picture, as vLLM takes it."
    )
    encoding_format: Literal["float", "base64"] | None = "float"
    dimensions: int | None = Field(None, ge=1, le=1 << 20, description="Keep the first numbers of each vector.")
    role: str | None = Field(None, description="What the texts are for: query, document, or a prompt of the model's.")
    input_type: str | None = Field(None, description="The same in Cohere's words: search_query, search_document.")
    task: str | None = Field(None, description="The same in Jina's words: retrieval.query, retrieval.passage.")
    truncate: bool = Field(False, description="Cut texts that are longer than the model reads; else they are refused.")
    user: str | None = None


class EmbeddingBody(Answer):
    """`embedding` is base64 of little-endian float32 where that was asked for; of models that give a vector a token, a
    list of lists."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: list[float] | list[list[float]] | str


class EmbeddingsUsage(Answer):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Answer):
    object: Literal["list"] = "list"
    data: list[EmbeddingBody]
    model: str
    usage: EmbeddingsUsage
