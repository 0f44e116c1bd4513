"""Guided answers: networks that want nothing in particular, and texts that keep to the grammar nevertheless."""

from __future__ import annotations

import base64
import gc
import json
import re
import weakref
from functools import lru_cache
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

from brolly.engine.guide import After, guide_for, guide_of_grammar, json_rule
from brolly.engine.sampler import Sampler
from brolly.errors import MissingExtra, OptionError
from brolly.media.text import Tokenizer, load_tokenizer
from brolly.verbs import GenerateOptions
from tests.engine.schemas import SCHEMAS

pytest.importorskip("llguidance")

MORE = 5  # rows that the network has beyond the vocabulary
BYTES = {bytes([i]): i for i in range(256)}


@pytest.fixture(scope="session")
def mini() -> Tokenizer:
    """The bundled model's: bytes, merges, control tokens."""
    return load_tokenizer(Path(__file__).parents[2] / "brolly" / "minis" / "mini-llm")


@lru_cache
def closing_of(tokenizer: Tokenizer) -> torch.Tensor:
    """What makes an end likelier: without it, texts and numbers would hardly have one."""
    likes = torch.zeros(tokenizer.vocab_size + MORE)
    for i in range(tokenizer.vocab_size):
        likes[i] = 4 * (tokenizer.token_bytes(i)[:1] in (b'"', b"}", b"]", b","))
    likes[list(stops_of(tokenizer))] = 5
    return likes


def stops_of(tokenizer: Tokenizer) -> list[int]:
    return [] if tokenizer.eos_id is None else [tokenizer.eos_id]


def written(make: Any, tokenizer: Tokenizer, seed: int, *, most: int = 400, after: tuple[int, ...] = ()) -> str | None:
    """What a network of random logits writes under a guide, None where it did not come to an end."""
    size = tokenizer.vocab_size + MORE
    noise = torch.Generator().manual_seed(seed)
    sampler = Sampler(GenerateOptions(temperature=1, seed=seed))
    closing, stop = closing_of(tokenizer), stops_of(tokenizer)
    guide, ids = make(), []
    while not guide.complete:
        if len(ids) == most:
            return None
        logits = torch.randn(size, generator=noise) * 2 + closing
        guide.mask(logits)
        token = sampler.choose(logits)
        if token in stop:
            break
        guide.accept(token)
        ids.append(token)
    return tokenizer.decode(ids, after=after)


def guide(tokenizer: Tokenizer, after: tuple[int, ...] = (), **options: Any) -> Any:
    given = GenerateOptions(**options)
    return guide_for(given, tokenizer, tokenizer.vocab_size + MORE, stops_of(tokenizer), after=after)


@pytest.mark.parametrize("name", SCHEMAS)
def test_every_finished_text_is_valid(name: str, mini: Tokenizer) -> None:
    schema = SCHEMAS[name]
    make, finished = guide(mini, json_schema=schema), 0
    checker = jsonschema.validators.validator_for(schema)(
        schema, format_checker=jsonschema.FormatChecker(("date", "uuid", "ipv4"))
    )
    for seed in range(4):
        text = written(make, mini, seed)
        if text is not None:
            checker.validate(json.loads(text))
            finished += 1
    assert finished, "no text came to an end"


@pytest.mark.parametrize("schema", [{}, {"type": "object"}, {"type": "array"}])
def test_any_json_is_json(schema: dict[str, Any], mini: Tokenizer) -> None:
    make = guide(mini, json_schema=schema)
    texts = [text for seed in range(8) if (text := written(make, mini, seed)) is not None]
    kinds = {"object": dict, "array": list}
    assert texts
    for text in texts:
        assert isinstance(json.loads(text), kinds.get(schema.get("type", ""), object))


def test_blanks_are_few(mini: Tokenizer) -> None:
    """A network that likes nothing but blanks gets one line's worth of them at a place."""
    make = guide(mini, json_schema=SCHEMAS["person"])
    blank = torch.zeros(mini.vocab_size + MORE)
    for i in range(mini.vocab_size):
        data = mini.token_bytes(i)
        blank[i] = 50 if data and not data.strip() else 20 * (data[:1] in b'"},')
    one, ids = make(), []
    while not one.complete and len(ids) < 800:
        logits = blank.clone()
        one.mask(logits)
        ids.append(int(logits.argmax()))
        one.accept(ids[-1])
    text = mini.decode(ids)
    assert one.complete
    assert "\n" in text and not re.search(r"[ \t]{21}", text)


def test_what_json_dumps_writes_is_allowed(mini: Tokenizer) -> None:
    value = {"name": "Ada", "age": 36}
    for text in (json.dumps(value), json.dumps(value, indent=4), json.dumps(value, separators=(",", ":"))):
        one = guide(mini, json_schema=SCHEMAS["person"])()
        for token in mini.encode(text, special=False):
            one.accept(token)
        assert one.complete


def test_an_object_that_names_its_properties_has_no_others(mini: Tokenizer) -> None:
    one = guide(mini, json_schema={"properties": {"a": {"type": "null"}}, "type": "object"})()
    for token in mini.encode('{"', special=False):
        one.accept(token)
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    allowed = {mini.token_bytes(i)[:1] for i in torch.isfinite(logits).nonzero().flatten().tolist()}
    assert allowed == {b"a"}


REGEXES = [
    r"\d{3}-\d{4}", r"^(yes|no)$", r"[A-Z][a-z]{1,8}( [A-Z][a-z]{1,8}){0,2}", r"a/b\\c", "two\nlines", r'"quoted"',
    r"(?i)hello", r"[äöü]{2,4}", r"🦊+x", r"-?[0-9]{1,3}(\.[0-9]{1,2})?", r"[^abc\n]{3}", r"(?:ab|cd)*e",
    r"[a-z]{2}\s[a-z]{2}",
    r"#[0-9a-fA-F]{6}", r"(\d{1,3}\.){3}\d{1,3}", r"x?y?z?",
]  # fmt: skip


@pytest.mark.parametrize("regex", REGEXES)
def test_every_finished_text_matches(regex: str, mini: Tokenizer) -> None:
    make, finished = guide(mini, regex=regex), 0
    for seed in range(8):
        text = written(make, mini, seed)
        if text is not None:
            assert re.fullmatch(regex, text), text
            finished += 1
    assert finished


def test_each_choice_comes_and_nothing_else(mini: Tokenizer) -> None:
    choices = ("yes", "yes, but", "no_way", "größer als 1/2", "two\nlines", '{"a": "b"}', "(x|y)*")
    make = guide(mini, choice=choices)
    assert {written(make, mini, seed) for seed in range(60)} == set(choices)


GBNF = r"""
root ::= "move " square (" to " square)?   # a chess move
square ::= [a-h] [1-8]
"""
LARK = """
start: "move " SQUARE (" to " SQUARE)?
SQUARE: /[a-h][1-8]/
"""


@pytest.mark.parametrize("grammar", [GBNF, LARK])
def test_both_notations_of_grammars_are_read(grammar: str, mini: Tokenizer) -> None:
    make = guide(mini, grammar=grammar)
    for seed in range(10):
        assert re.fullmatch("move [a-h][1-8]( to [a-h][1-8])?", written(make, mini, seed) or "")


def test_text_is_free_until_its_marker(mini: Tokenizer) -> None:
    lark = f"""
start: (call)* TEXT
TEXT: /(.|\\n)*/
head[lazy]: TEXT "<tool>"
call: head arguments "</tool>"
arguments: {json_rule(SCHEMAS["person"])}
"""
    make = guide_of_grammar(lark, mini, mini.vocab_size + MORE, {mini.eos_id})
    free = written(make, mini, 1)
    assert free is not None and "<tool>" not in free
    one = make()
    for token in mini.encode("Let me see. <tool>", special=False):
        one.accept(token)
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    allowed = torch.isfinite(logits).nonzero().flatten().tolist()
    assert allowed and all(mini.token_bytes(i).startswith(b"{") for i in allowed)
    for token in mini.encode('{"name": "A", "age": 3}</tool> Done.', special=False):
        one.accept(token)


def test_thoughts_are_free_until_their_last_token(mini: Tokenizer) -> None:
    x, y = (mini.encode(letter, special=False)[0] for letter in "xy")
    one = After(guide(mini, regex="ab"), x, ends=[mini.eos_id])
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    assert (logits == -torch.inf).nonzero().flatten().tolist() == [mini.eos_id]
    one.accept(y)
    one.accept(x)
    logits.zero_()
    one.mask(logits)
    assert logits[y] == -torch.inf and not one.complete
    for token in mini.encode("ab", special=False):
        one.accept(token)
    assert one.complete


def test_an_end_is_allowed_where_the_grammar_ends_and_nowhere_else(mini: Tokenizer) -> None:
    one = guide(mini, regex="ab?")()
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    assert logits[mini.eos_id] == -torch.inf
    one.accept(mini.encode("a", special=False)[0])
    assert not one.complete
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    assert logits[mini.eos_id] == 0
    assert int(torch.isfinite(logits).sum()) == 2  # "b" and the end
    one.accept(mini.encode("b", special=False)[0])
    assert one.complete


def test_a_stop_token_that_is_plain_text_does_not_end_within(mini: Tokenizer) -> None:
    letter = mini.encode("b", special=False)[0]
    size = mini.vocab_size
    one = guide_for(GenerateOptions(regex="a[bc]d"), mini, size, {letter, size + 77})()  # type: ignore[misc]
    one.accept(mini.encode("a", special=False)[0])
    logits = torch.zeros(size)
    one.mask(logits)
    assert logits[letter] == -torch.inf
    assert torch.isfinite(logits).any()


def test_control_tokens_and_rows_beyond_the_vocabulary_are_out(mini: Tokenizer) -> None:
    one = guide(mini, regex="(.|\n)*")()
    logits = torch.zeros(mini.vocab_size + MORE)
    one.mask(logits)
    allowed = set(torch.isfinite(logits).nonzero().flatten().tolist())
    assert allowed - {mini.eos_id}
    assert not {i for i in range(mini.vocab_size) if mini.is_special(i)} & allowed - {mini.eos_id}
    assert max(allowed) < mini.vocab_size


def test_a_token_that_was_ruled_out_is_an_error(mini: Tokenizer) -> None:
    one = guide(mini, regex="[0-9]+")()
    with pytest.raises(OptionError, match="not within the grammar"):
        one.accept(mini.encode("x", special=False)[0])


def test_two_answers_do_not_disturb_each_other(mini: Tokenizer) -> None:
    make = guide(mini, regex="ab")
    first, second = make(), make()
    a, b = mini.encode("a", special=False)[0], mini.encode("b", special=False)[0]
    first.accept(a)
    second.accept(a)
    first.accept(b)
    assert first.complete and not second.complete


def test_other_dtypes_are_masked_too(mini: Tokenizer) -> None:
    logits = torch.zeros(mini.vocab_size + MORE, dtype=torch.bfloat16)
    same = torch.zeros(mini.vocab_size + MORE)
    make = guide(mini, regex="[0-9]+")
    make().mask(logits)
    make().mask(same)
    assert torch.equal(logits.float(), same) and torch.isfinite(same).any()


# what the library refuses, and what would take it too long

nested: Any = {"type": "null"}
for _ in range(200):
    nested = {"type": "object", "properties": {"a": nested}}
deep_array = '{"items":' * 50_000 + "{}" + "}" * 50_000

circle: Any = {}
circle["properties"] = {"again": circle}

REFUSED = {
    "circular": ({"json_schema": circle}, "Circular"),
    "no JSON value": ({"json_schema": {"enum": [object()]}}, "object"),
    "half a character": ({"regex": "\ud800"}, "surrogate"),
    "half a character in a schema": ({"json_schema": {"const": "\ud800"}}, "refused"),
    "no JSON": ({"json_schema": "{"}, "no JSON"),
    "not a number": ({"json_schema": '{"minimum": NaN}'}, "no JSON"),
    "not a schema": ({"json_schema": "[1]"}, "expected an object"),
    "nothing fits": ({"json_schema": "false"}, "no text satisfies"),
    "endless": ({"json_schema": {"$ref": "#"}}, "no text satisfies"),
    "empty range": ({"json_schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "minimum"),
    "unknown type": ({"json_schema": {"type": "strin"}}, "strin"),
    "not": ({"json_schema": {"not": {"type": "string"}}}, "not"),
    "unique": ({"json_schema": {"type": "array", "uniqueItems": True}}, "uniqueItems"),
    "elsewhere": ({"json_schema": {"$ref": "http://127.0.0.1/x.json"}}, "refused"),
    "one of overlapping": ({"json_schema": {"oneOf": [{"type": "integer"}, {"type": "number"}]}}, "oneOf"),
    "format": ({"json_schema": {"type": "string", "format": "json-pointer"}}, "json-pointer"),
    "too many ways": (
        {"json_schema": {"type": "object", "properties": {f"p{i}": {"type": "null"} for i in range(1500)}}},
        "items",
    ),
    "broken regex": ({"regex": "["}, "unclosed"),
    "look-around": ({"regex": "(?=a)b"}, "look-a"),
    "backreference": ({"regex": r"(a)\1"}, "backreference"),
    "unknown rule": ({"grammar": "start: nowhere"}, "nowhere"),
    "broken GBNF": ({"grammar": "root ::= ("}, "GBNF"),
}
BOMBS = {
    "deep": {"json_schema": nested},
    "deeper than Python": {"json_schema": deep_array},
    "long": {"json_schema": {"enum": ["x" * 300_000]}},
    "multiple": {"json_schema": {"type": "integer", "multipleOf": 99_999_999}},
    "multiples": {"json_schema": {"allOf": [{"type": "integer", "multipleOf": p} for p in (101, 103, 107, 109)]}},
    "product of choices": {
        "json_schema": {"allOf": [{"anyOf": [{"minLength": 10 * i + j} for j in range(10)]} for i in range(8)]}
    },
    "doubling references": {
        "json_schema": {
            "$defs": {f"d{i}": {"type": "object", "properties": {"a": {"$ref": f"#/$defs/d{i + 1}"}, "b": {
                "allOf": [{"$ref": f"#/$defs/d{i + 1}"}, {"minProperties": 1}]}}} for i in range(40)} | {
                    "d40": {"type": "integer", "multipleOf": 99_999_999}},
            "$ref": "#/$defs/d0",
        }
    },
    "multiple within a pattern": {"json_schema": {"type": "string", "pattern": "^(a{1000}){1000}$"}},
    "powers of repetition": {"regex": "((a{100}){100}){100}"},
    "long repetition": {"regex": "(a{1000}){1000}"},
    "multiple in a grammar": {"grammar": 'start: %json {"type": "integer", "multipleOf": 99999999}'},
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_kept_is_refused_in_a_sentence(name: str, mini: Tokenizer) -> None:
    options, reason = REFUSED[name]
    with pytest.raises(OptionError, match=reason) as told:
        guide(mini, **options)
    assert "\n" not in str(told.value) and len(str(told.value)) < 400


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_refused(name: str, mini: Tokenizer) -> None:
    with pytest.raises(OptionError) as told:
        guide(mini, **BOMBS[name])
    assert len(str(told.value)) < 400
    assert guide(mini, regex="ab")() is not None  # what follows is none the worse


def test_a_missing_library_is_told_by_its_extra(mini: Tokenizer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "llguidance", None)
    with pytest.raises(MissingExtra, match=r"brolly\[guided\]"):
        guide(mini, json_schema='{"const": "never compiled before"}')


def test_no_guide_where_none_is_asked_for(mini: Tokenizer) -> None:
    assert guide(mini) is None


def test_a_grammar_does_not_keep_its_tokenizer(mini: Tokenizer) -> None:
    other = load_tokenizer(Path(__file__).parents[2] / "brolly" / "minis" / "mini-llm")
    make = guide(other, regex="abc")
    gone = weakref.ref(other)
    del make, other
    gc.collect()
    assert gone() is None


# every kind of tokenizer


def tiktoken_file(folder: Path) -> Path:
    words = [*BYTES, b"  ", b'{"', b'":', b'", "', b"name", b"age", b" the", "ö".encode(), b"12"]
    lines = [f"{base64.b64encode(word).decode()} {i}" for i, word in enumerate(words)]
    (folder / "qwen.tiktoken").write_text("\n".join(lines))
    return folder


def tekken_file(folder: Path) -> Path:
    words = [*BYTES, b'{"', b'":', b'", "', b"name", b"age", b" the", "ö".encode()]
    (folder / "tekken.json").write_text(json.dumps({
        "config": {"pattern": r"\S+|\s+", "default_vocab_size": len(words) + 4, "default_num_special_tokens": 4,
                   "num_vocab_tokens": len(words), "version": "v3"},
        "vocab": [{"rank": i, "token_bytes": base64.b64encode(word).decode(), "token_str": None}
                  for i, word in enumerate(words)],
        "special_tokens": [{"rank": i, "token_str": name, "is_control": True}
                           for i, name in enumerate(("<unk>", "<s>", "</s>", "[INST]"))],
    }))  # fmt: skip
    return folder


KINDS = {"GPT-2": "ggml-vocab-gpt-2.gguf", "SentencePiece": "ggml-vocab-llama-spm.gguf",
         "tiktoken": tiktoken_file, "tekken": tekken_file}  # fmt: skip


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    source: Any = KINDS[request.param]
    if callable(source):
        return load_tokenizer(source(tmp_path_factory.mktemp("kind")))
    return load_tokenizer(request.getfixturevalue("shared") / "data" / "tokenizers" / source)


@pytest.mark.parametrize("begun", [False, True])
def test_every_kind_of_tokenizer_keeps_to_schema_and_choice(kind: Tokenizer, begun: bool) -> None:
    after = tuple(kind.encode("Say:", special=False)) if begun else ()
    schema = SCHEMAS["function call"]
    for seed in range(2):
        text = written(guide(kind, after, json_schema=schema), kind, seed, after=after)
        if text is not None:
            jsonschema.validate(json.loads(text), schema)
    choices = ("yes", "größer", "no way")
    make = guide(kind, after, choice=choices)
    assert {written(make, kind, seed, after=after) for seed in range(16)} == set(choices)


def test_a_word_may_begin_with_the_space_that_is_dropped(shared: Path) -> None:
    llama = load_tokenizer(shared / "data" / "tokenizers" / "ggml-vocab-llama-spm.gguf")
    word = llama.encode("yes", special=False)
    assert llama.token_bytes(word[0]) == b" yes"
    one = guide(llama, choice=("yes", "no"))()
    one.accept(word[0])
    assert one.complete
    later = guide(llama, tuple(word), choice=("yes", "no"))()
    with pytest.raises(OptionError):
        later.accept(word[0])
