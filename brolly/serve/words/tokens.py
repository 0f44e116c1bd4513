"""A model's tokens: text or a conversation → ids, and back. vLLM's routes, also below /v1."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from brolly.errors import OptionError
from brolly.serve.app import house
from brolly.serve.ask import Reads, messages_of, speaks, template_of
from brolly.serve.errors import Refused
from brolly.serve.provenance import provenance
from brolly.serve.tell import reply
from brolly.serve.threads import in_turn
from brolly.serve.wire.common import ERRORS
from brolly.serve.wire.tokens import Detokenized, DetokenizeRequest, Tokenized, TokenizeRequest
from brolly.serve.words.chat import continued

router = APIRouter(tags=["language"])


@router.post("/tokenize", response_model=Tokenized, responses=ERRORS)
@router.post("/v1/tokenize", response_model=Tokenized, responses=ERRORS)
async def tokenize(body: TokenizeRequest, request: Request) -> Response:
    """The tokens of a prompt, or of a conversation as the model's template writes it."""
    if (body.prompt is None) == (body.messages is None):
        raise Refused("Give either a prompt or messages.", param="prompt")
    async with house(request).use(body.model, "generate" if body.messages is None else "chat") as use:
        headers = provenance(use).headers
        return await in_turn(lambda model: reply(_told(model, body), headers), use.model)


def _told(model: Any, body: TokenizeRequest) -> dict[str, Any]:
    ids = _ids(model, body)
    return {
        "count": len(ids), "max_model_len": model.card.needs.context_length, "tokens": ids,
        "token_strs": [model.tokenizer.token_text(i) for i in ids] if body.return_token_strs else None,
    }  # fmt: skip


def _ids(model: Any, body: TokenizeRequest) -> list[int]:
    tokenizer = model.tokenizer
    if body.messages is None:
        found: list[int] = tokenizer.encode(body.prompt, special=body.add_special_tokens is not False)
        return found
    messages = messages_of(body.messages, Reads(speaks(tokenizer)))
    template = template_of(body.chat_template_kwargs)
    if body.tools:
        template["tools"] = [tool.model_dump(exclude_none=True) for tool in body.tools]
    if body.continue_final_message or not body.add_generation_prompt:
        return continued(model, messages, template, body.continue_final_message)
    found = tokenizer.encode_chat(messages, **template)
    return found


@router.post("/detokenize", response_model=Detokenized, responses=ERRORS)
@router.post("/v1/detokenize", response_model=Detokenized, responses=ERRORS)
async def detokenize(body: DetokenizeRequest, request: Request) -> Response:
    """The text of tokens, control tokens included."""
    async with house(request).use(body.model, "generate") as use:
        tokenizer = use.model.tokenizer
        if (most := max(body.tokens, default=0)) >= tokenizer.vocab_size:
            raise OptionError(f"tokens holds {most}; ids of this model go from 0 to {tokenizer.vocab_size - 1}.")
        text = await in_turn(tokenizer.decode, body.tokens, skip_special=False)
        return reply({"prompt": text}, provenance(use).headers)
