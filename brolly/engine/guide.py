"""Answers that keep within a grammar: JSON Schema, regular expressions, choices, Lark and GBNF, by llguidance.

A grammar is compiled once and copied for each answer. Knows tokens as bytes, and neither networks nor sampling.
"""

from __future__ import annotations

import json
import re
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any
from weakref import WeakKeyDictionary, ref

import numpy as np
from torch import Tensor

from brolly.engine.job import Guide
from brolly.engine.schema import TEXT, compiled, measured
from brolly.engine.trial import limits, try_grammar
from brolly.errors import MissingExtra, OptionError
from brolly.media.text import Tokenizer
from brolly.verbs import GenerateOptions

KEPT = 64  # compiled grammars
PATIENCE = 1.0  # seconds of processor for one token, in the thread that writes everybody's
_lock = threading.Lock()
_vocabularies: WeakKeyDictionary[Tokenizer, dict[int, tuple[Any, dict[int, int]]]] = WeakKeyDictionary()
_compiled: WeakKeyDictionary[Tokenizer, OrderedDict[tuple[int, str], Any]] = WeakKeyDictionary()


def guide_for(
    options: GenerateOptions, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int],
    *, after: Sequence[int] = (),
) -> Callable[[], Guide] | None:  # fmt: skip
    """What makes a guide for each answer, or None where the options ask for none.

    `vocab_size` is the network's number of rows; `stop_ids` end an answer, where the grammar may end; `after` is what
    the text follows, as in `Tokenizer.stream`.
    Raises MissingExtra, and OptionError with the reason why a grammar is refused.
    """
    if options.json_schema is not None:
        option, grammar = "json_schema", _from_schema(options.json_schema)
    elif options.regex is not None:
        option, grammar = "regex", _from_regex(options.regex, "regex")
    elif options.choice:
        option, grammar = "choice", _from_regex("|".join(map(_literal, options.choice)), "choice")
    elif options.grammar is not None:
        option, grammar = "grammar", _from_grammar(options.grammar)
    else:
        return None
    return _guides(grammar, option, tokenizer, vocab_size, stop_ids, after)


def guide_of_grammar(
    grammar: str, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int], *, after: Sequence[int] = ()
) -> Callable[[], Guide]:
    """What makes a guide for each answer that a Lark or a GBNF grammar allows.

    Lark is llguidance's: `json_rule(schema)` stands for a value, `<|name|>` for a control token of the tokenizer, and
    a rule marked `[lazy]` ends as soon as it can, so that text is free up to a marker.
    """
    return _guides(_from_grammar(grammar), "grammar", tokenizer, vocab_size, stop_ids, after)


def json_rule(schema: Mapping[str, Any] | bool | str) -> str:
    """A JSON Schema as an expression of a Lark grammar, as strict as `json_schema` is."""
    return "%json " + json.dumps(compiled(schema))


class Constraint:
    """A Guide: one answer's place in a grammar. A `matcher` of its own; V rows of logits."""

    def __init__(
        self, matcher: Any, vocab_size: int, stops: np.ndarray, named: np.ndarray, bare: dict[int, int] | None
    ) -> None:
        self._matcher, self._size = matcher, vocab_size
        self._bare = bare  # of the first token: those that lose a space there, and what they then are
        self._stops = stops  # ids that end an answer
        self._named = named  # those of them that are control tokens, which a grammar may name
        self._bits: np.ndarray | None = None  # (V + 1,) what may come next; the last one, whether the text may end
        self._ended = False

    def mask(self, logits: Tensor) -> None:
        """Set to -inf, in place, the logits (V,) of tokens that may not come next. Raises OptionError."""
        bits = self._next()
        allowed = bits[:-1].copy()
        named = self._named[allowed[self._named]]
        allowed[self._stops] = bits[-1]
        allowed[named] = True
        if not allowed.any():
            raise OptionError(
                "the text is complete, and this model has no token to end it with."
                if bits[-1]
                else "this model's vocabulary has no token with which the text could go on within the grammar."
            )
        if logits.device.type != "cpu" or logits.dtype.itemsize != 4:
            from torch import from_numpy

            logits.masked_fill_(from_numpy(~allowed).to(logits.device), float("-inf"))
            return
        numbers = logits.detach().numpy()  # torch would wake its threads for it
        if np.count_nonzero(allowed) * 8 < len(allowed):
            kept = np.flatnonzero(allowed)
            values = numbers[kept]
            numbers.fill(-np.inf)
            numbers[kept] = values
        else:
            np.copyto(numbers, -np.inf, where=~allowed)

    def accept(self, token: int) -> None:
        """The token that was chosen. Raises OptionError at one that the grammar does not allow here."""
        bits, self._bits = self._next(), None
        bare, self._bare = self._bare or {}, None
        if token in self._stops and not (token in self._named and bits[token]) and bits[-1]:
            self._ended = True
        elif not self._matcher.consume_token(bare.get(token, token)):
            if bits[token]:
                self._check()  # a limit was reached
            raise OptionError(f"token {token} is not within the grammar at this place.")

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but an end."""
        if self._ended or self._matcher.is_stopped():
            return True
        return self._matcher.is_accepting() and not self._next()[:-1].any()

    def _next(self) -> np.ndarray:
        if self._bits is None:
            start = time.thread_time()
            data = self._matcher.compute_bitmask()
            self._check()
            if time.thread_time() - start > PATIENCE:
                raise OptionError(f"the grammar takes more than {PATIENCE:g} s a token; make it simpler.")
            bits = np.unpackbits(np.frombuffer(data, np.uint8), count=self._size + 1, bitorder="little")
            self._bits = bits.view(bool)
            if self._bare:
                spaced, other = np.fromiter(self._bare, np.int64), np.fromiter(self._bare.values(), np.int64)
                self._bits[spaced] = self._bits[other] & (other >= 0)
        return self._bits

    def _check(self) -> None:
        if self._matcher.is_error():
            raise OptionError(f"the grammar cannot be followed further ({_sentence(self._matcher.get_error())}).")


class After:
    """A Guide that begins behind a token: what a thinking model writes up to it is free, but for an end (`ends`)."""

    def __init__(self, make: Callable[[], Guide], token: int, ends: Collection[int] = ()) -> None:
        self._guide, self._token, self._ends = make(), token, list(ends)
        self._begun = False

    def mask(self, logits: Tensor) -> None:
        """Set to -inf, in place, the logits (V,) of tokens that may not come next. Raises OptionError."""
        if self._begun:
            self._guide.mask(logits)
        elif self._ends:
            logits[[i for i in self._ends if i < len(logits)]] = float("-inf")

    def accept(self, token: int) -> None:
        """The token that was chosen. Raises OptionError at one that the grammar does not allow here."""
        if self._begun:
            self._guide.accept(token)
        else:
            self._begun = token == self._token

    @property
    def complete(self) -> bool:
        """Whether nothing may follow but an end."""
        return self._begun and self._guide.complete


def _guides(
    grammar: str, option: str, tokenizer: Tokenizer, vocab_size: int, stop_ids: Collection[int], after: Sequence[int]
) -> Callable[[], Guide]:
    if len(grammar) > 2 * TEXT:
        raise OptionError(f"{option} has {len(grammar):,} characters once written out; at most {2 * TEXT:,} are read.")
    original = _matcher(grammar, option, tokenizer, vocab_size)
    stops = np.array(sorted(i for i in set(stop_ids) if i < vocab_size), np.int64)
    named = np.array([i for i in stops if tokenizer.is_special(int(i))], np.int64)
    begun = any(tokenizer.token_bytes(i) and not tokenizer.is_special(i) for i in after)
    bare = None if begun or not tokenizer.spelling.strip else _vocabulary(tokenizer, vocab_size)[1]

    def make() -> Guide:
        return Constraint(original.deep_copy(), vocab_size, stops, named, bare)

    return make


def _matcher(grammar: str, option: str, tokenizer: Tokenizer, vocab_size: int) -> Any:
    """The grammar, compiled for this vocabulary; the last ones are kept."""
    key = (vocab_size, grammar)
    with _lock:
        kept = _compiled.setdefault(tokenizer, OrderedDict())
        if key in kept:
            kept.move_to_end(key)
            return kept[key]
    import_llguidance()
    from llguidance import LLMatcher

    if reason := try_grammar(grammar):
        raise OptionError(f"{option} is refused: {_sentence(reason)}.")
    found = LLMatcher(_vocabulary(tokenizer, vocab_size)[0], grammar, log_level=0, limits=limits())
    first = found.deep_copy()
    first.compute_bitmask()  # whose tokens go further than the trial's bytes
    if first.is_error():
        raise OptionError(f"{option} is refused: {_sentence(first.get_error())}.")
    with _lock:
        kept[key] = found
        while len(kept) > KEPT:
            kept.popitem(last=False)
    return found


def import_llguidance() -> Any:
    """The library. Raises MissingExtra."""
    try:
        import llguidance
    except ImportError:
        raise MissingExtra("Keeping an answer within a grammar", "guided") from None
    return llguidance


class _Words:
    """A tokenizer as llguidance wants it: each row's bytes, and one row more, an end of its own.

    Which tokens end an answer differs by job, and a published vocabulary may have none.
    """

    bos_token_id = None

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        self._tokenizer = ref(tokenizer)  # llguidance keeps this object, and would keep the tokenizer for ever
        self.tokens = [tokenizer.token_bytes(i) for i in range(vocab_size)] + [b"<|the text ends|>"]
        self.special_token_ids = [i for i in range(vocab_size) if tokenizer.is_special(i)] + [vocab_size]
        self.eos_token_id = vocab_size
        special = set(self.special_token_ids)
        self._by_bytes = {data: i for i, data in enumerate(self.tokens) if data and i not in special}
        self._widest = max(map(len, self._by_bytes), default=0)

    def __call__(self, text: bytes | str) -> list[int]:
        """Ids that spell just this; the tokenizer's own where it puts nothing before them, as SentencePiece may."""
        data = text if isinstance(text, bytes) else text.encode()
        tokenizer = self._tokenizer()
        assert tokenizer, "a grammar outlived its tokenizer"
        ids = tokenizer.encode(data.decode(errors="replace"), special=False)
        plain = all(i < self.eos_token_id and not tokenizer.is_special(i) for i in ids)
        if plain and b"".join(map(tokenizer.token_bytes, ids)) == data:
            return ids
        return self._longest(data)

    def bare(self) -> dict[int, int]:
        """Of each token that begins with a space, the one without it, or -1."""
        spaced = ((i, data) for i, data in enumerate(self.tokens) if data[:1] == b" ")
        return {i: self._by_bytes.get(data[1:], -1) for i, data in spaced}

    def _longest(self, data: bytes) -> list[int]:
        ids: list[int] = []
        while data:
            ends = range(min(len(data), self._widest), 0, -1)
            found = next((self._by_bytes[data[:end]] for end in ends if data[:end] in self._by_bytes), None)
            if found is None:
                break
            ids.append(found)
            data = data[len(self.tokens[found]) :]
        return ids


def _vocabulary(tokenizer: Tokenizer, vocab_size: int) -> tuple[Any, dict[int, int]]:
    """The tokenizer's tokens as llguidance's trie, made once, and of those that begin with a space the ones without."""
    from llguidance import LLTokenizer, TokenizerWrapper

    with _lock:
        made = _vocabularies.setdefault(tokenizer, {})
        if vocab_size not in made:
            words = _Words(tokenizer, vocab_size)
            trie = LLTokenizer(TokenizerWrapper(words), n_vocab=vocab_size + 1, eos_token=vocab_size)
            made[vocab_size] = trie, words.bare()
        return made[vocab_size]


def _from_schema(schema: str) -> str:
    return json.dumps({"grammars": [{"json_schema": compiled(schema)}]})


def _from_regex(regex: str, option: str) -> str:
    measured(regex, option)
    llguidance = import_llguidance()
    return str(llguidance.LLMatcher.grammar_from_regex(regex))


def _from_grammar(grammar: str) -> str:
    measured(grammar, "grammar")
    llguidance = import_llguidance()
    if re.search(r"^[ \t]*[\w-]+[ \t]*::=", grammar, re.MULTILINE):
        from llguidance.gbnf_to_lark import GbnfToLarkError, gbnf_to_lark

        try:
            grammar = gbnf_to_lark(grammar)
        except (GbnfToLarkError, IndexError) as error:
            raise OptionError(f"grammar is no GBNF: {_sentence(str(error))}.") from None
        except RecursionError:
            raise OptionError("grammar nests too deep; give its inner parts rules of their own.") from None
    return str(llguidance.LLMatcher.grammar_from_lark(grammar))


def _literal(text: str) -> str:
    """A text as an expression that matches it alone."""
    return re.sub(r"[\W_]", lambda found: f"\\x{{{ord(found[0]):x}}}", text)


def _sentence(reason: str) -> str:
    """A library's report in one line, without its copy of the grammar."""
    line = " ".join(re.split("<state>|<non-verbose/>", reason)[0].split())
    if line.startswith("NoExtension"):
        return "no text satisfies it"
    if "regex parse error" in line:
        line = line.rsplit("error: ", 1)[-1]
    return line.split(" 1 | ")[0][:300].rstrip(". ")
