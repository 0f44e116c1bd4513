"""Conversations, kept by OpenAI's own client and lengthened by responses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from brolly.serve.store import Conversation, Store
from brolly.serve.wire.conversations import ConversationBody
from tests.serve.conftest import Running
from tests.serve.scripted import scripted, words

openai = pytest.importorskip("openai")


def said(page: Any) -> list[str]:
    return [item.content[0].text for item in page]


def test_a_conversation_is_made_noted_read_and_forgotten(openai_client: Any) -> None:
    conversations = openai_client.conversations
    made = conversations.create(items=[{"role": "user", "content": "One."}], metadata={"topic": "a"})
    assert conversations.retrieve(made.id) == made
    assert conversations.update(made.id, metadata={"topic": "b"}).metadata == {"topic": "b"}
    added = conversations.items.create(made.id, items=[{"role": "user", "content": f"{n}."} for n in ("Two", "Three")])
    assert said(added.data) == ["Two.", "Three."]
    assert said(conversations.items.list(made.id, order="asc", limit=1)) == ["One.", "Two.", "Three."]
    assert said([conversations.items.retrieve(added.data[0].id, conversation_id=made.id)]) == ["Two."]
    conversations.items.delete(added.data[0].id, conversation_id=made.id)
    assert said(conversations.items.list(made.id)) == ["Three.", "One."]
    assert conversations.delete(made.id).deleted is True
    for call in (conversations.retrieve, conversations.delete, conversations.items.list):
        with pytest.raises(openai.NotFoundError):
            call(made.id)


def test_the_answers_have_the_served_schema(brolly: Running) -> None:
    made = httpx.post(f"{brolly.v1}/conversations", json={}, timeout=60).json()
    ConversationBody.model_validate(made)


def test_responses_read_and_lengthen_a_conversation(tmp_path: Path) -> None:
    with scripted(words(2), tmp_path) as (running, model):
        client = openai.OpenAI(base_url=running.v1, api_key="none", max_retries=0)
        id = client.conversations.create(items=[{"role": "developer", "content": "Be short."}]).id
        for text in ("First?", "Second?"):
            response = client.responses.create(model="scripted", input=text, conversation=id)
            assert response.conversation.id == id
        assert [(m["role"], m["content"]) for m in model.asked[-1]["messages"]] == [
            ("system", "Be short."),
            ("user", "First?"),
            ("assistant", " word0 word1"),
            ("user", "Second?"),
        ]
        texts = ["Be short.", "First?", " word0 word1", "Second?", " word0 word1"]
        assert said(client.conversations.items.list(id, order="asc")) == texts
        with pytest.raises(openai.NotFoundError):
            client.responses.create(model="scripted", input="x", conversation="conv_absent")


def test_conversations_survive_count_and_belong_to_their_owner(tmp_path: Path) -> None:
    store = Store(tmp_path)
    store.put_conversation(Conversation("c", 1, {}, [{"id": "a"}], "key-1"))
    assert store.conversation("c", "key-2") is None
    assert not store.drop_conversation("c", "key-2")
    assert store.lengthen("c", [{"id": "b"}], "key-2") is None
    store.lengthen("c", [{"id": "b"}], "key-1")
    store.close()
    found = Store(tmp_path).conversation("c", "key-1")
    assert found is not None
    assert [item["id"] for item in found.items] == ["a", "b"]
