"""Which vendors there are, and which has which option: the tables of docs/closed-models.md, made from the code.

python scripts/options_table.py
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from urllib.parse import urlsplit

from brolly.remote.target import COMPATIBLE
from brolly.remote.vendors import Vendor, vendors

PAGE = Path(__file__).parent.parent / "docs" / "closed-models.md"
MARKS = "<!-- {}: made by scripts/options_table.py -->\n", "<!-- end of {} -->"
# as GenerateOptions has them; what a vendor has no word for is refused, or told once where it is a hint
ROWS = (
    "max_tokens", "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty",
    "frequency_penalty", "logit_bias", "seed", "stop", "logprobs", "min_tokens", "ignore_eos", "json_schema", "regex",
    "choice", "grammar", "effort", "thoughts",
)  # fmt: skip
HINTS = ("seed", "effort", "thoughts")
HERE = {"stop": "cut here", "choice": "by JSON", "regex": "by JSON"}  # what is done without the vendor's word


def cell(vendor: Vendor, option: str) -> str:
    """How an option is said to a vendor; "-": refused, "left out": with a warning."""
    modules = [import_module(f"brolly.remote.dialects.{name}") for name in vendor.dialects["chat"]]
    own = {name for module in modules for name in module.OPTIONS}
    has = (own | set(vendor.takes)) - set(vendor.lacks)
    if option in has:
        word = vendor.words.get(option)
        return f"`{word}`" if word and word != option else "yes"
    if option in HERE and (option == "stop" or "json_schema" in has):
        return HERE[option]
    return "left out" if option in HINTS else "-"


def table() -> str:
    shown = [v for v in vendors().values() if "chat" in v.dialects and not v.account]
    groups: dict[tuple[str, ...], list[str]] = {}
    for vendor in shown:
        name = "any address" if vendor.name == COMPATIBLE else vendor.name
        groups.setdefault(tuple(cell(vendor, option) for option in ROWS), []).append(name)
    heads = [", ".join(names) for names in groups.values()]
    lines = ["| option | " + " | ".join(heads) + " |", "|---" * (len(heads) + 1) + "|"]
    lines += [f"| `{option}` | " + " | ".join(cells[at] for cells in groups) + " |" for at, option in enumerate(ROWS)]
    return "\n".join(lines) + "\n"


def addresses() -> str:
    """A line a vendor: its name, where it is, the variables of its key and of its address."""
    lines = ["| name | where | key | address, if set |\n", "|---|---|---|---|\n"]
    for vendor in vendors().values():
        if vendor.name == COMPATIBLE or vendor.account:
            continue
        where = urlsplit(vendor.base).netloc if "{" not in vendor.base else "by region and project"
        keys = ", ".join(f"`{name}`" for name in vendor.keys) or "credentials of its own"
        bases = ", ".join(f"`{name}`" for name in vendor.bases) or "-"
        title = f"[{vendor.title}]({vendor.docs})"
        lines.append(f"| `{vendor.name}:` | {title}, {where or 'an address for each customer'} | {keys} | {bases} |\n")
    return "".join(lines)


def main() -> None:
    text = PAGE.read_text()
    for name, made in (("vendors", addresses()), ("options", table())):
        begin, end = (mark.format(name) for mark in MARKS)
        head, _, rest = text.partition(begin)
        text = f"{head}{begin}{made}{end}{rest.partition(end)[2]}"
    PAGE.write_text(text)


if __name__ == "__main__":
    main()
