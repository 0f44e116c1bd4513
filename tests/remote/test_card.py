"""Cards of models that run elsewhere: what is known and by whom, without a network, wherever cards are read."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import brolly
from brolly.cli import main
from brolly.errors import OptionError, UnknownModel
from brolly.identity.known import lineage, named
from brolly.remote import Remote, parse
from brolly.remote.card import card_of, identify, said, target_of
from brolly.remote.dialect import Listed
from brolly.remote.listing import keep, source_of
from brolly.remote.prices import price_of

SCHEMA = Path(brolly.__file__).parent / "identity" / "data" / "card.schema.json"
SEVERAL = [
    "openai:gpt-5", "openai:gpt-99", "openai:text-embedding-3-large", "openai:whisper-1", "openai:gpt-image-2",
    "anthropic:claude-opus-4-1", "anthropic:claude-opus-5-5", "gemini:gemini-2.5-pro", "https://h.example/v1#thing",
    "huggingface:meta-llama/Llama-3.1-8B-Instruct", "bedrock:us.anthropic.claude-opus-4-1-20250805-v1:0", "azure:mine",
    "openrouter:anthropic/claude-opus-4.1", "vertex:gemini-2.5-pro",
]  # fmt: skip


@pytest.fixture(autouse=True)
def no_network_and_no_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError("a card asked the network")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    for name in ("AZURE_OPENAI_ENDPOINT", "GOOGLE_CLOUD_PROJECT", "AWS_REGION", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("reference", SEVERAL)
def test_every_section_of_a_card_can_be_read(reference: str) -> None:
    card = identify(reference)
    data = card.json()
    assert card.name and card.kind.sentence and card.verbs and card.verbs_why
    assert card.rules and all(rule.outcome in ("meets", "does-not-meet", "cannot-tell") for rule in card.rules)
    assert card.parameters.precision is None and card.needs.disk is None and card.findings == ()
    assert card.licence.id is None or isinstance(card.licence.id, str)
    assert card.header.files == () and card.header.n_params == 0
    assert json.loads(json.dumps(data)) == data and data["path"] is None
    assert data["remote"]["model"] == target_of(reference).model and data["verbs"] == list(card.verbs)
    with pytest.raises(UnknownModel, match="elsewhere|runs at"):
        _ = card.recognised


@pytest.mark.parametrize("reference", SEVERAL)
def test_the_json_is_as_its_schema_has_it(reference: str) -> None:
    jsonschema = pytest.importorskip("jsonschema")
    jsonschema.validate(identify(reference).json(), json.loads(SCHEMA.read_text()))


@pytest.mark.parametrize("reference", SEVERAL)
@pytest.mark.parametrize("flag", ["", "--json", "--why", "--sarif", "--sbom cyclonedx", "--sbom spdx", "--form gpai"])
def test_a_card_is_said_in_every_way(reference: str, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", reference, *flag.split()]) == 0
    out = capsys.readouterr()
    assert out.out and not out.err
    if flag in ("", "--why"):
        host = target_of(reference).host
        known = "{" not in host
        assert "{" not in out.out and (known or "an address by region" in " ".join(out.out.split()))
        assert not known or (host or "customer") in out.out


def test_a_page_is_written(tmp_path: Path) -> None:
    for n, reference in enumerate(SEVERAL):
        page = tmp_path / f"{n}.html"
        assert main(["identify", reference, "--html", str(page)]) == 0
        text = page.read_text()
        assert "Price" in text and "<script>alert" not in text


def test_a_known_model_is_told_from_the_table() -> None:
    card = identify("openai:gpt-5")
    assert (card.name, card.kind.kind, card.origin) == ("GPT-5", "lmm", "table")
    assert card.row and card.row.open == "closed" and card.needs.context_length == 400_000
    assert card.verbs == ("generate", "chat")
    outcomes = {rule.id: rule.outcome for rule in card.rules}
    assert outcomes["eu-gpai"] == "meets" and outcomes["ca-sb-53"] == "cannot-tell"
    assert "api.openai.com" in card.seen and "OpenAI" in card.seen


def test_a_name_with_a_date_or_a_provider_is_the_same_model() -> None:
    for reference in (
        "anthropic:claude-opus-4-1-20250805", "bedrock:us.anthropic.claude-opus-4-1-20250805-v1:0",
        "openrouter:anthropic/claude-opus-4.1",
    ):  # fmt: skip
        assert identify(reference).name == "Claude Opus 4.1", reference


def test_open_weights_elsewhere_keep_their_licence() -> None:
    card = identify("huggingface:meta-llama/Llama-3.1-8B-Instruct")
    assert card.row and card.row.open == "weights" and card.licence.id and card.kind.kind == "llm"


def test_traits_tell_of_a_model_that_the_table_has_not() -> None:
    card = identify("anthropic:claude-opus-5-5")
    assert card.origin == "vendor" and card.json()["from"] == "vendor"
    assert (card.kind.family, card.kind.kind, card.kind.modalities_in) == ("Claude", "lmm", ("text", "image"))
    assert card.needs.context_length == 1_000_000 and card.licence.id is None
    assert all(rule.outcome == "cannot-tell" for rule in card.rules)
    assert any("litellm" in evidence.rule for evidence in card.why)


def test_what_nobody_tells_stays_unknown() -> None:
    card = identify("https://h.example/v1#thing")
    assert (card.kind.kind, card.kind.is_llm, card.kind.family, card.needs.context_length) == (None, None, None, None)
    assert "cannot be told" in card.kind.sentence and "not known here" in card.verbs_why
    assert "generate" in card.verbs and "embed" in card.verbs
    assert card.json()["remote"]["price"] is None


def test_a_kept_list_tells_what_nobody_else_does() -> None:
    target = parse("https://h.example/v1#thing")
    keep(source_of("https://h.example/v1"), [Listed("thing", "The Thing", 1, 8192, ("embed",)), Listed("other")])
    card = card_of(target)
    assert card.needs.context_length == 8192 and card.verbs == ("embed",)
    assert ("Listed", "The Thing, since 1970-01-01") in card.beside and card.json()["remote"]["listed"][
        "context"
    ] == 8192


def test_stated_training_decides_rules() -> None:
    card = identify("openai:gpt-99", flop=1e27)
    assert card.training.flop == 1e27
    assert main(["identify", "gpt-4o", "--flop", "2e25", "--fail-on", "systemic"]) == 3
    assert main(["identify", "openai:gpt-4o", "--flop", "2e25", "--fail-on", "systemic"]) == 3


@pytest.mark.parametrize(
    ("reference", "verbs"),
    [
        ("openai:text-embedding-3-large", ("embed",)), ("openai:gpt-image-2", ("draw",)),
        ("openai:whisper-1", ("transcribe",)), ("openai:gpt-4o-mini-tts", ("speak",)),
        ("openai:gpt-5", ("generate", "chat")), ("anthropic:anything", ("generate", "chat")),
    ],
)  # fmt: skip
def test_verbs_are_those_of_vendor_and_model(reference: str, verbs: tuple[str, ...]) -> None:
    assert identify(reference).verbs == verbs


def test_brolly_identify_and_remotes_have_the_same_card() -> None:
    assert brolly.identify("openai:gpt-5").json() == Remote("openai:gpt-5").card.json()
    assert brolly.identify("gpt-5").name == "GPT-5" and not hasattr(brolly.identify("gpt-5"), "target")


def test_what_names_no_model_is_told() -> None:
    with pytest.raises(OptionError, match="names no model"):
        identify("openai: ")
    with pytest.raises(OptionError):
        identify("https://user:secret@h/v1#m")


def test_two_cards_are_compared(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["identify", "openai:gpt-5", "--compare", "anthropic:claude-opus-4-1"]) == 0
    assert capsys.readouterr().out


def test_prices_are_said_in_a_line() -> None:
    price = price_of(parse("gemini:gemini-2.5-pro"))
    assert price and said(price).startswith("$1.25 read, $10 written, $0.125 from the cache a million tokens; $2.5 and")


def test_names_are_known_exactly_or_not() -> None:
    found = named("claude-opus-4-1-20250805")
    assert found and found.name == "Claude Opus 4.1"
    for name in ("gpt", "claude", "gpt-5.", "claude-opus-5-5", "", "x" * 5000):
        assert named(name) is None or named(name).name.lower().startswith(name[:3]), name  # type: ignore[union-attr]
    assert named("gpt-99") is None
    assert (
        lineage("gpt-99") == ("GPT", "OpenAI") and lineage("claude-zeta")[0] == "Claude" and lineage("thing")[0] == ""
    )


def test_a_card_asks_nothing_heavy() -> None:
    code = (
        "import sys\nfrom brolly.remote.card import identify\nidentify('openai:gpt-5').json()\n"
        "print(sorted(set(sys.modules) & {'torch', 'numpy', 'httpx', 'keyring', 'pydantic'}))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert found.stdout.strip() == "[]"
