"""One tokenizer, whatever file it came from: text to ids by Hugging Face's `tokenizers`, ids to text by bytes."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from brolly.errors import ContextTooLong, TemplateError, TokenizerError
from brolly.media.text.spelling import Spelling, spelling_of
from brolly.media.text.stream import TextStream

if TYPE_CHECKING:
    from brolly.media.text.template import ChatTemplate

LONG = 4096  # characters


@contextmanager
def guarded(source: str) -> Iterator[None]:
    """Turn whatever `tokenizers` raises, its Rust panics too, into a TokenizerError that names the file."""
    try:
        yield
    except TokenizerError:
        raise
    except BaseException as error:
        # a Rust panic derives from BaseException; an interrupt must pass
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        raise TokenizerError(f"{source} is not a tokenizer that can be read: {error}.") from error


def _read(backend: Any, text: str, special: bool) -> list[int]:
    """The ids of a text; a long one's while other threads of this process run, which `encode` does not let."""
    if len(text) > LONG:
        found: list[int] = backend.encode_batch_fast([text], add_special_tokens=special)[0].ids
        return found
    return backend.encode(text, add_special_tokens=special).ids


class Tokenizer:
    """Text to ids and back.

    `backend` is a tokenizers.Tokenizer; `special_tokens` maps a role ("bos_token") to its text. `prefix` is put before
    every stretch of text that begins the input or follows a control token (SentencePiece's dummy prefix),
    unless it is blank and `squeeze` says that blanks are dropped.
    `clean`, which may be set later, is what a network's texts were passed through before its tokenizer saw them.
    `add_bos` and `add_eos` put those ids around the text, besides what the backend's own post-processor does.
    """

    def __init__(
        self,
        backend: Any,
        *,
        source: str,
        special_tokens: Mapping[str, str] | None = None,
        template: ChatTemplate | None = None,
        prefix: str = "",
        squeeze: bool = False,
        add_bos: bool = False,
        add_eos: bool = False,
        spelling: Spelling | None = None,
    ) -> None:
        self.backend = backend
        self.source = source
        self.special_tokens = dict(special_tokens or {})
        self.template = template
        self.clean: Callable[[str], str] | None = None
        with guarded(source):
            # a file may ask for padding to any length, and for silent truncation
            backend.no_padding()
            backend.no_truncation()
            self._added: dict[int, str] = {i: t.content for i, t in backend.get_added_tokens_decoder().items()}
            self._special_ids = {i for i, t in backend.get_added_tokens_decoder().items() if t.special}
            self._spelling = spelling or spelling_of(backend)
        self._bytes: dict[int, bytes] = {}
        self._plain: Any = None
        self._prefix = prefix
        self._squeeze = squeeze
        self._before = [self.bos_id] if add_bos and self.bos_id is not None else []
        self._after = [self.eos_id] if add_eos and self.eos_id is not None else []
        control = sorted((self._added[i] for i in self._special_ids), key=len, reverse=True)
        self._control = re.compile(f"({'|'.join(map(re.escape, control))})") if prefix and control else None

    @property
    def bos_id(self) -> int | None:
        """The id that begins a text, or None."""
        return self.token_id(self.special_tokens.get("bos_token"))

    @property
    def eos_id(self) -> int | None:
        """The id that ends a text, or None; generation_config may name more."""
        return self.token_id(self.special_tokens.get("eos_token"))

    @property
    def pad_id(self) -> int | None:
        """The id that fills short rows, or None."""
        return self.token_id(self.special_tokens.get("pad_token"))

    @property
    def vocab_size(self) -> int:
        """Tokens, added ones included; a network's table may be longer."""
        return self.backend.get_vocab_size(with_added_tokens=True)

    @cached_property
    def longest(self) -> int:
        """Characters of a text that one token may stand for, at most."""
        spelt = max(map(len, self.backend.get_vocab(with_added_tokens=True)), default=1)
        return spelt if self.backend.normalizer is None else 4 * spelt  # which may make a text shorter

    def token_id(self, text: str | None) -> int | None:
        """The id of one token's exact spelling in the vocabulary, or None."""
        return None if text is None else self.backend.token_to_id(text)

    def encode(
        self, text: str, *, special: bool = True, parse_special: bool = True, most: int | None = None
    ) -> list[int]:
        """Ids of a text; `special` adds what the checkpoint puts around it (a bos), `parse_special` reads control
        tokens that are spelled out in it. A text from a stranger wants the second one off. One that cannot be `most`
        tokens or fewer is not read. Raises ContextTooLong, TokenizerError."""
        if most is not None and len(text) > most * self.longest:
            raise ContextTooLong(
                f"the prompt has {len(text):,} characters, which are more than {most:,} tokens; this model holds "
                f"{most:,}, answer included. Shorten it."
            )
        backend = self.backend if parse_special else self._without_control()
        text = self._cleaned(text)
        with guarded(self.source):
            if not self._prefix:
                ids = _read(backend, text, special)
            else:
                ids = []
                for i, part in enumerate(self._control.split(text) if self._control and parse_special else [text]):
                    if i % 2:
                        ids.append(self.backend.token_to_id(part))
                    elif part.replace("▁", " ").strip() if self._squeeze else part:
                        ids += _read(backend, self._prefix + part, False)
        return [*self._before, *ids, *self._after] if special else ids

    def encode_many(self, texts: Sequence[str]) -> list[list[int]]:
        """The ids of each text as `encode` gives them, of all at once on every core."""
        if self._prefix:
            return [self.encode(text) for text in texts]
        with guarded(self.source):
            found = self.backend.encode_batch_fast([self._cleaned(text) for text in texts])
            return [[*self._before, *one.ids, *self._after] for one in found]

    def encode_pairs(self, first: str, others: Sequence[str], limit: int) -> list[tuple[list[int], list[int], int]]:
        """Of `first` with each of the others: ids with what goes around and between the two, which text each is of (0
        or 1), and how many tokens were cut, of the longer one first, to come down to `limit`."""
        with guarded(self.source):
            texts = [self._prefix + self._cleaned(text) for text in (first, *others)]
            a, *rest = self.backend.encode_batch(texts, add_special_tokens=False)
            room = max(limit - self.backend.num_special_tokens_to_add(True), 0)
            made = []
            for b in rest:
                cut, left = max(len(a) + len(b) - room, 0), a
                if cut:
                    shorter = min(len(a), len(b), room // 2)
                    keep = room - shorter if len(a) > len(b) else shorter
                    if keep < len(a):  # `truncate` changes what it is called on, and the other pairs need it whole
                        left = self.backend.encode(texts[0], add_special_tokens=False)
                        left.truncate(keep)
                    b.truncate(room - keep)
                both = self.backend.post_process(left, b)
                made.append((both.ids, both.type_ids, cut))
            return made

    def mark(self, text: str) -> None:
        """Let a token of the vocabulary be a control token, found as it is spelled, with or without what follows it."""
        for spelt in (text, text.split(None, 1)[0] if text.strip() else ""):
            if (i := self.token_id(spelt)) is not None and self.encode(spelt, special=False) != [i]:
                from tokenizers import AddedToken

                self.backend.add_special_tokens([AddedToken(spelt, special=True, normalized=False)])
                self._added[i] = spelt
                self._special_ids.add(i)
                return

    def _cleaned(self, text: str) -> str:
        text = self.clean(text) if self.clean else text
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise TokenizerError(
                f"The text holds a lone surrogate (U+{ord(text[error.start]):04X}) at character {error.start}, which "
                "no tokenizer can read; decode the input as UTF-8 first."
            ) from error
        return text

    def decode(self, ids: Iterable[int], *, skip_special: bool = True, after: Sequence[int] = ()) -> str:
        """Text of ids; bytes that are no UTF-8 become U+FFFD, ids outside the vocabulary nothing."""
        stream = self.stream(skip_special=skip_special, after=after)
        return "".join([stream.push(int(i)) for i in ids]) + stream.finish()

    def stream(self, *, skip_special: bool = True, after: Sequence[int] = ()) -> TextStream:
        """A decoder that takes one id at a time; its pieces joined equal decode of all the ids.

        With the prompt's ids as `after`, a continuation keeps the space between the prompt and its first word.
        """
        return TextStream(self, skip_special=skip_special, after=after)

    def prompt(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> str:
        """A conversation as the checkpoint's template writes it; `options` are ChatTemplate.render's."""
        if self.template is None:
            raise TemplateError(
                f"{self.source} comes without a chat template: this is a base model, which continues text; "
                "use `brolly run`."
            )
        return self.template.render(messages, **options)

    def encode_chat(self, messages: Sequence[Mapping[str, Any]], **options: Any) -> list[int]:
        """Ids of a conversation; the template writes its own bos."""
        return self.encode(self.prompt(messages, **options), special=False)

    def token_bytes(self, token_id: int) -> bytes:
        """What one id adds to a text that has begun, in bytes; a lone one may be half a character."""
        found = self._bytes.get(token_id)
        if found is None:
            added = self._added.get(token_id)
            if added is not None and self._spelling.literal:
                found = added.encode()
            else:
                found = self._spelling.bytes_of(self._spelled(token_id) if added is None else added)
            self._bytes[token_id] = found
        return found

    def token_text(self, token_id: int) -> str:
        """One id as a reader would show it: its text, with U+FFFD where it is half a character."""
        return self.token_bytes(token_id).decode(errors="replace")

    def is_special(self, token_id: int) -> bool:
        """Whether the id is a control token, which `decode` leaves out."""
        return token_id in self._special_ids

    @property
    def spelling(self) -> Spelling:
        """How this vocabulary spells bytes."""
        return self._spelling

    @property
    def added(self) -> Mapping[str, int]:
        """The texts of all tokens that were added beside the vocabulary, and their ids."""
        return {text: i for i, text in self._added.items()}

    @property
    def control(self) -> Mapping[str, int]:
        """The texts of the control tokens among them, and their ids."""
        return {text: i for i, text in self._added.items() if i in self._special_ids}

    def is_added(self, token_id: int) -> bool:
        """Whether the id was added beside the vocabulary, spelled as it is."""
        return token_id in self._added

    def _spelled(self, token_id: int) -> str:
        if not 0 <= token_id < 1 << 31:
            raise TokenizerError(f"{token_id} is no token id; ids of {self.source} go from 0 to {self.vocab_size - 1}.")
        return self.backend.id_to_token(token_id) or ""

    def _without_control(self) -> Any:
        if self._plain is None:
            from tokenizers import Tokenizer as Backend

            # a copy, because flipping the switch on a shared one races with other threads' encode
            state = json.loads(self.backend.to_str())
            if state["model"]["type"] == "Unigram":
                # unigram would still find a control token as a piece
                for i in self._special_ids & set(range(len(state["model"]["vocab"]))):
                    state["model"]["vocab"][i][0] = f"\0{i}"
                state["added_tokens"] = [t for t in state["added_tokens"] if not t["special"]]
                state["post_processor"] = None
            plain = Backend.from_str(json.dumps(state))
            plain.encode_special_tokens = True
            self._plain = plain
        return self._plain
