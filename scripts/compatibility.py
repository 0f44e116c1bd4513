"""Try every client against `brolly serve` and write what came of it to docs/compatibility.md: `make test-clients`.

python scripts/compatibility.py [SUITE …] [--openai FILE] [--openresponses FOLDER] [--folder FOLDER] [--write]

Results stay in the folder (build/clients), so that one suite can be run again and its rows alone change.
Each suite runs in an environment of its own (.venv/clients, tests/clients/node) and tells its results as JUnit's XML. A
failure that is no fault of brolly's has its reason in tests/clients/suites.toml; any other makes this end with 1.
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import re
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BIN, CLIENTS = ROOT / ".venv/bin", ROOT / ".venv/clients/bin"
TESTS, NODE = ROOT / "tests/clients", ROOT / "tests/clients/node"
MODELS = ("mini-llm", "mini-clip", "mini-embed", "mini-whisper")
OURS = re.compile(
    r"Error code: 5\d\d|InternalServerError|[Cc]onnection error|status code 5\d\d"
)  # no reason excuses these
OPENAI_DOCUMENT = "https://raw.githubusercontent.com/openai/openai-openapi/master/openapi.yaml"


@dataclass(frozen=True)
class Suite:
    """A row of tests/clients/suites.toml."""

    name: str
    packages: list[str]
    what: str
    run: str
    reasons: dict[str, str] = field(default_factory=dict)

    def reason(self, test: str, said: str) -> str | None:
        """Why a test fails through no fault of brolly's."""
        for name, why in self.reasons.items():
            if test == name or (name.endswith("*") and test.startswith(name[:-1])):
                return None if OURS.search(said) else why
        return None


SUITES = [Suite(**row) for row in tomllib.loads((TESTS / "suites.toml").read_text())["suite"]]


@dataclass
class Result:
    """What came of a suite: the tests that passed, what the others said, and why some were left out."""

    passed: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    when: str = ""  # day and commit
    version: str = ""
    absent: str = ""  # why the whole suite could not run


class Absent(Exception):
    """The suite cannot be had here."""


# What runs


@contextmanager
def serving(folder: Path) -> Iterator[str]:
    """`brolly serve` as anybody starts it, on a free port."""
    checkpoint = folder / "tiny-tools"
    if not checkpoint.exists():
        subprocess.run([BIN / "python", "-m", "tests.clients.checkpoint", checkpoint], cwd=ROOT, check=True)
    log = (folder / "serve.log").open("w+")
    command = [BIN / "brolly", "serve", checkpoint, *MODELS, "--port", "0", "--store", folder / "store"]
    server = subprocess.Popen(list(map(str, command)), stdout=log, stderr=subprocess.STDOUT)
    try:
        while (found := re.search(r"http://127\.0\.0\.1:\d+", (folder / "serve.log").read_text())) is None:
            if server.poll() is not None:
                raise SystemExit(f"brolly serve ended: {(folder / 'serve.log').read_text()}")
            time.sleep(0.2)
        yield found[0]
        if server.poll() is not None:
            raise SystemExit(
                f"brolly serve ended while clients spoke to it: {(folder / 'serve.log').read_text()[-4000:]}"
            )
    finally:
        server.terminate()
        server.wait(60)
        log.close()


def environment(url: str, folder: Path) -> dict[str, str]:
    """What suites find: where the server is, and nothing of the internet."""
    own = {
        name: value for name, value in os.environ.items() if not name.startswith(("OPENAI_", "ANTHROPIC_", "OLLAMA_"))
    }
    own |= {"BROLLY_CLIENTS_URL": url, "BROLLY_CLIENTS_CHECKPOINT": str(folder / "tiny-tools")}
    own |= {
        "HF_HUB_OFFLINE": "1",
        "LANGSMITH_TRACING": "false",
        "OMP_NUM_THREADS": "1",
        "NO_PROXY": "127.0.0.1,localhost",
    }
    return own


def pytest_or_node(run: str, url: str, folder: Path) -> Result:
    report = folder / f"{Path(run).stem}.xml"
    if run.endswith(".py"):
        command = [
            CLIENTS / "python",
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:cacheprovider",
            "-o",
            "asyncio_mode=auto",
            "-o",
            "asyncio_default_test_loop_scope=session",
            TESTS / run,
            f"--junitxml={report}",
        ]
    else:
        if not (NODE / "node_modules").exists():
            raise Absent("node or its packages are not here")
        command = [
            "node",
            "--test",
            "--test-reporter=junit",
            f"--test-reporter-destination={report}",
            NODE.parent / run,
        ]
    return junit(command, report, url, folder)


def junit(command: list[object], report: Path, url: str, folder: Path, **more: str) -> Result:
    """Run what writes JUnit's XML, and read it. What it prints is kept beside it."""
    report.unlink(missing_ok=True)
    with report.with_suffix(".log").open("w") as log:
        words = [str(word) for word in command]
        subprocess.run(words, cwd=ROOT, env=environment(url, folder) | more, stdout=log, stderr=subprocess.STDOUT)
    if not report.exists():
        raise SystemExit(f"{words[0]} left no report: {report.with_suffix('.log').read_text()[-3000:]}")
    result = Result()
    cases = list(ElementTree.parse(report).iter("testcase"))
    if not cases:
        result.failed["nothing ran"] = first_line(report.with_suffix(".log").read_text()[-240:])
    for case in cases:
        owner = (case.get("classname") or "").rpartition(".")[2]
        name = f"{owner}.{case.get('name')}" if owner[:1].isupper() else case.get("name") or ""
        wrong, skip = [case.find(kind) for kind in ("failure", "error")], case.find("skipped")
        fault = next((element for element in wrong if element is not None), None)
        if fault is not None:
            message, whole = fault.get("message") or "", fault.text or ""
            result.failed[name] = first_line(message if len(message) > 12 else whole or message)  # else a mere code
        elif skip is not None and skip.get("type") == "pytest.xfail":
            result.failed[name] = first_line("its suite expects this: " + (skip.get("message") or ""))
        elif skip is not None:
            result.skipped[name] = first_line(skip.get("message") or "")
        else:
            result.passed.append(name)
    return result


def first_line(text: str) -> str:
    """The beginning of a message, fit for a table's cell."""
    text = re.sub(r" at 0x[0-9a-f]+|\d+\. Test Case ID: \w+", "", text)
    return re.sub(r"\s+", " ", text).strip()[:240]


def own_document(url: str, folder: Path, given: argparse.Namespace) -> Result:
    return schemathesis(f"{url}/openapi.json", url, folder, "own", "all")


def openai_document(url: str, folder: Path, given: argparse.Namespace) -> Result:
    cut, source = folder / "openai.json", str(given.openai or OPENAI_DOCUMENT)
    command = [CLIENTS / "python", TESTS / "openai_document.py", source, f"{url}/openapi.json", cut]
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True)
    if done.returncode:
        raise Absent(f"{source} cannot be read: {first_line(done.stderr.strip().splitlines()[-1])}")
    result = schemathesis(str(cut), f"{url}/v1", folder, "openai", "positive")
    result.version = f"the document's version {json.loads(done.stdout)['version']}, {result.version}"
    return result


def schemathesis(document: str, base: str, folder: Path, name: str, mode: str) -> Result:
    report, settings = folder / f"schemathesis-{name}.xml", TESTS / f"schemathesis-{name}.toml"
    command = [
        CLIENTS / "schemathesis", "--config-file", settings, "run", document, "--url", base, "--mode", mode,
        "--report", "junit", "--report-junit-path", report, "--no-color",
    ]  # fmt: skip
    hooks = {"SCHEMATHESIS_HOOKS": "tests.clients.hooks", "PYTHONPATH": str(ROOT)}
    result = junit(command, report, base.removesuffix("/v1"), folder, **hooks)
    if found := re.search(r"(\d+) generated", report.with_suffix(".log").read_text()):
        result.version = f"{int(found[1]):,} requests"
    return result


def open_responses(url: str, folder: Path, given: argparse.Namespace) -> Result:
    if given.openresponses is None:
        raise Absent("no --openresponses FOLDER, a checkout of github.com/openresponses/openresponses")
    command = [
        NODE / "node_modules/.bin/tsx", given.openresponses / "bin/compliance-test.ts",
        "--base-url", f"{url}/v1", "--api-key", "none", "--model", "tiny-tools", "--json",
    ]  # fmt: skip
    own = environment(url, folder) | {"NODE_OPTIONS": "--experimental-websocket"}
    told = subprocess.run(command, capture_output=True, text=True, env=own)
    (folder / "openresponses.json").write_text(told.stdout + told.stderr)
    if not told.stdout.startswith("{"):
        raise Absent(f"the acceptance tests did not start: {first_line(told.stderr)}")
    result = Result()
    for row in json.loads(told.stdout)["results"]:
        why = first_line("; ".join(row.get("errors") or []))
        if row["status"] == "passed":
            result.passed.append(row["id"])
        else:
            (result.failed if row["status"] == "failed" else result.skipped)[row["id"]] = why
    return result


def versions(packages: list[str]) -> str:
    """Which versions of these are installed for the suites."""
    python = [name for name in packages if not name.startswith("npm:")]
    found: dict[str, str] = {}
    if python:
        code = "import sys, json, importlib.metadata as m; print(json.dumps({n: m.version(n) for n in sys.argv[1:]}))"
        found |= json.loads(
            subprocess.run([CLIENTS / "python", "-c", code, *python], capture_output=True, check=True).stdout
        )
    for name in packages:
        path = NODE / "node_modules" / name.removeprefix("npm:") / "package.json"
        if name.startswith("npm:") and path.exists():
            found[name.removeprefix("npm:")] = json.loads(path.read_text())["version"]
    return ", ".join(f"{name} {version}" for name, version in found.items())


# What is written


TOP = """\
# Which clients work unchanged

Written by `make test-clients`, never by hand. Each suite speaks over HTTP to one `brolly serve`, with nothing changed
but the address.

The language model of these runs is random: it answers nonsense, calls tools only where `tool_choice` makes it, and
sees no pictures. A test that wants more fails, and is counted as failed. Where the reason begins with **brolly**, the
fault is its own.

| client | what was run | passed | failed | left out by the suite | when |
|---|---|--:|--:|--:|---|
"""


def document(results: dict[str, Result]) -> str:
    """docs/compatibility.md, without the part that scripts/conformance.py writes behind it."""
    text = TOP
    for suite in SUITES:
        found = results.get(suite.name, Result(absent="it was not asked for"))
        name = f"{suite.name} ({found.version})" if found.version else suite.name
        counts = f"{len(found.passed)} | {len(found.failed)} | {len(found.skipped)} | {found.when}"
        text += f"| {name} | {suite.what} | {f'not run: {found.absent} | | |' if found.absent else counts} |\n"
    text += "\n## What failed, and why\n\n| test | what it said | why |\n|---|---|---|\n"
    for suite in SUITES:
        for test, said in sorted(results.get(suite.name, Result()).failed.items()):
            why = suite.reason(test, said) or "**brolly**: not explained yet"
            text += f"| {suite.name}: `{cell(test)}` | {cell(said)} | {why} |\n"
    text += "\n## What suites left out\n\n"
    for suite in SUITES:
        by_why: dict[str, list[str]] = {}
        for test, why in sorted(results.get(suite.name, Result()).skipped.items()):
            by_why.setdefault(why, []).append(f"`{cell(test)}`")
        for why, tests in sorted(by_why.items()):
            text += f"- {suite.name}: {cell(why)} ({', '.join(tests)})\n"
    return text


def write(results: dict[str, Result]) -> None:
    page = ROOT / "docs/compatibility.md"
    _, mark, behind = page.read_text().partition("## One suite for every model")
    page.write_text(document(results) + (f"\n{mark}{behind}" if mark else ""))


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("<", "&lt;")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", help="some of them (default: all)")
    parser.add_argument("--openai", type=Path, help="OpenAI's OpenAPI document (default: the published one)")
    parser.add_argument("--openresponses", type=Path, help="a checkout of openresponses/openresponses")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/clients", help="for checkpoint, reports and logs")
    parser.add_argument("--write", action="store_true", help="only the document, from the results in the folder")
    given = parser.parse_args()
    folder: Path = given.folder
    folder.mkdir(parents=True, exist_ok=True)
    named = {suite.name: suite for suite in SUITES}
    if unknown := set(given.suites) - set(named):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(named)}")
    kept = folder / "results.json"
    rows = json.loads(kept.read_text()) if kept.exists() and (given.suites or given.write) else {}
    results = {name: Result(**row) for name, row in rows.items()}
    if given.write:
        write(results)
        return
    git = ["git", "describe", "--always", "--dirty"]
    commit = subprocess.run(git, cwd=ROOT, capture_output=True, text=True).stdout.strip()
    unexplained = 0
    with serving(folder) as url:
        for suite in [named[name] for name in given.suites or named]:
            begin = time.monotonic()
            try:
                run = globals().get(suite.run)
                result = run(url, folder, given) if run else pytest_or_node(suite.run, url, folder)
            except Absent as absent:
                result = Result(absent=str(absent))
            result.seconds = round(time.monotonic() - begin, 1)
            result.when = f"{datetime.datetime.now(datetime.UTC):%Y-%m-%d} at {commit}"
            result.version = ", ".join(filter(None, (versions(suite.packages), result.version)))
            results[suite.name] = result
            kept.write_text(json.dumps({name: asdict(row) for name, row in results.items()}, indent=1))
            write(results)
            counts = f"{len(result.passed)} passed, {len(result.failed)} failed, {len(result.skipped)} left out"
            print(f"{suite.name}: {result.absent or counts} ({result.seconds:.0f} s)", flush=True)
            for test, said in result.failed.items():
                why = suite.reason(test, said)
                unexplained += why is None
                print(f"    {test}: {said}\n        {why or 'NOT EXPLAINED'}", flush=True)
    sys.exit(1 if unexplained else 0)


if __name__ == "__main__":
    main()
