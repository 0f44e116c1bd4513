"""`brolly speak`: a text as sound."""

from __future__ import annotations

import argparse
import json
import sys
import time

from brolly.commands.flags import add_options, add_remote, given
from brolly.commands.making import add_making, opened, place_of, text_of, write
from brolly.commands.took import cost_since
from brolly.errors import OptionError

FORMATS = {
    ".mp3": "mp3", ".opus": "opus", ".ogg": "opus", ".aac": "aac", ".flac": "flac", ".wav": "wav", ".pcm": "pcm",
}  # fmt: skip
EXAMPLES = """examples:
  brolly speak openai:gpt-4o-mini-tts "Good morning." -o morning.mp3
  brolly speak openai:gpt-4o-mini-tts --voice coral --instructions "slowly, warmly" -o story.wav < story.txt
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import SpeakOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    add_making(command, "out.mp3")
    add_options(command, SpeakOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.verbs import SpeakOptions

    options = given(args, SpeakOptions)
    place, text = place_of(args, "out.mp3"), text_of(args, "speak")
    if place is not None and (ending := FORMATS.get(place.suffix.lower())) != options.get("format", ending):
        raise OptionError(f"{place.name} would hold {options['format']}; name it otherwise, or leave --format out.")
    if place is not None and place.suffix and place.suffix.lower() not in FORMATS:
        raise OptionError(f"{place.name} ends in {place.suffix}; expected {', '.join(FORMATS)}.")
    if place is not None and place.suffix:
        options["format"] = FORMATS[place.suffix.lower()]
    model = opened(args, "speak")
    begun = time.perf_counter()
    try:
        found = model.speak(text, **options)
    finally:
        model.close()
    write(place, found.data)
    if args.json:
        print(json.dumps({"path": str(place), "format": found.format, "bytes": len(found.data)}, ensure_ascii=False))
    elif place is not None:
        print(place)
    if args.verbose:
        took = f"{time.perf_counter() - begun:.1f} s; {len(found.data):,} bytes; {cost_since(model.budget)}"
        print(f"{model.describe()}; {took}", file=sys.stderr)
    return 0
