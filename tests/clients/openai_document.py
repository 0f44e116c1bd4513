"""OpenAI's published OpenAPI document, cut to the paths that brolly serves: python openai_document.py FROM OURS TO

Prints the document's version. Requests and answers stay as OpenAI describes them, except that keys are not asked for.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from pathlib import Path
from typing import Any

import yaml


def read(where: str) -> dict[str, Any]:
    """A document from a file or a URL, as JSON or YAML."""
    text = urllib.request.urlopen(where).read().decode() if "://" in where else Path(where).read_text()
    found: dict[str, Any] = json.loads(text) if text.startswith("{") else yaml.load(text, yaml.CSafeLoader)
    return found


def pattern(path: str) -> str:
    """The path with all its parameters called alike."""
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))


def cut(document: dict[str, Any], ours: dict[str, Any]) -> dict[str, Any]:
    """Only the operations that our document has too, and that are more than a refusal."""
    served = {
        (pattern(path.removeprefix("/v1")), method)
        for path, methods in ours["paths"].items() if path.startswith("/v1/")
        for method, operation in methods.items() if any(code.startswith("2") for code in operation["responses"])
    }  # fmt: skip
    paths = {}
    for path, methods in document["paths"].items():
        if "?" in path:  # once more, for a beta
            continue
        kept = {
            name: value for name, value in methods.items() if (pattern(path), name) in served or name == "parameters"
        }
        if kept.keys() - {"parameters"}:
            paths[path] = kept
    return document | {"paths": paths, "security": [], "servers": [{"url": "/v1"}]}


if __name__ == "__main__":
    theirs = read(sys.argv[1])
    made = cut(theirs, read(sys.argv[2]))
    Path(sys.argv[3]).write_text(json.dumps(made))
    print(json.dumps({"version": theirs["info"]["version"], "paths": list(made["paths"])}))
