"""Vendors, traits and prices: each row has a source and a day, names models one by one, and uses words that exist."""

from __future__ import annotations

import json
import re
from dataclasses import fields
from datetime import date
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from brolly.errors import OptionError
from brolly.remote import Remote, dialect, is_remote, parse
from brolly.remote import prices as price_table
from brolly.remote import traits as traits_table
from brolly.remote.dialect import dialects
from brolly.remote.prices import Price, price_of
from brolly.remote.target import COMPATIBLE, Target
from brolly.remote.traits import Traits, concerns, traits_of
from brolly.remote.vendors import DATA, vendors
from brolly.verbs import (
    DrawOptions,
    EmbedOptions,
    GenerateOptions,
    SpeakOptions,
    TranscribeOptions,
    TuneOptions,
    Usage,
)

TUNING = {"completion", "lr", "rank", "alpha"}  # of hosted tuning
OPTIONS = TUNING | {
    f.name
    for kind in (GenerateOptions, EmbedOptions, DrawOptions, SpeakOptions, TranscribeOptions, TuneOptions)
    for f in fields(kind)
}
# a row may take or lack what is no option, too: a role, a field, a way to say it, if the code asks for that word
CODE = "".join(path.read_text() for path in (DATA.parent).rglob("*.py"))
EFFORTS = {"none", "minimal", "low", "medium", "high", "xhigh", "max"}
VERBS = {"chat", "embed", "draw", "transcribe", "speak"}


def known(word: str) -> bool:
    return word in OPTIONS or f'"{word}"' in CODE


def rows(name: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((DATA / f"{name}.json").read_text())[name]
    return found


def names_of(match: str) -> list[str]:
    """Every "vendor:model" that a pattern means: alternatives and options written out, of the rest an example."""
    return _written(list(re._parser.parse(match)))  # type: ignore[attr-defined]


def _written(parts: list[Any]) -> list[str]:
    found = [""]
    for kind, value in parts:
        found = [before + after for before in found for after in _each(str(kind), value)]
    return found


def _each(kind: str, value: Any) -> list[str]:
    match kind:
        case "LITERAL":
            return [chr(value)]
        case "ANY":
            return ["x"]
        case "IN":
            return (
                [{"CATEGORY_DIGIT": "7", "CATEGORY_WORD": "w"}[str(value[0][1])]]
                if len(value) == 1
                else [chr(value[0][1])]
            )
        case "SUBPATTERN":
            return _written(list(value[3]))
        case "BRANCH":
            return [one for branch in value[1] for one in _written(list(branch))]
        case "MAX_REPEAT":
            few, many, inner = value
            return ([""] if few == 0 and many == 1 else []) + [one * max(few, 1) for one in _written(list(inner))]
    raise AssertionError(kind)


@pytest.mark.parametrize("name", ["traits", "prices"])
def test_every_row_has_a_source_and_a_day(name: str) -> None:
    for row in rows(name):
        assert row["source"], row["match"]
        assert re.match(r"https://|[a-z-]+ \d+\.\d|models\.dev, \w{7,} of \d{4}-\d\d-\d\d", row["source"]), row[
            "source"
        ]
        assert date(2026, 1, 1) <= date.fromisoformat(row["seen"]) <= date.today(), row["match"]


@pytest.mark.parametrize("name", ["traits", "prices"])
def test_rows_name_models_one_by_one_and_none_twice(name: str) -> None:
    seen: dict[str, str] = {}
    patterns = [(row["match"], re.compile(row["match"])) for row in rows(name)]
    for match, pattern in patterns:
        assert not re.search(r"\.[*+]", match.replace(":.*", "")), f"{match} is no name"
        for one in names_of(match):
            assert pattern.fullmatch(one) and not pattern.fullmatch(f"x{one}") and one.partition(":")[2], (match, one)
            assert one not in seen, f"{one} is in {match} and in {seen[one]}"
            seen[one] = match
    for one, match in seen.items():
        head = one.partition(":")[0]
        for other, pattern in patterns:
            assert other == match or not (concerns(other, head) and pattern.fullmatch(one)), (one, other)


@pytest.mark.parametrize("name", ["traits", "prices"])
def test_rows_are_of_vendors_that_there_are(name: str) -> None:
    there = set(vendors())
    for row in rows(name):
        assert {one.partition(":")[0] for one in names_of(row["match"])} <= there, row["match"]


def test_traits_are_facts_that_are_understood() -> None:
    for match, traits in traits_table.rows():
        assert traits.thinking in ("", "budget", "adaptive", "effort", "level", "none"), match
        assert set(traits.efforts) <= EFFORTS and len(set(traits.efforts)) == len(traits.efforts), match
        assert set(traits.reads) <= {"image", "audio", "pdf"}, match
        assert set(traits.verbs) <= VERBS and traits.verbs, match
        assert all(map(known, traits.lacks)), (match, traits.lacks)
        assert traits.context is None or 512 <= traits.context <= 1 << 24, match
        assert traits.max_output is None or 256 <= traits.max_output <= (traits.context or 1 << 24), match
        for head in {one.partition(":")[0] for one in names_of(match)}:
            own = {name for names in vendors()[head].dialects.values() for name in names}
            assert not traits.dialects or set(traits.dialects) & own, match


def test_prices_are_dollars_that_can_be_paid() -> None:
    for match, price in price_table.rows():
        for one in filter(None, (price, price.then)):
            assert 0 <= one.read <= 1000 and 0 <= one.write <= 2000, match
            assert one.cached is None or 0 <= one.cached <= one.read, match
            assert one.stored is None or one.stored <= 3 * one.read, match
        assert (price.over is None) == (price.then is None), match
        if price.then:
            assert price.over and price.over >= 32_000 and price.then.read >= price.read, match
        if price.until:
            assert date.fromisoformat(price.until) >= date.fromisoformat(price.seen), match


def test_a_long_prompt_has_its_own_price() -> None:
    price = Price(1.0, 10.0, 0.1, 2.0, over=1000, then=Price(2.0, 20.0))
    assert price.of(Usage(1000, 100)) == pytest.approx((1000 + 1000) / 1e6)
    assert price.of(Usage(1001, 100)) == pytest.approx((2002 + 2000) / 1e6)
    assert price.of(Usage(1000, 0, cached_tokens=500, written_tokens=200)) == pytest.approx((300 + 50 + 400) / 1e6)


def test_a_price_ends_with_its_day(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = next(price for _, price in price_table.rows() if price.until)
    match = next(match for match, price in price_table.rows() if price is ends)
    target = parse(names_of(match)[0])

    class Later(date):
        @classmethod
        def today(cls) -> date:
            return date(2099, 1, 1)

    assert price_of(target) is not None or date.today().isoformat() > ends.until
    monkeypatch.setattr(price_table, "date", Later)
    assert price_of(target) is None


@pytest.mark.parametrize(
    ("reference", "context", "thinking"),
    [
        ("openai:gpt-5", 400_000, "effort"), ("openai-responses:gpt-5", 400_000, "effort"),
        ("openai:gpt-4.1", 1_047_576, "none"), ("openai:o3", 200_000, "effort"),
        ("anthropic:claude-opus-4-1", 200_000, "budget"), ("anthropic:claude-opus-5-5", 1_000_000, "adaptive"),
        ("gemini:gemini-2.5-pro", 1_048_576, "budget"), ("gemini:gemini-3.8-flash", 1_048_576, "level"),
    ],
)  # fmt: skip
def test_the_lineages_are_there(reference: str, context: int, thinking: str) -> None:
    traits = traits_of(parse(reference))
    assert (traits.context, traits.thinking) == (context, thinking)
    assert price_of(parse(reference)) is not None


def test_what_is_not_known_stays_unknown() -> None:
    for reference in ("openai:gpt-5-", "openai:xgpt-5", "openai:gpt-5\n", "https://h/v1#gpt-5", "mistral:gpt-5"):
        assert traits_of(parse(reference)) == Traits() and price_of(parse(reference)) is None


# ---- vendors


def test_vendors_have_addresses_dialects_and_a_reference() -> None:
    for vendor in vendors().values():
        assert vendor.docs.startswith("https://") and date.fromisoformat(vendor.seen) <= date.today(), vendor.name
        assert re.fullmatch("[a-z][a-z-]*", vendor.name) and vendor.title
        if vendor.base:
            scheme = urlsplit(vendor.base).scheme
            assert scheme == ("http" if vendor.local else "https") and not vendor.base.endswith("/"), vendor.name
        else:
            assert vendor.bases or vendor.name == COMPATIBLE, vendor.name
        assert all(re.fullmatch("[A-Z][A-Z0-9_]+", name) for name in (*vendor.keys, *vendor.bases)), vendor.name
        assert not vendor.account or not vendors()[vendor.account].account
        unknown = [word for word in (*vendor.takes, *vendor.lacks) if not known(word)]
        assert not unknown and not set(vendor.takes) & set(vendor.lacks), (vendor.name, unknown)
        target = Target(vendor.name, vendor, vendor.base, "m")
        for verb in vendor.dialects:
            for module in dialects(target, verb):
                assert hasattr(module, "told"), (vendor.name, verb)
        assert vendor.auth and (vendor.keys or vendor.extra or vendor.name == COMPATIBLE or vendor.local), vendor.name


def test_each_auth_is_one_that_there_is() -> None:
    auth = import_module("brolly.remote.auth")
    for vendor in vendors().values():
        assert vendor.auth.removesuffix(auth.IF_ANY) in auth.HEADERS or vendor.auth in auth.LATE, vendor.name


def test_azure_is_reached_behind_its_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(OptionError, match="AZURE_OPENAI_ENDPOINT"):
        parse("azure:mine")
    for said in (
        "https://me.openai.azure.com",
        "https://me.openai.azure.com/",
        "https://me.openai.azure.com/openai/v1/",
    ):
        monkeypatch.setenv("AZURE_OPENAI_ENDPOINT", said)
        assert parse("azure:mine").base == "https://me.openai.azure.com/openai/v1"


# ---- references


def test_what_is_on_this_disk_is_not_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("mini-llm", "org/name", "org/name@main", "./openai:gpt-5", "C:\\models\\x", "hf://org/name", "openai",
                 "compatible:x", "nobody:x", "https://host/model.safetensors", "/tmp/openai:x", ""):  # fmt: skip
        assert not is_remote(name), name
    assert not is_remote(tmp_path) and not is_remote(None)
    for name in ("openai:gpt-5", "ollama:mistral:7b", "mistral:7b", "https://host/v1#m", "http://127.0.0.1:1/v1#m",
                 "bedrock:us.anthropic.claude-opus-4-1-20250805-v1:0", "huggingface:org/name"):  # fmt: skip
        assert is_remote(name), name
    (tmp_path / "openai:gpt-5").mkdir()
    assert not is_remote("openai:gpt-5")  # what lies here comes first


def test_names_keep_their_colons_and_slashes() -> None:
    assert parse("ollama:mistral:7b").model == "mistral:7b"
    assert parse("openrouter:anthropic/claude-opus-5").model == "anthropic/claude-opus-5"
    assert parse("https://h/v1#org/name:tag#2").model == "org/name:tag#2"


# ---- the document


def test_the_tables_of_the_document_are_what_the_code_says() -> None:
    import runpy

    root = Path(__file__).parent.parent.parent
    made = runpy.run_path(str(root / "scripts" / "options_table.py"))
    text = (root / "docs" / "closed-models.md").read_text()
    assert made["table"]() in text and made["addresses"]() in text, "run python scripts/options_table.py"


def test_the_most_that_a_request_costs_is_by_the_dearest_way_to_read() -> None:
    price = Price(1.0, 10.0, 0.1, 1.25, over=1000, then=Price(2.0, 20.0, 0.2, 2.5), heard=3.0)
    assert price.at_most(Usage(1000, 100)) == pytest.approx((3000 + 1000) / 1e6)
    assert price.at_most(Usage(2000, 100)) == pytest.approx((5000 + 2000) / 1e6)
    for _, one in price_table.rows():
        for usage in (Usage(1000, 10), Usage(1000, 10, written_tokens=1000), Usage(900_000, 10, cached_tokens=5)):
            assert one.of(usage) <= one.at_most(usage) + 1e-12


# ---- the modules


PROTOCOLS = {
    "chat": dialect.Chat, "count": dialect.Count, "embed": dialect.Embed, "draw": dialect.Draw,
    "transcribe": dialect.Transcribe, "speak": dialect.Speak, "list": dialect.List, "tune": dialect.Tune,
}  # fmt: skip


def test_a_dialect_is_what_its_verb_says() -> None:
    for row in vendors().values():
        for verb, names in row.dialects.items():
            wanted: Any = PROTOCOLS[verb]
            for name in names:
                module = import_module(f"brolly.remote.dialects.{name}")
                for field in wanted.__annotations__:
                    assert hasattr(module, field), (name, field)
                for method, said in (vars(dialect.Tells) | vars(wanted)).items():
                    if callable(said) and not method.startswith("_"):
                        _, *parameters = signature(said).parameters
                        assert list(signature(getattr(module, method)).parameters) == parameters, (name, method)


@pytest.mark.parametrize("given", [{"extra": {"service_tier": "priority"}}, {"tools": [{"type": "web_search"}]}])
def test_what_has_another_price_than_the_tables_has_none(given: dict[str, Any]) -> None:
    used, asked = {0: Usage(1000, 10)}, [{"role": "user", "content": "Hello"}]
    known, stated = Remote("openai:gpt-4.1", max_cost=1), Remote("openai:gpt-4.1", max_cost=1, price="5,20")
    plain, other = known.prepare_chat(asked, max_tokens=9), known.prepare_chat(asked, max_tokens=9, **given)
    assert known._cost(used, plain) == pytest.approx(0.00208) and known._most(plain)
    assert known._cost(used, other) is None and known._most(other) is None
    assert stated._cost(used, other) == pytest.approx(0.0052) and stated._most(other)


@pytest.mark.parametrize(
    ("amount", "told"),
    [(0.0, "$0.0000"), (1.28, "$1.2800"), (0.05, "$0.0500"), (4.8e-5, "$0.000048"), (1e-8, "$0.000000010")],
)
def test_dollars_are_told_down_to_their_first_figures(amount: float, told: str) -> None:
    assert price_table.dollars(amount) == told
