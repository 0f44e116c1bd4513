"""`brolly embed`: a vector for each file, folder, pattern or text, to the screen, as JSON or into a file."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from brolly.commands.flags import MODEL, add_adapter, add_loading, add_options, add_remote, given, open_adapted
from brolly.commands.inputs import Errors, Input, inputs
from brolly.commands.took import tell_cost
from brolly.errors import BrollyError, MissingExtra, OptionError

WINDOW = 2048  # inputs read at once: texts are sorted by length within it
KINDS = ("jsonl", "npz", "parquet")
EXAMPLES = """examples:
  brolly embed org/clip photo.jpg "a dog" --json
  brolly embed org/clip ./photos "./more/*.png" --out vectors.npz
  brolly embed openai:text-embedding-3-large notes.txt --dimensions 256 --json
  cat sentences.txt | brolly embed org/embedder - --out vectors.parquet --role document

exit code: 0 done, 1 some inputs failed (they are listed, the others are done), 2 nothing could be done
"""


def flags(command: argparse.ArgumentParser) -> None:
    from brolly.verbs import EmbedOptions

    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument("model", help=MODEL)
    command.add_argument(
        "inputs", nargs="*", metavar="INPUT",
        help="a file, a folder, a pattern, a text, or - for a text a line of standard input",
    )  # fmt: skip
    command.add_argument(
        "--json", action="store_true", help='print {"model", "data": [{"input", "kind", "embedding"}]}'
    )
    command.add_argument("--out", metavar="FILE", help="write vectors to a .npz, .parquet or .jsonl file")
    kind = command.add_mutually_exclusive_group()
    kind.add_argument("--text", dest="kind", action="store_const", const="text", help="every input is itself a text")
    kind.add_argument("--image", dest="kind", action="store_const", const="image", help="every input is an image")
    add_options(command, EmbedOptions)
    add_adapter(command)
    add_loading(command)
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    from brolly.verbs import EmbedOptions

    options, out = given(args, EmbedOptions), Path(args.out) if args.out else None
    if out and out.suffix[1:] not in KINDS:
        raise OptionError(f"--out is {args.out!r}; expected a name that ends in .{', .'.join(KINDS)}.")
    if out and not out.parent.is_dir():
        raise OptionError(f"{out.parent} is no folder; expected one to write {out.name} into.")
    if not args.inputs and (sys.stdin is None or sys.stdin.isatty()):
        raise OptionError('there is nothing to embed; give a file or a text: brolly embed MODEL "a dog".')
    found = inputs(args.inputs or ["-"], args.kind)
    model, errors = open_adapted(args), Errors()
    rows: dict[int, Any] = {}
    try:
        _embed(model, found, options, rows, errors)
    except KeyboardInterrupt:
        if out and rows:
            write(out, args.model, done(found, rows), errors)
            print(f"\nbrolly: interrupted; {len(rows):,} of {len(found):,} vectors are in {out}.", file=sys.stderr)
        raise
    if out:
        write(out, args.model, done(found, rows), errors)
    elif args.json:
        print(whole(args.model, done(found, rows), errors))
    elif sys.stdout.isatty():
        show(done(found, rows))
    else:
        for one, vector in done(found, rows):
            print(line(one, vector))
    tell_cost(args, model)
    return errors.close(len(rows))


def _embed(model: Any, found: list[Input], options: dict[str, Any], rows: dict[int, Any], errors: Errors) -> None:
    """Fill `rows` with the vector of each place; a single input that fails is raised, of many it is noted."""
    from brolly.progress import bar

    waiting = iter(enumerate(found))
    with bar(len(found), "input", quiet=len(found) < 2) as progress:
        while window := list(islice(waiting, WINDOW)):
            ready: list[tuple[int, Any]] = []
            for place, one in window:
                try:
                    ready.append((place, one.value()))
                except BrollyError as error:
                    _fail(errors, found, place, error)
                    progress.update(1)
            for result in model.stream_embed([value for _, value in ready], **options):
                place = ready[result.index][0]
                if result.error:
                    _fail(errors, found, place, result.error)
                else:
                    rows[place] = result.vector
                progress.update(1)


def _fail(errors: Errors, found: list[Input], place: int, error: Exception) -> None:
    if len(found) == 1:
        raise error
    errors.add(found[place].name, error)


def done(found: list[Input], rows: dict[int, Any]) -> Iterator[tuple[Input, Any]]:
    """Inputs with their vectors, in the order given."""
    return ((one, rows[place]) for place, one in enumerate(found) if place in rows)


# Ways to say it -------------------------------------------------------------------------------------------------------


def line(one: Input, vector: Any) -> str:
    """One JSON object."""
    return json.dumps({"input": one.name, "kind": one.kind, "embedding": numbers(vector)}, ensure_ascii=False)


def whole(model: str, rows: Iterator[tuple[Input, Any]], errors: Errors) -> str:
    """One JSON object of all, with "errors" where there are any."""
    said = {"model": model, "data": [], **({"errors": errors.rows} if errors.rows else {})}
    before, after = json.dumps(said, ensure_ascii=False).split('"data": []', 1)
    return f'{before}"data": [{", ".join(line(one, vector) for one, vector in rows)}]{after}'


def numbers(vector: Any) -> list[Any]:
    """As JSON writes them: nine digits tell every float32 apart."""
    if vector.ndim > 1:
        return [numbers(row) for row in vector]
    return [float(f"{value:.9g}") for value in vector.tolist()]


def show(rows: Iterator[tuple[Input, Any]]) -> None:
    """For a person: how long each vector is and how it begins, and how alike few of them are."""
    import numpy as np

    from brolly.identity.show import clean, columns

    kept = list(rows)
    width = min(max((len(clean(one.name)) for one, _ in kept), default=0), 40)
    for one, vector in kept:
        first = "  ".join(f"{value:+.4f}" for value in vector.ravel()[:4].tolist())
        shape = " × ".join(map(str, vector.shape))
        print(f"{clean(one.name)[:width]:{width}}  {one.kind:5}  {shape} numbers  {first} …"[: max(columns(), 60)])
    if 1 < len(kept) <= 8 and all(vector.ndim == 1 for _, vector in kept):
        vectors = np.stack([vector / max(np.linalg.norm(vector), 1e-12) for _, vector in kept])
        print("\nhow alike (cosine)")
        for (one, _), row in zip(kept, vectors @ vectors.T, strict=True):
            print(f"{clean(one.name)[:width]:{width}}  " + "  ".join(f"{value:+.2f}" for value in row))


def write(path: Path, model: str, rows: Iterator[tuple[Input, Any]], errors: Errors) -> None:
    """A file that appears when it is whole. Raises MissingExtra, DiskFull, CheckpointError."""
    import io

    import numpy as np

    from brolly.checkpoint.safetensors import write_whole

    if path.suffix == ".jsonl":
        write_whole(path, lambda: ((line(one, vector) + "\n").encode(errors="replace") for one, vector in rows), 0)
        return
    kept = list(rows)
    names, kinds = [one.name for one, _ in kept], [one.kind for one, _ in kept]
    buffer = io.BytesIO()
    if path.suffix == ".npz":
        flat = all(vector.ndim == 1 for _, vector in kept)
        vectors = [vector for _, vector in kept] or [np.zeros(0, np.float32)]
        arrays = {"embedding": np.stack(vectors) if flat else np.concatenate(vectors)}
        arrays |= {"input": np.array(names), "kind": np.array(kinds), "model": np.array(model)}
        if not flat:  # a vector a token, one input's behind the other's
            arrays["lengths"] = np.array([len(vector) for vector in vectors])
        np.savez(buffer, allow_pickle=False, **arrays)
    else:
        try:
            import pyarrow as arrow
            import pyarrow.parquet as parquet
        except ImportError:
            raise MissingExtra("Writing .parquet", "parquet") from None
        cells = arrow.array([vector.tolist() for _, vector in kept])
        deep = arrow.types.is_list(cells.type) and arrow.types.is_list(cells.type.value_type)
        kind = arrow.list_(arrow.list_(arrow.float32())) if deep else arrow.list_(arrow.float32())
        names = [name.encode(errors="replace").decode() for name in names]  # one may be no UTF-8
        table = arrow.table({"input": names, "kind": kinds, "embedding": cells.cast(kind)})
        parquet.write_table(table.replace_schema_metadata({"model": model}), buffer)
    write_whole(path, lambda: [buffer.getbuffer()], buffer.getbuffer().nbytes)
