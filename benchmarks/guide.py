"""Two libraries of guided output beside each other: what a grammar, a token's mask and an import cost.

    pip install llguidance xgrammar
    python benchmarks/guide.py TOKENIZER…        a tokenizer's file or folder each

Both walk the same texts over the same bytes of the same tokens, in turns; medians of the turns are told.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

TURNS = 3
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 40},
        "age": {"type": "integer", "minimum": 0, "maximum": 150},
        "mail": {"type": ["string", "null"]},
        "tags": {"type": "array", "items": {"enum": ["red", "green", "blue"]}, "maxItems": 5},
        "home": {
            "type": "object",
            "properties": {"street": {"type": "string"}, "zip": {"type": "string", "pattern": "^[0-9]{5}$"}},
            "required": ["street", "zip"],
            "additionalProperties": False,
        },
    },
    "required": ["name", "age", "mail", "tags", "home"],
    "additionalProperties": False,
}
ADA = {"name": "Ada Lovelace", "age": 36, "mail": None, "tags": ["red", "blue"],
       "home": {"street": "St James's Square 12, London", "zip": "12345"}}  # fmt: skip
NEWS = {"title": "It rains", "parts": [{"kind": "text", "n": 1.5, "words": "Umbrellas sold out by noon. " * 6}] * 3}
CASES = {
    "schema": ("schema", json.dumps(PERSON), json.dumps(ADA)),
    "any JSON object": ("schema", '{"type": "object"}', json.dumps(NEWS)),
    "regex": (
        "regex",
        r"(?:[a-z0-9_.]{1,30}@[a-z0-9]{1,20}\.(?:com|org), ){1,20}end",
        "ada.l@example.org, bob@x.com, end",
    ),
}


def llguidance_of(words: list[bytes], special: list[int], end: int, encode: Any) -> Any:
    """Makes (compile a case, fill a mask, go on by a token)."""
    import llguidance
    import numpy
    from llguidance.numpy import allocate_token_bitmask, fill_next_token_bitmask

    class Words:
        eos_token_id, bos_token_id, tokens, special_token_ids = end, None, words, special

        def __call__(self, text: Any) -> list[int]:
            return encode(text.decode(errors="replace") if isinstance(text, bytes) else text)

    vocabulary = llguidance.LLTokenizer(llguidance.TokenizerWrapper(Words()), n_vocab=len(words), eos_token=end)
    bits = allocate_token_bitmask(1, len(words))

    def compile(kind: str, text: str) -> Any:
        from_text = {"schema": llguidance.LLMatcher.grammar_from_json_schema,
                     "regex": llguidance.LLMatcher.grammar_from_regex}[kind]  # fmt: skip
        matcher = llguidance.LLMatcher(vocabulary, from_text(text), log_level=0)
        assert not matcher.is_error(), matcher.get_error()
        return matcher

    def mask(matcher: Any) -> Any:
        fill_next_token_bitmask(matcher, bits)
        return bits[0].view(numpy.uint8)

    return compile, mask, lambda matcher, token: matcher.consume_token(token)


def xgrammar_of(words: list[bytes], special: list[int], end: int, encode: Any) -> Any:
    """The same by xgrammar."""
    import xgrammar

    hidden = set(special)
    plain = [b"" if i in hidden else word for i, word in enumerate(words)]
    info = xgrammar.TokenizerInfo(plain, vocab_size=len(words), stop_token_ids=[end])
    compiler = xgrammar.GrammarCompiler(info, max_threads=1, cache_enabled=False)
    bits = xgrammar.allocate_token_bitmask(1, len(words))

    def compile(kind: str, text: str) -> Any:
        made = compiler.compile_json_schema(text) if kind == "schema" else compiler.compile_regex(text)
        return xgrammar.GrammarMatcher(made)

    def mask(matcher: Any) -> Any:
        matcher.fill_next_token_bitmask(bits)
        return bits[0].numpy().view("uint8")

    return compile, mask, lambda matcher, token: matcher.accept_token(token)


def walk(library: Any, case: tuple[str, str, str], ids: list[int]) -> tuple[float, list[float]]:
    """Seconds to compile, and to fill the mask before each token of the text, which it must allow."""
    compile, mask, accept = library
    start = time.perf_counter()
    matcher = compile(case[0], case[1])
    compiling, filling = time.perf_counter() - start, []
    for token in ids:
        start = time.perf_counter()
        bits = mask(matcher)
        filling.append(time.perf_counter() - start)
        assert bits[token >> 3] >> (token & 7) & 1, f"token {token} is not allowed"
        assert accept(matcher, token)
    return compiling, filling


def importing(name: str) -> float:
    code = f"import time; t = time.perf_counter(); import {name}; print(time.perf_counter() - t)"
    runs = [
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout) for _ in range(3)
    ]
    return statistics.median(runs)


def main(places: list[str]) -> None:
    import llguidance  # noqa: F401  so that no library is imported within a time
    import xgrammar  # noqa: F401

    from brolly.media.text import load_tokenizer

    libraries = {"llguidance": llguidance_of, "xgrammar": xgrammar_of}
    for name in libraries:
        print(f"import {name}: {importing(name):.3f} s")
    print("| tokens | case | library | compile ms | mask µs, median | mask µs, p99 | mask ms, worst |")
    print("|---|---|---|---|---|---|---|")
    for place in places:
        tokenizer = load_tokenizer(Path(place))
        size = tokenizer.vocab_size
        words = [tokenizer.token_bytes(i) for i in range(size)] + [b"<end>"]
        special = [i for i in range(size) if tokenizer.is_special(i)] + [size]
        encode = lambda text: tokenizer.encode(text, special=False)  # noqa: B023, E731
        ready = {}
        for name, make in libraries.items():
            start = time.perf_counter()
            ready[name] = make(words, special, size, encode)
            print(f"| {size:,} | vocabulary | {name} | {(time.perf_counter() - start) * 1e3:,.0f} | | | |")
        for title, case in CASES.items():
            found: dict[str, list[Any]] = {name: [] for name in libraries}
            for _ in range(TURNS):
                for name, library in ready.items():
                    found[name].append(walk(library, case, encode(case[2])))
            for name, runs in found.items():
                times = sorted(t for _, filling in runs for t in filling)
                print(
                    f"| {size:,} | {title} | {name} | {statistics.median(c for c, _ in runs) * 1e3:,.1f} "
                    f"| {statistics.median(times) * 1e6:,.0f} | {times[int(len(times) * 0.99)] * 1e6:,.0f} "
                    f"| {times[-1] * 1e3:,.2f} |"
                )


if __name__ == "__main__":
    main(sys.argv[1:])
