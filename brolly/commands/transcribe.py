"""`brolly transcribe`: what is said in files, folders, standard input or before the microphone, while it runs."""

from __future__ import annotations

import argparse
import json
import mimetypes
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from brolly.commands.flags import MODEL, add_adapter, add_loading, add_options, add_remote, given, open_adapted
from brolly.commands.inputs import Errors, files_in
from brolly.commands.took import tell_cost
from brolly.errors import BrollyError, DiskFull, OptionError
from brolly.remote.content import MOST_BYTES

if TYPE_CHECKING:
    from brolly.remote.hearing import Heard
    from brolly.tasks.transcribe import Transcribing
    from brolly.verbs import Segment

FORMATS = ("txt", "srt", "vtt", "tsv", "json")
TIMED = ("srt", "vtt", "tsv")
MICROPHONE = "--mic"
SOUNDS = {".flac", ".opus", ".ogg", ".oga", ".m4a", ".mka", ".mkv", ".webm", ".wv", ".caf", ".w64", ".amr", ".aac"}
EXAMPLES = """examples:
  brolly transcribe org/whisper talk.mp3
  brolly transcribe org/whisper film.mkv --format srt --out film.srt --words
  brolly transcribe org/whisper ./recordings --out ./texts --batch-size 8 --vad
  brolly transcribe openai:whisper-1 talk.mp3 --format srt
  brolly transcribe org/whisper --mic --language en
  curl -sL URL | brolly transcribe org/whisper -

exit code: 0 done, 1 some files failed (they are listed, the others are done), 2 nothing could be done,
130 interrupted: what was heard by then is kept
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import TranscribeOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument("inputs", nargs="*", metavar="FILE", help="sounds, videos, folders of them, or - for stdin")
    command.add_argument("--mic", action="store_true", help="hear the microphone, pause by pause, until interrupted")
    command.add_argument("--format", choices=FORMATS, help="how to write it (default: txt, or as --out ends)")
    command.add_argument("--json", action="store_true", help='print {"text", "language", "segments"} a file')
    command.add_argument("--out", metavar="PATH", help="a file to write, or a folder: a file for each sound")
    command.add_argument("--highlight", action="store_true", help="srt and vtt: underline each word as it is spoken")
    add_options(command, TranscribeOptions)
    add_adapter(command)
    add_loading(command)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.identity.show import clean
    from brolly.verbs import TranscribeOptions

    if args.mic or args.highlight:
        args.vad = args.mic if args.vad is None else args.vad
        args.words = args.highlight or args.words
    options = given(args, TranscribeOptions)
    names = {MICROPHONE: Path("microphone")} if args.mic else sounds(args.inputs)
    form, places = outputs(args, names)
    model, errors = open_adapted(args), Errors()
    for name in names:
        if form == "txt" and len(names) > 1 and not places[name]:
            print(f"{clean(name)}:", flush=True)
        try:
            write(partial(heard, model, name, options, form in TIMED), form, places[name], args, name, len(names) > 1)
        except BrollyError as error:
            if len(names) == 1:
                raise
            errors.add(name, error)
    tell_cost(args, model)
    return errors.close(len(names) - len(errors.rows))


def sounds(words: Sequence[str]) -> dict[str, Path]:
    """The files that words name, and what each is called below a folder of texts; of a folder those whose names are of
    sounds and videos. Raises OptionError."""
    if not words and (sys.stdin is None or sys.stdin.isatty()):
        raise OptionError("there is nothing to hear; give a file, a folder, - or --mic.")
    found: dict[str, Path] = {}
    for word in words or ["-"]:
        if not os.path.isdir(word):
            found[word] = Path("stdin" if word == "-" else Path(word).name)
            continue
        its = [path for path in files_in(Path(word)) if is_sound(path)]
        if not its:
            raise OptionError(f"{word} holds no file whose name is that of a sound or a video; name the files.")
        found |= {str(path): path.relative_to(word) for path in its}
    return found


def is_sound(path: Path) -> bool:
    kind = mimetypes.guess_type(path.name)[0] or ""
    return path.suffix.lower() in SOUNDS or kind.startswith(("audio/", "video/"))


def outputs(args: argparse.Namespace, names: Mapping[str, Path]) -> tuple[str, dict[str, Path | None]]:
    """The format, and where each sound's text goes: None is standard output. Raises OptionError."""
    out = Path(args.out) if args.out else None
    ending = out.suffix[1:].lower() if out and not out.is_dir() else ""
    form = "json" if args.json else args.format or (ending if ending in FORMATS else "txt")
    if out is None:
        if len(names) > 1 and form not in ("txt", "json"):
            raise OptionError(f"{len(names):,} sounds make {len(names):,} {form} files; name a folder with --out.")
        return form, dict.fromkeys(names)
    if len(names) == 1 and ending and not args.out.endswith("/"):
        return form, dict.fromkeys(names, out)
    places: dict[str, Path | None] = {}
    for name, below in names.items():
        place = out / below.with_suffix(f".{form}")
        if place in places.values():  # talk.mp3 beside talk.wav
            place = out / f"{below}.{form}"
        if place in places.values():
            raise OptionError(f"{name} and another sound would both be written to {place}; transcribe them apart.")
        places[name] = place
    return form, places


def heard(model: Any, name: str, options: dict[str, Any], timed: bool) -> Transcribing | Heard:
    """A sound on its way to text; `timed`: with times, or not at all."""
    from brolly.media.audio import microphone

    if not hasattr(model, "target"):
        return model.stream_transcript(microphone() if name == MICROPHONE else name, **options)
    if name == MICROPHONE:
        raise OptionError(f"{model.target} hears files; a Whisper on this disk hears the microphone, too.")
    sound = sys.stdin.buffer.read(MOST_BYTES + 1) if name == "-" else Path(name)
    return model.stream_transcript(sound, timed=timed, **options)


def write(
    begin: Callable[[], Transcribing | Heard], form: str, place: Path | None, args: argparse.Namespace, name: str,
    several: bool = False,
) -> None:  # fmt: skip
    """A sound's text, piece by piece as it is heard; what stops it, an error or ^C, leaves what was heard by then."""
    from brolly.media.audio.subtitles import WRITERS, as_json, clock
    from brolly.progress import bar

    running, begun, kept = begin(), time.perf_counter(), []

    def segments() -> Iterator[Segment]:
        with bar(running.duration, "s", what=Path(name).name, quiet=name == MICROPHONE) as done:
            for segment in running:
                kept.append(segment)
                done.update(min(running.heard, running.duration or running.heard) - done.n)
                done.clear()
                yield segment
                done.refresh()

    person = form == "txt" and place is None and sys.stdout.isatty()
    with opened(place) as file:
        if form == "json":
            try:
                for _ in segments():
                    pass
            finally:
                if kept or sys.exc_info()[0] is None:
                    found = as_json(running.transcript(kept), whole=not args.json)
                    named = {"input": name} if several else {}
                    print(json.dumps(named | found, ensure_ascii=False), file=file, flush=True)
        elif person:
            for segment in segments():
                when = f"[{clock(segment.start)} --> {clock(segment.end)}] " if segment.end else ""
                print(f"{when}{segment.text.strip()}", flush=True)
        else:
            extra = {"highlight": args.highlight} if form in ("srt", "vtt") else {}
            for piece in WRITERS[form](segments(), **extra):
                file.write(piece)
                file.flush()
    if args.verbose and running.heard:
        took = time.perf_counter() - begun
        print(f"{running.heard:.1f} s of sound in {took:.1f} s ({running.heard / took:.1f}×)", file=sys.stderr)


@contextmanager
def opened(place: Path | None) -> Iterator[TextIO]:
    """A file to write into, or standard output. Raises DiskFull, OptionError."""
    if place is None:
        yield sys.stdout
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with place.open("w", encoding="utf-8", newline="\n") as file:
            yield file
    except OSError as error:
        if error.errno == 28:
            raise DiskFull(f"{place} does not fit: the disk is full.") from None
        raise OptionError(f"{place} cannot be written ({error.strerror or error}).") from None
