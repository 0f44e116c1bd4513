"""`brolly classify`: the likeliest labels of an image or a text as bars, of many as a table, or as JSON."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from brolly.commands.flags import MODEL, add_adapter, add_loading, add_options, given, open_adapted
from brolly.commands.inputs import Errors, images_in, inputs, lines_of
from brolly.errors import NotFound, OptionError

WIDTH = 24  # of a bar
EXAMPLES = """examples:
  brolly classify org/clip photo.jpg --labels "cat,dog,truck"
  brolly classify org/clip ./photos --labels-file labels.txt --templates templates.txt --top 3
  brolly classify org/dinov2-with-a-head photo.jpg          by the labels that it was trained on
  brolly classify org/bert-with-a-head "What a day!"        a text, by its own labels; - for a text a line of stdin

exit code: 0 done, 1 some images failed (they are listed, the others are done), 2 nothing could be done
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import ClassifyOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument(
        "inputs", nargs="*", metavar="INPUT",
        help="images, patterns, folders, - for paths from stdin; texts and their files where the model labels texts",
    )  # fmt: skip
    labels = command.add_mutually_exclusive_group()
    labels.add_argument("--labels", metavar="A,B,…", help="what may be seen, between commas")
    labels.add_argument("--labels-file", metavar="FILE", help="the same, one a line")
    command.add_argument("--templates", metavar="FILE", help="texts around a label, one a line: a photo of a {}.")
    command.add_argument("--json", action="store_true", help="print one object: model, data of input and labels")
    add_options(command, ClassifyOptions)
    add_adapter(command)
    add_loading(command)


def run(args: argparse.Namespace) -> int:
    from brolly.progress import bar
    from brolly.verbs import ClassifyOptions

    options = given(args, ClassifyOptions)
    labels = _labels(args)
    templates = lines_of(args.templates, "templates") if args.templates else None
    if not args.inputs:
        raise OptionError("there is no image; name a file or a folder.")
    missing: NotFound | None = None
    paths: list[Any] = []
    try:
        paths = images_in(args.inputs)
    except NotFound as error:  # perhaps it is a text
        missing = error
    model, errors = open_adapted(args), Errors()
    given_in = paths
    if hasattr(model, "target"):  # it has no classifier, and says so
        model.classify()
    network = model.network
    if hasattr(network, "scores") and getattr(network.config, "labels", None):
        every = inputs(args.inputs)
        paths, given_in = [one.name for one in every], [one.value() for one in every]
    elif missing:
        raise missing
    options.setdefault("top", 5 if len(paths) == 1 or args.json else 1)
    width = min(max(len(str(path)) for path in paths), 60)
    rows: list[dict[str, Any]] = []
    with bar(len(paths), "input", quiet=len(paths) < 2) as progress:
        found = model.stream_classify(given_in, labels, templates=templates, **options)
        for path, result in zip(paths, found, strict=True):
            progress.update(1)
            if isinstance(result, Exception):
                if len(paths) == 1:
                    raise result
                errors.add(str(path), result)
                continue
            pairs = list(zip(result.labels, result.probabilities, strict=True))
            rows.append({"input": str(path), "labels": [{"label": n, "probability": p} for n, p in pairs]})
            if not args.json:
                progress.write(_bars(pairs) if len(paths) == 1 else _row(str(path), pairs, width), sys.stdout)
    if args.json:
        said = {"model": args.model, "data": rows} | ({"errors": errors.rows} if errors.rows else {})
        print(json.dumps(said, ensure_ascii=False))
    return errors.close(len(rows))


def _labels(args: argparse.Namespace) -> tuple[str, ...] | None:
    if args.labels_file:
        return lines_of(args.labels_file, "labels")
    if args.labels is None:
        return None
    return tuple(label.strip() for label in args.labels.split(",") if label.strip())


def _bars(pairs: list[tuple[str, float]]) -> str:
    """One image: a line a label."""
    from brolly.identity.show import clean

    width = min(max(len(clean(label)) for label, _ in pairs), 40)
    return "\n".join(
        f"{clean(label)[:40]:{width}}  {share:6.1%}  {_bar(share)}".rstrip() for label, share in pairs
    )  # fmt: skip


def _bar(share: float) -> str:
    """Eighths of a block tell small shares apart."""
    eighths = round(share * WIDTH * 8)
    return "█" * (eighths // 8) + " ▏▎▍▌▋▊▉"[eighths % 8].strip()


def _row(name: str, pairs: list[tuple[str, float]], width: int) -> str:
    """One of many: its name and its labels in a line."""
    from brolly.identity.show import clean

    name = clean(name)
    short = name if len(name) <= width else "…" + name[1 - width :]
    return f"{short:{width}}  " + "  ".join(f"{share:6.1%} {clean(label)}" for label, share in pairs)
