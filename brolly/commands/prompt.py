"""`brolly prompt`: a prompt's file made, shown, run over rows, measured and tuned."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from brolly.commands.flags import MODEL, adapter_of, add_adapter, add_loading, add_remote, check_kinds, open_one
from brolly.commands.took import tell_cost
from brolly.errors import BudgetSpent, DiskFull, OptionError

EXAMPLES = """examples:
  brolly prompt new triage.toml
  brolly prompt run triage.toml --set ticket="It crashes." --model org/name
  brolly prompt run triage.toml tickets.csv -o answers.jsonl        ^C, then the same with --resume
  brolly prompt eval triage.toml labelled.jsonl --compare older.toml
  brolly prompt tune triage.toml labelled.jsonl --budget 200
  brolly prompt run triage.toml tickets.csv -o answers.jsonl --model openai:gpt-5 --max-cost 2

rows: .jsonl, .json, .csv, .tsv, .parquet, also packed as .gz, .xz, .zst; - for JSONL on standard input
exit code: 0 done, 1 some rows failed (they are listed, the others are done), 2 nothing could be done
"""
KINDS = 10  # of errors that are told as they come
FILE = "a prompt's TOML file; `brolly prompt new FILE` writes one"


def flags(command: argparse.ArgumentParser) -> None:
    command.formatter_class, command.epilog = argparse.RawDescriptionHelpFormatter, EXAMPLES
    verbs = command.add_subparsers(metavar="VERB", required=True, dest="verb")

    new = verbs.add_parser("new", help="write a commented example that runs as it is")
    new.add_argument("file", help="the file to write; it must not be there yet")
    new.add_argument("--kind", choices=("write", "classify"), default="write", help="texts, or pictures and labels")

    show = _verb(verbs, "show", "what a prompt is; with a row, the prompt as the model reads it")
    show.add_argument("rows", nargs="?", metavar="ROWS", help="a file whose first row is shown")
    _row(show)

    run = _verb(verbs, "run", "an answer for each row")
    run.add_argument("rows", nargs="?", metavar="ROWS", help="a file of rows; - for JSONL on standard input")
    _row(run)
    run.add_argument("-o", "--out", metavar="FILE", help="write JSONL there: row, by, input, answer or error")
    run.add_argument("--resume", action="store_true", help="go on behind the rows that the file of -o holds")

    measure = "exact, fields, or file.py:function of (expected, got); default: fields for JSON, else exact"
    eval_ = _verb(verbs, "eval", "how many answers are right, with an interval")
    eval_.add_argument("rows", metavar="ROWS", help="rows with the right answers")
    eval_.add_argument("--measure", metavar="M", help=measure)
    eval_.add_argument("--compare", metavar="FILE", help="another prompt on the same rows, and the difference")

    tune = _verb(verbs, "tune", "search instructions and examples on one part of labelled rows, compare on the other")
    tune.add_argument("rows", metavar="ROWS", help="rows with the right answers")
    tune.add_argument("-o", "--out", metavar="FILE", help="the new version (default: NAME.vN.toml, beside the old one)")
    tune.add_argument("--budget", type=int, default=200, metavar="N", help="answers of the model at most (200)")
    tune.add_argument("--measure", metavar="M", help=measure)
    tune.add_argument("--examples", type=int, default=4, metavar="N", help="most examples in a prompt (4)")
    tune.add_argument("--propose", type=int, default=0, metavar="N", help="instructions that the model writes itself")
    tune.add_argument("--held", type=float, default=0.5, metavar="SHARE", help="part of the rows to compare on (0.5)")
    tune.add_argument("--seed", type=int, default=0, metavar="N", help="the same seed tries the same")


def _verb(verbs: Any, name: str, help: str) -> argparse.ArgumentParser:
    """A verb that has a prompt and a model."""
    command: argparse.ArgumentParser = verbs.add_parser(name, help=help, description=help)
    command.add_argument("file", help=FILE)
    command.add_argument("--model", metavar="MODEL", default="", help=f"{MODEL} (default: the file's)")
    add_adapter(command)
    command.add_argument("--embed", metavar="MODEL", help="choose each row's nearest examples, by this embedder")
    command.add_argument("--no-cache", action="store_true", help="ask again what was answered before")
    command.add_argument("--json", action="store_true", help="print one JSON object at the end")
    add_loading(command)
    add_remote(command)
    return command


def _row(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--set", dest="values", action="append", metavar="NAME=VALUE", help="a single row's variable (may be repeated)"
    )


def run(args: argparse.Namespace) -> int:
    return {"new": new, "show": show, "run": answer, "eval": evaluate, "tune": tune}[args.verb](args)


def new(args: argparse.Namespace) -> int:
    from brolly.adapt.prompt.starter import starter
    from brolly.checkpoint.safetensors import write_whole

    path = Path(args.file).expanduser()
    if path.exists():
        raise OptionError(f"{path} is there already; name a file that is not.")
    if path.suffix != ".toml":
        raise OptionError(f"{path} does not end in .toml; a prompt is a TOML file.")
    if not path.parent.is_dir():
        raise OptionError(f"{path.parent} is no folder; expected one to write {path.name} into.")
    data = starter(args.kind, path.stem, path.name).encode()
    write_whole(path, lambda: [data], len(data))
    print(path)
    return 0


def show(args: argparse.Namespace) -> int:
    prompt = _prompt(args)
    row = next(_given(args)[1], None) if args.rows or args.values else None
    if row is not None:
        model = _model(args, prompt)
        text = prompt.show(model, _good(row), embedder=_embedder(args, model))
        print(json.dumps({"prompt": prompt.id, "text": text}, ensure_ascii=False) if args.json else text)
        return 0
    table = prompt.table()
    if args.json:
        print(json.dumps({"id": prompt.id, "hash": prompt.hash, **table}, ensure_ascii=False, default=str))
        return 0
    print(f"{prompt.id}, version {prompt.version}, {len(prompt.examples)} examples")
    for name, value in table["variables"].items():
        print(f"  {{{name}}}  {value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)}")
    print(f"  → {json.dumps(table['answer'], ensure_ascii=False)}")
    for one in prompt.history:
        print(f"  version {one.get('version')}: {one.get('before')} → {one.get('after')}, {one.get('verdict')}")
    return 0


def answer(args: argparse.Namespace) -> int:
    from brolly.progress import bar

    prompt, out = _prompt(args), Path(args.out).expanduser() if args.out else None
    if args.resume and out is None:
        raise OptionError("--resume goes on with a file; name it with -o.")
    total, rows = _given(args)
    by = " ".join([prompt.id, args.model or prompt.model, *([f"+ {args.adapter}"] if args.adapter else [])])
    file, done, bad = _opened(out, args.resume, by, rows) if out else (None, 0, 0)
    model, failures = _model(args, prompt), Failures()
    n_good = n_cached = 0
    told: list[dict[str, Any]] = []
    kept: list[Any] = []  # inputs of rows that are being answered, in order
    try:
        with bar(total, "row", quiet=total is not None and total < 2) as progress:
            progress.update(done)
            found = prompt.stream(model, _placed(prompt, args.rows, _noted(rows, kept)), **_how(args, model))
            for number, result in enumerate(found, done + 1):
                row = {"row": number, "by": by, "input": _plain(kept.pop(0)), **_told(prompt, result)}
                n_good, n_cached = n_good + (result.error is None), n_cached + result.cached
                if result.error is not None:
                    if total == 1 and not out:
                        raise result.error
                    failures.add(f"row {number}", result.error)
                if file:
                    _write(file, row)
                elif args.json:
                    told.append(row)
                else:
                    single = args.values and not args.rows
                    progress.write(_single(row) if single else json.dumps(row, ensure_ascii=False), sys.stdout)
                progress.update(1)
    except KeyboardInterrupt:
        if out:
            print(f"\nbrolly: interrupted; {out} holds {done + n_good + failures.n:,} rows. Go on with --resume.", file=sys.stderr)  # fmt: skip # noqa: E501
        raise
    except BudgetSpent as error:
        rest = f" {out} holds {done + n_good + failures.n:,} rows; go on with --resume." if out else ""
        raise BudgetSpent(f"{error}{rest}") from None
    finally:
        tell_cost(args, model)
        if file:
            file.close()
    counts = {
        "rows": done + n_good + failures.n,
        "resumed": done,
        "cached": n_cached,
        "failed": bad + failures.n,
    }
    if args.json:
        said: dict[str, Any] = {"prompt": prompt.id, "by": by, **counts}
        print(json.dumps(said if out else {**said, "data": told}, ensure_ascii=False))
    elif out:
        print(f"{out}: {counts['rows']:,} rows, {n_cached:,} of them answered before, {counts['failed']:,} failed")
    return failures.close(n_good + done)


def evaluate(args: argparse.Namespace) -> int:
    from brolly.adapt.prompt.prompt import Prompt
    from brolly.adapt.prompt.score import cases_of, difference, interval, measure_of, scored, told, verdict
    from brolly.progress import bar

    prompt = _prompt(args)
    prompts = [prompt] + ([Prompt.load(args.compare)] if args.compare else [])
    rows = [_good(row) for row in _placed(prompt, args.rows, _file(args.rows)[1])]
    name, measure = measure_of(args.measure, prompt)
    cases = [cases_of(one, rows) for one in prompts]
    model = _model(args, prompt)
    scores: list[list[float]] = []
    failed: list[int] = []
    with bar(len(prompts) * len(rows), "row") as progress:
        for one, some in zip(prompts, cases, strict=True):
            scores.append([])
            failed.append(0)
            results = one.stream(model, [case.values for case in some], **_how(args, model))
            for case, result in zip(some, results, strict=True):
                scores[-1].append(scored(measure, case.expected, result))
                failed[-1] += result.error is not None
                progress.update(1)
    tell_cost(args, model)
    found = [interval(some) for some in scores]
    gap = difference(scores[0], scores[1]) if len(scores) == 2 else None
    if args.json:
        said = {
            "measure": name, "n": len(rows),
            "prompts": [{"id": p.id, "score": i.value, "low": i.low, "high": i.high, "failed": n}
                        for p, i, n in zip(prompts, found, failed, strict=True)],
        }  # fmt: skip
        if gap:
            said["difference"] = {"value": gap.value, "low": gap.low, "high": gap.high, "verdict": verdict(gap)}
        print(json.dumps(said))
        return 0
    width = max(len(p.id) for p in prompts)
    for one, score, n in zip(prompts, found, failed, strict=True):
        print(f"{one.id:{width}}  {name} {told(score)}" + (f", {n} failed" if n else ""))
    if gap:
        print(f"{'difference':{width}}  {gap.value:+.3f} ({gap.low:+.3f} to {gap.high:+.3f}): {verdict(gap)}")
    return 0


def tune(args: argparse.Namespace) -> int:
    from brolly.adapt.prompt.report import SAYS, markdown, picture
    from brolly.adapt.prompt.score import told
    from brolly.checkpoint.safetensors import write_whole
    from brolly.progress import bar

    prompt, path = _prompt(args), Path(args.file).expanduser()
    out = Path(args.out).expanduser() if args.out else path.with_name(f"{_stem(path)}.v{prompt.version + 1}.toml")
    if out.suffix != ".toml" or not out.parent.is_dir():
        raise OptionError(f"{out} must end in .toml, and its folder must be there.")
    rows = [_good(row) for row in _placed(prompt, args.rows, _file(args.rows)[1])]
    model = _model(args, prompt)
    with bar(args.budget, "answer", what="tuning") as progress:
        found = prompt.tune(
            model, rows, budget=args.budget, measure=args.measure, examples=args.examples, propose=args.propose,
            share=args.held, seed=args.seed, told=progress.update, **_how(args, model),
        )  # fmt: skip
    tell_cost(args, model)
    report, drawn = out.with_suffix(".md"), out.with_suffix(".svg")
    for file, text in ((report, markdown(found, drawn.name)), (drawn, picture(found))):
        data = text.encode()
        write_whole(file, lambda data=data: [data], len(data))  # type: ignore[misc]
    changed = found.prompt.hash != prompt.hash
    if changed:
        found.prompt.save(out)
    d = found.difference
    if args.json:
        said = {"prompt": found.prompt.id, "file": str(out) if changed else None, "report": str(report),
                **found.table(), "budget": found.budget}  # fmt: skip
        print(json.dumps(said, ensure_ascii=False))
        return 0
    print(f"version {prompt.version}   {found.measure} {told(found.before)}")
    if changed:
        print(f"version {found.prompt.version}   {found.measure} {told(found.after)}")
        print(f"difference  {d.value:+.3f} ({d.low:+.3f} to {d.high:+.3f})")
    print(f"{SAYS[found.verdict]}; {found.calls} answers")
    print(f"{f'{out}, ' if changed else ''}{report}, {drawn}")
    return 0


class Failures:
    """Rows that failed while the others went on: the first kinds are told at once, all are counted at the end."""

    def __init__(self) -> None:
        self.n, self._told = 0, set[str]()

    def add(self, name: str, error: Exception) -> None:
        self.n += 1
        if str(error) not in self._told and len(self._told) <= KINDS:
            from tqdm import tqdm

            last = len(self._told) == KINDS
            self._told.add(str(error))
            tqdm.write(f"brolly: {'more rows failed' if last else f'{name}: {error}'}", file=sys.stderr)

    def close(self, n_done: int) -> int:
        """The exit code: 0, or 1 where some failed, or 2 where all did."""
        if self.n and n_done + self.n > 1:
            print(f"brolly: {self.n:,} of {n_done + self.n:,} rows failed.", file=sys.stderr)
        return (1 if n_done else 2) if self.n else 0


# What verbs share -----------------------------------------------------------------------------------------------------


def _prompt(args: argparse.Namespace) -> Any:
    from brolly.adapt.prompt.prompt import Prompt, Select
    from brolly.remote import is_remote

    prompt = Prompt.load(args.file)
    if args.embed:
        prompt = prompt.changed(select=Select(prompt.select.most, "nearest", args.embed))
    elif prompt.select.by == "nearest" and is_remote(prompt.select.embed):
        args.embed = prompt.select.embed  # so that it shares the budget
    return prompt


def _model(args: argparse.Namespace, prompt: Any) -> Any:
    args.model = args.model or prompt.model
    if not args.model:
        raise OptionError(f"{args.file} names no model; say which with --model, such as --model mini-llm.")
    if args.embed:
        check_kinds(args, args.model, args.embed)
    else:
        check_kinds(args, args.model)
    model = open_one(args, args.model)
    if args.adapter:
        args.adapter = adapter_of(args, model)
    return model


def _embedder(args: argparse.Namespace, model: Any) -> Any:
    """The embedder that was named; one that runs elsewhere shares the budget, and has a price of its own."""
    if not args.embed:
        return None
    beside = {"price": None} if hasattr(model, "target") else {}
    return open_one(argparse.Namespace(**{**vars(args), **beside}), args.embed, getattr(model, "budget", None))


def _how(args: argparse.Namespace, model: Any) -> dict[str, Any]:
    """What `Prompt.stream` takes beside the rows."""
    from brolly.adapt.prompt.cache import Cache, cache_file

    if not hasattr(model, "target") and (not hasattr(model, "submit") or "generate" not in model.card.verbs):
        return {}
    return {
        "adapter": args.adapter, "embedder": _embedder(args, model),
        "cache": None if args.no_cache else Cache(cache_file()),
    }  # fmt: skip


def _given(args: argparse.Namespace) -> tuple[int | None, Iterator[Any]]:
    """The rows of a file, or the single one of --set; how many there are, where that is known."""
    if bool(args.rows) == bool(args.values):
        raise OptionError("give a file of rows, or one row with --set NAME=VALUE.")
    if args.rows:
        return _file(args.rows)
    pairs = [text.partition("=") for text in args.values]
    if wrong := next((name for name, mark, _ in pairs if not mark or not name), None):
        raise OptionError(f"--set {wrong!r:.60} has no value; expected NAME=VALUE.")
    return 1, iter([{name: value for name, _, value in pairs}])


def _file(name: str) -> tuple[int | None, Iterator[Any]]:
    """A file's rows, a bad one as its error; and how many there are."""
    from brolly.rows.fault import RowFault
    from brolly.rows.folders import in_file
    from brolly.rows.store import object_of

    if name != "-":
        store = in_file(Path(name).expanduser())
        return len(store), store.stream()

    def lines() -> Iterator[Any]:
        for number, line in enumerate(sys.stdin.buffer, 1):
            if line.strip():
                try:
                    yield object_of(line, f"line {number} of standard input")
                except RowFault as fault:
                    yield fault

    return None, lines()


def _placed(prompt: Any, file: str | None, rows: Iterable[Any]) -> Iterator[Any]:
    """Rows whose pictures' paths are relative to the rows' own file, where there is such a picture."""
    names = [v.name for v in prompt.variables if v.type == "image"]
    base = Path(file).expanduser().parent if file and file != "-" else Path()
    for row in rows:
        if names and not isinstance(row, Exception):
            there = {n: str(base / str(row[n])) for n in names if row.get(n) and (base / str(row[n])).is_file()}
            row = {**row, **there}
        yield row


def _good(row: Any) -> Any:
    if isinstance(row, Exception):
        raise row
    return row


def _noted(rows: Iterable[Any], kept: list[Any]) -> Iterator[Any]:
    for row in rows:
        kept.append(None if isinstance(row, Exception) else row)
        yield row


def _plain(row: Any) -> Any:
    """A row as JSON has it: bytes of a Parquet are no text."""
    return None if row is None else json.loads(json.dumps(dict(row), default=str, ensure_ascii=False))


def _told(prompt: Any, result: Any) -> dict[str, Any]:
    if result.error is not None:
        return {"error": str(result.error)}
    said: dict[str, Any] = {prompt.answer.name: result.value}
    if result.probabilities:
        said["probabilities"] = {label: round(share, 6) for label, share in result.probabilities.items()}
    return said | ({"broken": list(result.broken)} if result.broken else {})


def _single(row: dict[str, Any]) -> str:
    """The answer alone, for a person who asked one thing."""
    value = next(v for k, v in row.items() if k not in ("row", "by", "input"))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _opened(out: Path, resume: bool, by: str, rows: Iterator[Any]) -> tuple[BinaryIO, int, int]:
    """The file to write to, how many rows it holds and how many of them failed; `rows` goes on behind those."""
    try:
        there = out.exists() and out.stat().st_size > 0
        if not there or not resume:
            if there:
                raise OptionError(f"{out} is there already; go on with --resume, or name another file.")
            return out.open("wb"), 0, 0
        file: BinaryIO = out.open("r+b")
    except OSError as error:
        raise OptionError(f"{out} cannot be written ({error.strerror}).") from None
    n, end, bad = 0, 0, 0
    for line in file:
        try:
            row = json.loads(line) if line.endswith(b"\n") else None
        except ValueError:
            row = None
        if not isinstance(row, dict):
            break  # a line that a kill cut short
        if row.get("row") != n + 1 or row.get("by") != by:
            raise OptionError(
                f"{out}, line {n + 1} was written by {row.get('by')!s:.80}, and this is {by}; leave --resume, and name "
                "another file."
            )
        same = list(islice(rows, 1))
        if not same or (_plain(same[0]) if not isinstance(same[0], Exception) else None) != row.get("input"):
            raise OptionError(f"{out}, line {n + 1} answers another input than the rows given; name another file.")
        n, end, bad = n + 1, end + len(line), bad + ("error" in row)
    file.seek(end)
    file.truncate()
    return file, n, bad


def _write(file: BinaryIO, row: dict[str, Any]) -> None:
    """A row, at once where another program sees it."""
    try:
        file.write(json.dumps(row, ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n")
        file.flush()
    except OSError as error:
        raise DiskFull(f"{file.name} takes no more ({error.strerror}); make room and go on with --resume.") from None


def _stem(path: Path) -> str:
    """A file's name without a version: triage.v2.toml is triage."""
    stem, _, version = path.stem.rpartition(".v")
    return stem if stem and version.isdigit() else path.stem
