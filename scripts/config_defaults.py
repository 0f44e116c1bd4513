"""Writes brolly/identity/data/config_defaults.json: what transformers' config classes assume for what is not said.

    python scripts/config_defaults.py

Only the keys that counting reads, of the model types that have a row in decoders.json. transformers is Apache-2.0.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from pathlib import Path
from typing import Any

import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

ROOM = Path(__file__).parent.parent / "brolly" / "identity"
READERS = ("anatomy.py", "decoders.py", "mixers.py")


def keys() -> set[str]:
    """Every word in quotes that a reader could look up."""
    text = "".join((ROOM / name).read_text() for name in READERS if (ROOM / name).exists())
    text += (ROOM / "data" / "decoders.json").read_text()
    return {part for word in re.findall(r'"!?([A-Za-z_][\w.]*)"', text) for part in word.split(".")}


def plain(value: Any) -> bool:
    return isinstance(value, (bool, int, float, type(None))) or (
        isinstance(value, (list, tuple)) and len(value) <= 128 and all(isinstance(v, (int, str)) for v in value)
    )


def defaults(config: type, wanted: set[str]) -> dict[str, Any]:
    """The class's own defaults, before its __post_init__ derives one from another."""
    found: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = field.default if field.default is not dataclasses.MISSING else None
        if field.name in wanted and plain(value) and field.default is not dataclasses.MISSING:
            found[field.name] = list(value) if isinstance(value, tuple) else value
    for name in wanted & set(vars(config)) - set(found):
        if plain(vars(config)[name]) and name != "model_type":
            found[name] = vars(config)[name]
    return found


def main() -> None:
    from brolly.identity.anatomy import OTHER_NAMES, rows

    types = sorted({*rows(), *OTHER_NAMES} & set(CONFIG_MAPPING.keys()))
    wanted = keys()
    lines = []
    for name in types:
        found = defaults(CONFIG_MAPPING[name], wanted)
        lines.append(f"{json.dumps(name)}: {json.dumps(found, sort_keys=True, separators=(', ', ': '))}")
    source = {
        "source": f"transformers {transformers.__version__}, configuration_*.py (Apache-2.0)",
        "date": datetime.date.today().isoformat(),
    }
    text = json.dumps(source)[:-1] + ',\n"types": {\n' + ",\n".join(lines) + "\n}}\n"
    json.loads(text)
    (ROOM / "data" / "config_defaults.json").write_text(text)


if __name__ == "__main__":
    main()
