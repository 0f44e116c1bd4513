"""`brolly index`: documents into a searchable index; later, what changed alone. Shows and searches one, too."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from brolly.commands.flags import add_remote, check_kinds, remotely
from brolly.errors import NotFound, OptionError

EXAMPLES = """examples:
  brolly index ./docs                                    the index lies in ./docs/.brolly-index
  brolly index ./docs --embed org/embedder --images mini-clip
  brolly index ./docs --embed openai:text-embedding-3-small --max-cost 0.5
  brolly index ./docs ./wiki -o ./both                   several places, one index
  brolly index ./docs --show
  brolly index ./docs --search "how do I reset it?" --filter suffix=pdf

Reads PDF, DOCX, HTML, Markdown, program code and plain text; by --images pictures, too. Again, it reads what changed.

exit code: 0 done, 1 some files could not be read (they are listed, the others are done), 2 nothing could be done
"""


def flags(command: argparse.ArgumentParser) -> None:
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    command.add_argument(
        "inputs", nargs="*", metavar="PATH", help="folders and files; with --show or --search an index"
    )
    command.add_argument(
        "--embed", metavar="E", help="an embedder of texts (default: the index's own, else mini-embed)"
    )
    command.add_argument(
        "--images", metavar="CLIP", help="a CLIP or SigLIP, by which pictures are found by what they show"
    )
    command.add_argument(
        "-o", "--out", metavar="INDEX", help="where the index goes (default: .brolly-index beside the documents)"
    )
    command.add_argument("--size", type=int, metavar="N", help="most tokens of a chunk (default: 200)")
    command.add_argument("--anew", action="store_true", help="forget what is there and read everything again")
    command.add_argument("--show", action="store_true", help="what an index holds")
    command.add_argument("--search", metavar="QUESTION", help="the likeliest chunks of an index")
    command.add_argument("--top", type=int, default=5, metavar="N", help="how many of them (default: 5)")
    command.add_argument(
        "--filter", action="append", default=[], metavar="K=V", help="only documents of which this is so"
    )
    command.add_argument("--rerank", metavar="MODEL", help="a reranker that puts them in order")
    command.add_argument("--json", action="store_true", help="print one JSON object")
    add_remote(command)


def run(args: argparse.Namespace) -> int:
    if not args.inputs:
        raise OptionError("there is nothing to index; name a folder or a file: brolly index ./docs")
    if args.show or args.search is not None:
        if len(args.inputs) > 1:
            raise OptionError(f"{len(args.inputs)} indexes are named; expected one.")
        return _show(args) if args.show else _search(args)
    return _build(args)


def _build(args: argparse.Namespace) -> int:
    from brolly.adapt.retrieve import Index
    from brolly.identity.show import clean
    from brolly.progress import bar

    _check(args)
    with bar(None, "file", what="indexing") as progress:

        def step(done: int, total: int, name: str) -> None:
            progress.total = total
            progress.update(done - progress.n)

        try:
            with Index.build(
                args.inputs,
                embed=args.embed,
                images=args.images,
                out=args.out,
                size=args.size,
                anew=args.anew,
                progress=step,
                remote=remotely(args),
            ) as index:
                done, place, n_documents = index.changes, str(index.place), len(index.documents())
        except KeyboardInterrupt:
            print(
                "\nbrolly: interrupted; the index is as it was, and the next run goes on from here.",
                file=sys.stderr,
            )
            raise
    for name, why in done.faults.items():
        print(f"brolly: {clean(name)}: {clean(why.removeprefix(name).lstrip(': '))}", file=sys.stderr)
    pictures = [name for name in done.left if _picture(name)]
    if pictures:
        print(f"brolly: {len(pictures):,} pictures are left out; --images mini-clip takes them in.", file=sys.stderr)
    if args.json:
        said = {
            "index": place,
            "documents": n_documents,
            "added": done.added,
            "changed": done.changed,
            "removed": done.removed,
            "unchanged": done.kept,
            "faults": done.faults,
            "left": done.left,
            "chunks": done.n_chunks,
        }
        print(json.dumps(said, ensure_ascii=False))
    else:
        print(
            f"{clean(place)}: {n_documents:,} documents; {len(done.added):,} new, {len(done.changed):,} changed, "
            f"{len(done.removed):,} gone, {done.kept:,} as before; {done.n_chunks:,} chunks embedded"
        )
    return (1 if n_documents else 2) if done.faults else 0


def _check(args: argparse.Namespace) -> None:
    """The same before anything is read, of an index that may not be there yet."""
    from brolly.adapt.retrieve import Index

    if args.embed is None and not args.anew:
        try:
            with Index(args.out or args.inputs[0]) as index:
                return check_embedder(args, index)
        except NotFound:
            pass
    check_kinds(args, args.embed or "mini-embed")


def _picture(name: str) -> bool:
    from brolly.adapt.retrieve.files import KIND_OF

    return KIND_OF.get("." + name.lower().rpartition(".")[2]) == "image"


def _show(args: argparse.Namespace) -> int:
    from brolly.adapt.retrieve import Index
    from brolly.identity.show import clean

    with Index(args.inputs[0]) as index:
        documents, faults, meta = index.documents(), index.faults(), index.meta
        base = str(index.base)
    made = {"embed": meta.get("texts.reference"), "dimensions": int(meta.get("texts.dimensions", 0))}
    if args.json:
        rows = [
            {"name": d.name, "title": d.title, "chunks": d.n_chunks, "size": d.stamp.size, **dict(d.fields)}
            for d in documents
        ]
        print(
            json.dumps(
                {"documents_in": base, **made, "images": meta.get("images.reference"), "data": rows, "faults": faults},
                ensure_ascii=False,
            )
        )
        return 0
    print(f"documents in  {clean(base)}\nembedded by   {clean(str(made['embed']))} ({made['dimensions']} numbers)")
    if meta.get("images.reference"):
        print(f"pictures by   {clean(meta['images.reference'])}")
    print(f"documents     {len(documents):,}\nchunks        {sum(d.n_chunks for d in documents):,}\n")
    for known in documents:
        print(f"{known.n_chunks:6,}  {clean(known.name)}" + (f"  ({clean(known.title)})" if known.title else ""))
    for name, why in faults.items():
        print(f"  none  {clean(name)}: {clean(why.removeprefix(name).lstrip(': '))}")
    return 0


def _search(args: argparse.Namespace) -> int:
    from brolly.adapt.retrieve import Index
    from brolly.adapt.retrieve.document import plain
    from brolly.adapt.retrieve.filters import parse
    from brolly.identity.show import clean

    filters = parse(args.filter)
    with Index(args.inputs[0], embed=args.embed, images=args.images, remote=remotely(args)) as index:
        check_embedder(args, index)
        hits = index.search(args.search, top=args.top, filters=filters, rerank=reranker(args.rerank))
    if args.json:
        print(json.dumps({"query": args.search, "data": [row(hit) for hit in hits]}, ensure_ascii=False))
        return 0
    for number, hit in enumerate(hits, 1):
        print(f"{number}. {clean(hit.place)}" + (f"  {clean(hit.heading)}" if hit.heading else ""))
        if hit.kind == "text":
            text = clean(plain(hit.text))
            print(f"   {text[:300]}{'…' if len(text) > 300 else ''}")
    if not hits:
        print("nothing was found", file=sys.stderr)
    return 0


def check_embedder(args: argparse.Namespace, index: Any, *others: str) -> None:
    """Flags for models that run elsewhere want one: the index's embedder, or another. Raises OptionError."""
    check_kinds(args, args.embed or index.meta.get("texts.reference", ""), *others)


def reranker(name: str | None) -> Any:
    """The model that was named to put hits in order."""
    from brolly.remote import Remote, is_remote

    if name is None:
        return None
    if is_remote(name):
        Remote(name).rerank()  # which no vendor here does, and it says so
    from brolly.loader import load

    return load(name)


def row(hit: Any) -> dict[str, Any]:
    """A hit as JSON."""
    found = {
        "name": hit.name,
        "path": hit.path,
        "kind": hit.kind,
        "score": hit.score,
        "cosine": hit.cosine,
        "page": hit.page,
        "line": hit.line,
        "start": hit.start,
        "end": hit.end,
        "heading": hit.heading,
        "title": hit.title,
        "text": hit.text,
    }
    return {key: value for key, value in found.items() if value not in (None, "")}
