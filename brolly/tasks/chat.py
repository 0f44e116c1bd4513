"""A conversation at the terminal: history, commands, several lines; ^C stops the answer and not the program."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

from brolly.errors import BrollyError, OptionError
from brolly.tasks.attach import attached, content, reads_of, within_budget
from brolly.verbs import GenerateOptions, Piece, Usage, gather, read_options

HELP = """/clear         forget the conversation
/system TEXT   set the instruction that comes first
/set NAME N    set an option: /set temperature 0.5
/attach FILE   a picture, a sound, a PDF or a text that goes with the next question
/undo          take back the last question and its answer
/save FILE     write the conversation as JSON
/stats         tokens of the last answer
/help          this
/exit          leave (^D too)
A line that ends in \\ goes on; three double quotes begin and end a longer text. ^C stops an answer."""


CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def visible(text: str) -> str:
    """What a model writes, for a terminal: nothing in it that a terminal would obey but tabs and ends of lines."""
    return CONTROL.sub("�", text.replace("\r\n", "\n"))


class Chatty(Protocol):
    """What a conversation needs of a model."""

    def stream_chat(self, messages: list[dict[str, Any]], **options: Any) -> Any: ...


class Conversation:
    """One model, its options, and what has been said."""

    def __init__(
        self, model: Chatty, options: dict[str, Any], system: str | None, say: Callable[[str], None] | None = None,
        adapter: str | None = None,
    ) -> None:  # fmt: skip
        self.model, self.options, self.system = model, options, system
        self.beside = {"adapter": adapter} if adapter else {}
        self.say = say or self._print
        self.said: list[dict[str, Any]] = []
        self.parts: list[Any] = []  # files for the next question
        self.n_tokens = 0
        self.usage: Usage | None = None
        self.dim = sys.stdout.isatty()

    @staticmethod
    def _print(text: str) -> None:
        sys.stdout.write(text)
        sys.stdout.flush()

    def talk(self) -> int:
        """Read, answer, repeat, until /exit or the end of input."""
        self._remember_lines()
        while True:
            try:
                text, quoted = self._read()
            except EOFError:
                self.say("\n")
                return 0
            except KeyboardInterrupt:
                self.say("\n(^D or /exit to leave)\n")
                continue
            except UnicodeDecodeError as error:
                self.say(f"This line is not text ({error.reason} at byte {error.start}).\n")
                continue
            if text in ("/exit", "/quit", "/bye"):
                return 0
            try:
                if text.startswith("/") and not quoted:
                    self.command(text)
                elif text:
                    self.answer(text)
            except BrollyError as error:
                self.say(f"{error}\n")

    def answer(self, text: str) -> None:
        """One turn; an error or a ^C before the first word leaves the history as it was.

        Thoughts are shown dimmed at a terminal, and stand apart in the history, for the template to show or leave out.
        """
        self.said.append({"role": "user", "content": content(self.parts, text)})
        kept: list[Piece] = []
        self.n_tokens, self.usage = 0, None
        first = [{"role": "system", "content": self.system}] if self.system else []
        options = within_budget(self.model, self.options)
        pieces = self.model.stream_chat(first + self.said, **options, **self.beside)
        stopped = False
        try:
            self._show(pieces, kept)
        except KeyboardInterrupt:
            stopped = True
            self.say(" (stopped)")
        except BaseException:
            self.said.pop()
            raise
        finally:
            if close := getattr(pieces, "close", None):
                close()  # the connection, where the model runs elsewhere
        found = gather(kept)
        if stopped:  # what a vendor wants back is of whole answers
            found = replace(found, opaque=())
        if found.finish_reason == "content_filter":
            self.say(" (kept back by the vendor's rules)")
        elif not found.text and not stopped and found.finish_reason != "stop":
            self.say(f"(no answer: {found.finish_reason})")
        self.say("\n")
        if found.text:
            self.said.append(found.message)
            self.parts = []
        else:
            self.said.pop()

    def _show(self, pieces: Iterable[Piece], kept: list[Piece]) -> None:
        words = thoughts = False
        for piece in pieces:
            kept.append(piece)
            if piece.reasoning and self.dim:
                self.say(f"\033[2m{visible(piece.reasoning)}\033[0m")
            if piece.text and thoughts and not words and self.dim:
                self.say("\n\n")
            self.say(visible(piece.text) if self.dim else piece.text)
            words, thoughts = words or bool(piece.text), thoughts or bool(piece.reasoning)
            self.usage = piece.usage or self.usage
            self.n_tokens = self.usage.completion_tokens if self.usage else self.n_tokens + len(piece.tokens)

    def attach(self, path: str) -> None:
        """A file goes with the next question. Raises NotFound, MediaError, OptionError."""
        if not path:
            raise OptionError("/attach takes a file.")
        self.parts.append(attached(path, *reads_of(self.model)))

    def command(self, text: str) -> None:
        """What begins with a slash. Raises OptionError."""
        name, _, rest = text[1:].partition(" ")
        match name:
            case "help" | "?":
                self.say(HELP + "\n")
            case "clear":
                self.said, self.parts = [], []
            case "attach":
                self.attach(rest.strip())
                self.say(f"{Path(rest.strip()).name} goes with the next question\n")
            case "system":
                self.system = rest.strip() or None
            case "undo":
                del self.said[-2:]
            case "set":
                self._set(*rest.split(maxsplit=1))
            case "save":
                try:
                    Path(rest.strip()).expanduser().write_text(
                        json.dumps(self.said, ensure_ascii=False, indent=1), encoding="utf-8"
                    )
                except OSError as error:
                    raise OptionError(f"{rest.strip()!r} cannot be written ({error.strerror}).") from None
            case "stats":
                self.say(f"{self.n_tokens} tokens in the last answer, {len(self.said)} messages{self._spent()}\n")
            case _:
                raise OptionError(f"/{name} is no command; /help lists them.")

    def _set(self, *words: str) -> None:
        if len(words) != 2 or words[0] not in GenerateOptions.__dataclass_fields__:
            raise OptionError(
                f"/set takes an option and its value; options are {', '.join(GenerateOptions.__dataclass_fields__)}."
            )
        kind = str(GenerateOptions.__dataclass_fields__[words[0]].type)
        try:
            value: Any = (words[1],) if kind.startswith("tuple") else words[1]
            if "str" not in kind or words[1] == "null":
                value = json.loads(words[1])
            if words[0] == "logit_bias" and isinstance(value, dict):
                value = {int(token): bias for token, bias in value.items()}
        except ValueError:
            raise OptionError(f"{words[1]!r} is not a number.") from None
        options = self.options | {words[0]: value}
        self._check(options)
        self.options = options

    def _check(self, options: dict[str, Any]) -> None:
        """What is wrong with options is told when they are set. Raises OptionError."""
        read_options(GenerateOptions, options)
        if own := getattr(self.model, "options", None):
            own(**options)
        elif check := getattr(self.model, "check", None):
            check(self.model.prepare_chat([{"role": "user", "content": "Hello"}], **options))  # type: ignore[attr-defined]

    def _spent(self) -> str:
        """What a model that runs elsewhere told of its last answer, and what all of them cost."""
        budget = getattr(self.model, "budget", None)
        if budget is None:
            return ""
        cost = f"${budget.spent:.7f}".rstrip("0").rstrip(".") + (
            f" and {budget.unknown} answers of unknown price" if budget.unknown else ""
        )
        used = self.usage
        if used is None:
            return f"; {cost} so far"
        read = f"{used.prompt_tokens} read, {used.cached_tokens} of them cached; {used.reasoning_tokens} thoughts"
        return f"; {read}; {cost} so far"

    def _read(self) -> tuple[str, bool]:
        """A line, or several: continued by a backslash, or between triple quotes (True; no command begins there)."""
        ask = ">>> " if sys.stdin.isatty() else ""
        line = input(ask)
        if line.lstrip().startswith('"""'):
            lines = [line.lstrip()[3:]]
            while not lines[-1].rstrip().endswith('"""'):
                lines.append(input("... " if ask else ""))
            return "\n".join(lines).rstrip().removesuffix('"""').strip(), True
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input("... " if ask else "")
        return line.strip(), False

    @staticmethod
    def _remember_lines() -> None:
        """Arrow keys and history, where the terminal has them."""
        if sys.stdin.isatty():
            try:
                import readline  # noqa: F401
            except ImportError:
                return
