"""`brolly search`: the pictures of a folder that a text or a picture is most like, listed or as a contact sheet."""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

from brolly.commands.flags import MODEL, add_adapter, add_loading, open_adapted
from brolly.commands.inputs import Errors, files_in
from brolly.errors import BrollyError, NotFound, OptionError, UnsupportedTask

WINDOW = 512  # pictures between looks at the clock
SAVE_EVERY = 30.0  # seconds
EXAMPLES = """examples:
  brolly search org/clip ./photos "a red truck at dusk"
  brolly search org/clip ./photos holiday.jpg --top 30 --html sheet.html

The first search of a folder embeds every picture in it and keeps the vectors there, in .brolly-index-….safetensors;
later ones embed what is new or has changed. It may be deleted at any time.

exit code: 0 done, 1 some images failed (they are listed, the others are done), 2 nothing could be done
"""


def flags(command: argparse.ArgumentParser) -> None:
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument("folder", help="where the pictures are, those of folders within it too")
    command.add_argument("query", help="a text, or an image's path")
    command.add_argument("--top", type=int, default=10, metavar="N", help="how many to show (default: 10)")
    command.add_argument("--html", metavar="FILE", help="write the best as a page with thumbnails")
    command.add_argument("--json", action="store_true", help="print one object: model, query, data of path and score")
    command.add_argument("--batch-size", type=int, default=32, metavar="N", help="images computed together")
    add_adapter(command)
    add_loading(command)


def run(args: argparse.Namespace) -> int:
    from brolly.media.image import looks_like_image
    from brolly.tasks.search import Index, fingerprint

    folder = Path(args.folder).expanduser()
    if not folder.is_dir():
        raise NotFound(f"{folder} is no folder; expected one with pictures.")
    if args.top < 1 or not args.query.strip():
        raise OptionError("--top must be at least 1, and the query must say something.")
    paths = [path for path in files_in(folder) if looks_like_image(path)]
    if not paths:
        raise OptionError(f"{folder} holds no pictures; expected some in it or in folders within it.")
    asked = _file(args.query)
    model, errors = open_adapted(args), Errors()
    if not hasattr(getattr(model, "network", None), "images"):
        raise UnsupportedTask(f"{args.model} gives no vectors of pictures; searching them wants a CLIP or a SigLIP.")
    query = model.embed(asked or args.query).vectors[0]  # what is wrong with it is told before a folder is read
    index = Index(folder, _name(args.model), fingerprint(model), len(query))
    if index.fresh:
        print(f"brolly: {index.path.name} is made anew: {index.fresh}.", file=sys.stderr)
    n_new = _update(model, index, paths, errors, args.batch_size)
    found = index.best(query, args.top)
    if args.html:
        from brolly.commands.sheet import write_sheet

        write_sheet(Path(args.html).expanduser(), args.query, asked, found, _name(args.model), len(index))
    if args.json:
        said = {
            "model": args.model, "query": args.query, "kind": "image" if asked else "text", "n_images": len(index),
            "n_new": n_new, "data": [{"path": str(path), "score": score} for path, score in found],
        }  # fmt: skip
        print(json.dumps(said | ({"errors": errors.rows} if errors.rows else {}), ensure_ascii=False))
    elif args.html:
        print(args.html)
    else:
        from brolly.identity.show import clean

        for path, score in found:
            print(f"{score:6.3f}  {clean(str(path))}")
    return errors.close(len(index))


def _file(query: str) -> Path | None:
    """The picture that a query names, if it names one."""
    from brolly.media.image import looks_like_image

    name = os.path.expanduser(query)  # os.path says no where Path would raise: at a text too long for a name
    return Path(name) if os.path.isfile(name) and looks_like_image(Path(name)) else None


def _name(model: str) -> str:
    """A model's name in a file's: org--name, or its folder's."""
    path = Path(model).expanduser()
    said = path.resolve().name if path.exists() else model
    return re.sub(r"[^\w.@-]+", "--", said).strip("-.")[:80] or "model"


def _update(model: Any, index: Any, paths: list[Path], errors: Errors, batch_size: int) -> int:
    """Embed what is new or has changed. Whatever ends it early, what was done is kept."""
    from brolly.progress import bar

    waiting = list(index.follow(paths))
    n_new, saved = 0, time.monotonic()
    try:
        with bar(len(waiting), "image", what="indexing", quiet=len(waiting) < 2) as progress:
            rest = iter(waiting)
            while window := list(islice(rest, WINDOW)):
                for one in model.stream_embed([path for path, _ in window], batch_size=batch_size):
                    path, entry = window[one.index]
                    progress.update(1)
                    if one.error:
                        index.drop(path)
                        errors.add(str(path), one.error)
                    else:
                        index.add(path, entry, one.vector)
                        n_new += 1
                if time.monotonic() - saved > SAVE_EVERY:
                    _save(index)
                    saved = time.monotonic()
    except KeyboardInterrupt:
        print(f"\nbrolly: interrupted; the index keeps {len(index):,} of {len(paths):,} images.", file=sys.stderr)
        raise
    finally:
        _save(index)
    return n_new


def _save(index: Any) -> None:
    try:
        index.save()
    except BrollyError as error:  # what was found can be shown all the same
        print(f"brolly: the index is not kept: {error}", file=sys.stderr)
