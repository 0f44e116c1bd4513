"""Documents: how fast an index is embedded, filled and searched, beside sentence-transformers and exact float32.

    python benchmarks/retrieve.py [--case embed|index|search]

- embed: a folder of sentence-transformers of MiniLM-L6's geometry (random weights; the same file for both), the chunks
  that our index makes of made-up papers. All have all cores; they are timed in turn in processes of their own. Ours
  computes in bfloat16 where the processor does, as every index; sentence-transformers in float32, its default, and in
  bfloat16.
- index: Markdown files → index with mini-embed: files and chunks a second, the most memory, what a second run costs.
- search: 100,000 vectors of 384 numbers in 2,000 clusters, in an index on the disk. The best ten beside those of exact
  float32 in numpy; vectors alone, and both ways joined as `Index.search` does it, without embedding the question.

Times are by the clock; beside each stands the process's own CPU time, which says more where the machine is shared.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from benchmarks.common import WORDS, Worker, arguments, median, random_bert, serve, show, table

PEERS = ("brolly", "sentence-transformers", "sentence-transformers, bfloat16")
CASES = ("embed", "index", "search")
N_CHUNKS, DIM, N_CLUSTERS, N_QUESTIONS = 100_000, 384, 2_000, 50


def papers(folder: Path, n: int, seed: int = 0) -> Path:
    """Markdown of made-up words: headings, and paragraphs of some sentences."""
    draw = Random(seed)
    folder.mkdir(parents=True, exist_ok=True)
    for i in range(n):
        parts = []
        for k in range(draw.randint(3, 8)):
            parts.append(f"## {' '.join(draw.choices(WORDS, k=3))}" if k else f"# {' '.join(draw.choices(WORDS, k=4))}")
            for _ in range(draw.randint(1, 3)):
                said = (" ".join(draw.choices(WORDS, k=draw.randint(6, 20))) for _ in range(draw.randint(2, 6)))
                parts.append(" ".join(f"{s.capitalize()}." for s in said))
        (folder / f"{i:05}.md").write_text("\n\n".join(parts) + "\n")
    return folder


def timed(work: Callable[[], Any]) -> tuple[float, float]:
    """Seconds by the clock and of this process's CPU."""
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    return time.perf_counter() - clock, time.process_time() - cpu


def texts_of(folder: Path, model: Path) -> list[str]:
    """The chunks as an index embeds them."""
    from brolly.adapt.retrieve.chunks import chunks
    from brolly.adapt.retrieve.document import read_markdown
    from brolly.adapt.retrieve.embedder import Embedder
    from brolly.adapt.retrieve.index import SIZE, headed

    count, found = Embedder(model).count, []
    for path in sorted(folder.glob("*.md")):
        document = read_markdown(path.read_text())
        found += [headed(document.title, c.heading, c.text) for c in chunks(document, count, SIZE)]
    return found


def worker(name: str, model: str, papers_at: str) -> None:
    texts = texts_of(Path(papers_at), Path(model))
    if name == "brolly":
        from brolly.adapt.retrieve.embedder import Embedder

        embedder = Embedder(model)
        work: Callable[[], Any] = lambda: embedder.documents(texts)  # noqa: E731
    else:
        from sentence_transformers import SentenceTransformer

        kind = "bfloat16" if "bfloat16" in name else "float32"
        other = SentenceTransformer(model, device="cpu", model_kwargs={"dtype": kind})
        work = lambda: other.encode(texts, batch_size=32, normalize_embeddings=True)  # noqa: E731

    def answer(_: dict[str, Any]) -> dict[str, Any]:
        clock, cpu = timed(work)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        return {"seconds": clock, "cpu": cpu, "n": len(texts), "peak": peak}

    serve(answer)


def embed(rounds: int, folder: Path) -> dict[str, Any]:
    model, at = random_bert(folder / "minilm", "minilm"), papers(folder / "papers", 60)
    ways = {name: Worker(__file__, name, str(model), str(at)) for name in PEERS}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    for i in range(rounds + 1):
        for name, one in ways.items():
            said = one.ask()
            if i:
                found[name].append(said)
    for one in ways.values():
        one.close()
    return {"case": "embed", "ways": found}


def index(rounds: int, folder: Path) -> dict[str, Any]:
    from brolly.adapt.retrieve import Index
    from brolly.adapt.retrieve.embedder import Embedder

    at, embedder = papers(folder / "papers", 400), Embedder("mini-embed")
    found: dict[str, Any] = {"case": "index", "first": [], "again": []}
    for _ in range(rounds):
        kept: list[Index] = []
        found["first"].append(timed(lambda kept=kept: kept.append(Index.build(at, embed=embedder, anew=True))))
        found["again"].append(timed(kept[0].update))
        found["n_files"], found["n_chunks"] = 400, sum(known.n_chunks for known in kept[0].documents())
        kept[0].close()
    found["bytes"] = sum(path.stat().st_size for path in (at / ".brolly-index").iterdir())
    found["peak"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return found


def search(rounds: int, folder: Path) -> dict[str, Any]:
    import numpy as np

    from brolly.adapt.retrieve.chunks import Chunk
    from brolly.adapt.retrieve.sqlite import SqliteStore
    from brolly.adapt.retrieve.store import Entry, Stamp

    rng, draw = np.random.default_rng(0), Random(0)

    def unit(rows: Any) -> Any:
        return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)

    centres = unit(rng.standard_normal((N_CLUSTERS, DIM)))
    some = lambda n: unit(centres[rng.integers(0, N_CLUSTERS, n)] + 0.045 * rng.standard_normal((n, DIM)))  # noqa: E731
    vectors, questions = some(N_CHUNKS), some(N_QUESTIONS)
    store = SqliteStore(folder / "index", create=True)
    with store.writing() as writer:
        names = []
        for start in range(0, N_CHUNKS, 1000):
            part = [Chunk(0, 1, "") for _ in range(1000)]
            words = [" ".join(draw.choices(WORDS, weights=range(len(WORDS), 0, -1), k=60)) for _ in part]
            names.append(f"{start}.txt")
            whole = vectors[start : start + 1000].astype(np.float16)
            writer.put([Entry(names[-1], Stamp(0, 0, ""), 0, "", {}, part, words, whole)])
        writer.publish(names, (), {}, {}, {})
    asked = [draw.choices(WORDS, k=5) for _ in range(N_QUESTIONS)]

    def near(i: int) -> list[int]:
        with store.reading() as now:
            return [match.id - 1 for match in now.near(0, questions[i], 100, None)[0]]

    def both(i: int) -> Any:
        from brolly.adapt.retrieve.fuse import fuse

        with store.reading() as now:
            now.frequencies(asked[i])
            worded = [m.id for m in now.worded(asked[i], 100, None)]
            orders = [(worded, 1.0), ([m.id for m in now.near(0, questions[i], 100, None)[0]], 1.0)]
            return now.fetch([k for k, _ in fuse(orders)[:5]])

    opening = timed(lambda: near(0))
    hits = 0
    for i in range(N_QUESTIONS):
        exact = np.argsort(-(vectors @ questions[i]))[:10]
        hits += len(set(exact.tolist()) & set(near(i)[:10]))
    found: dict[str, Any] = {"case": "search", "opening": opening, "recall": hits / (10 * N_QUESTIONS)}
    numpy = lambda i: np.argpartition(-(vectors @ questions[i]), 100)[:100]  # noqa: E731
    for name, way in (("vectors", near), ("both", both), ("numpy float32", numpy)):
        found[name] = [timed(lambda i=i, way=way: way(i)) for _ in range(rounds) for i in range(N_QUESTIONS)]
    store.close()
    found["bytes"] = sum(path.stat().st_size for path in (folder / "index").iterdir())
    return found


def report(said: dict[str, Any]) -> str:
    rows = [["", "clock", "CPU time", ""]]
    match said["case"]:
        case "embed":
            for name, runs in said["ways"].items():
                clock, cpu = (median([run[key] for run in runs]) for key in ("seconds", "cpu"))
                n, peak = runs[0]["n"], max(run["peak"] for run in runs)
                rows.append(
                    [
                        f"embed, {name}",
                        f"{n / clock:,.0f} chunks/s",
                        f"{n / cpu:,.0f} chunks/s",
                        f"{peak / 1e6:,.0f} MB",
                    ]
                )
            times = {
                name: [median([run[k] for run in runs]) for k in ("seconds", "cpu")]
                for name, runs in said["ways"].items()
            }
            for name in PEERS[1:]:
                faster = [theirs / ours for theirs, ours in zip(times[name], times["brolly"], strict=True)]
                rows.append([f"brolly, times {name}", *(f"{x:.2f}" for x in faster), ""])
        case "index":
            for name in ("first", "again"):
                clock, cpu = (median([run[k] for run in said[name]]) for k in (0, 1))
                files, parts = said["n_files"], said["n_chunks"]
                what = (
                    f"{files / clock:,.0f} files/s, {parts / clock:,.0f} chunks/s"
                    if name == "first"
                    else f"{clock:.2f} s"
                )
                rows.append([f"index, {name}", what, f"{cpu:.2f} s", f"{said['peak'] / 1e6:,.0f} MB of memory"])
            rows.append(["on the disk", "", "", f"{said['bytes'] / 1e6:,.1f} MB"])
        case _:
            for name in ("vectors", "both", "numpy float32"):
                clock, cpu = (median([run[k] for run in said[name]]) * 1e3 for k in (0, 1))
                rows.append(
                    [
                        f"search, {name}",
                        f"{clock:.2f} ms",
                        f"{cpu:.2f} ms",
                        f"best {min(r[0] for r in said[name]) * 1e3:.2f} ms",
                    ]
                )
            rows.append(["recall@10 of vectors", f"{said['recall']:.3f}", "", ""])
            rows.append(
                [
                    "opening",
                    f"{said['opening'][0]:.2f} s",
                    f"{said['opening'][1]:.2f} s",
                    f"{said['bytes'] / 1e6:,.0f} MB on the disk",
                ]
            )
    return table(rows)


def main() -> None:
    asked = arguments(__doc__, "--case", CASES).parse_args()
    ways = {"embed": embed, "index": index, "search": search}
    packages = ["torch", "sentence-transformers", "numpy"]
    show(asked.case or CASES, asked.json, packages, (lambda case, folder: ways[case](asked.rounds, folder), report))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        worker(*sys.argv[2:])
    else:
        main()
