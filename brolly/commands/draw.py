"""`brolly draw`: pictures of what a text says, or pictures changed as it says."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from brolly.commands.flags import add_options, add_remote, given
from brolly.commands.making import add_making, opened, place_of, text_of, write
from brolly.commands.took import cost_since
from brolly.errors import OptionError

FORMATS = {".png": "png", ".jpg": "jpeg", ".jpeg": "jpeg", ".webp": "webp"}
ENDINGS = {"png": ".png", "jpeg": ".jpg", "webp": ".webp"}
EXAMPLES = """examples:
  brolly draw openai:gpt-image-2.6-flare "a lighthouse in fog" -o fog.png
  brolly draw openai:gpt-image-2.6-flare "a red kite" -o kite.webp -n 3 --size 1024x1024    kite-1.webp, kite-2.webp …
  brolly draw openai:gpt-image-2.6-flare "the same at night" -a fog.png -o night.png
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import DrawOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    add_making(command, "out.png")
    command.add_argument(
        "-a", "--attach", action="append", default=[], metavar="FILE",
        help="a picture that is changed, or drawn after (may be repeated)",
    )  # fmt: skip
    command.add_argument("-n", dest="n", type=int, metavar="N", help=argparse.SUPPRESS)
    add_options(command, DrawOptions)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.verbs import DrawOptions

    options = given(args, DrawOptions)
    place, prompt = place_of(args, "out.png"), text_of(args, "draw")
    several = options.get("n", 1) > 1
    if several and place is None:
        raise OptionError(f"{options['n']} pictures do not go into one stream; name a file with -o.")
    ending = FORMATS.get(place.suffix.lower(), "") if place else ""
    if place and place.suffix and not ending:
        raise OptionError(f"{place.name} ends in {place.suffix}; expected {', '.join(FORMATS)}.")
    model = opened(args, "draw")
    if ending not in ("", "png") and "format" not in options and model.takes("format", "draw"):
        options["format"] = ending
    begun = time.perf_counter()
    try:
        found = model.draw(prompt, [Path(name) for name in args.attach], **options)
    finally:
        model.close()
    rows = []
    for at, picture in enumerate(found.pictures):
        to = place
        if place is not None:
            right = place.suffix if FORMATS.get(place.suffix.lower()) == picture.format else ENDINGS[picture.format]
            to = place.with_name(f"{place.stem}{f'-{at + 1}' if len(found.pictures) > 1 else ''}{right}")
            if place.suffix and right != place.suffix:
                print(f"brolly: it came as {picture.format}: {to}", file=sys.stderr)
        write(to, picture.data)
        rows.append({"path": str(to), "format": picture.format, "bytes": len(picture.data), "prompt": picture.prompt})
        if to is not None and not args.json:
            print(to)
    cost = cost_since(model.budget)
    if args.json:
        usage = found.usage
        said = {"prompt_tokens": usage.prompt_tokens, "completion_tokens": usage.completion_tokens} if usage else None
        dollars = None if model.budget.unknown else model.budget.spent
        print(json.dumps({"pictures": rows, "usage": said, "cost": dollars}, ensure_ascii=False))
    elif args.verbose:
        tokens = f"{found.usage.completion_tokens:,} tokens; " if found.usage else ""
        print(f"{model.describe()}; {time.perf_counter() - begun:.1f} s; {tokens}{cost}", file=sys.stderr)
    return 0
