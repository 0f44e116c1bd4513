"""What is known of closed models: brolly/remote/data/traits.json and prices.json, made anew from public tables.

    python scripts/closed_models.py LITELLM_JSON LITELLM_VERSION MODELS_DEV_FOLDER DAY

The first is `model_prices_and_context_window_backup.json` of litellm's wheel (MIT outside its enterprise folder), which
names the vendor's page for each row; the third a checkout of models.dev (MIT), for efforts and contexts that the first
has not. Facts are taken, no text. Rows of other sources are by hand: they stay as they are, and go first.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent.parent / "brolly" / "remote" / "data"
Row = dict[str, Any]

# litellm's provider → the vendor's name in vendors.json as a pattern, what its names begin with, models.dev's folder
VENDORS = {
    "openai": (r"openai(-responses)?", "", "openai"),
    "anthropic": ("anthropic", "", "anthropic"),
    "gemini": ("gemini", "gemini/", "google"),
    "vertex_ai-language-models": ("vertex", "vertex_ai/", "google-vertex"),
    "vertex_ai-anthropic_models": ("vertex-anthropic", "vertex_ai/", "google-vertex-anthropic"),
    "bedrock": ("bedrock", "", "amazon-bedrock"),
    "bedrock_converse": ("bedrock", "", "amazon-bedrock"),
    "mistral": ("mistral", "mistral/", "mistral"),
    "groq": ("groq", "groq/", "groq"),
    "xai": ("xai", "xai/", "xai"),
    "deepseek": ("deepseek", "deepseek/", "deepseek"),
    "cerebras": ("cerebras", "cerebras/", "cerebras"),
}
CLAUDES = ("anthropic", "bedrock", "vertex-anthropic")
MADE = ("litellm ", "models.dev")
VERBS = {
    "chat": ["chat"], "responses": ["chat"], "embedding": ["embed"], "image_generation": ["draw"],
    "audio_transcription": ["transcribe"], "audio_speech": ["speak"],
}  # fmt: skip
# what OpenAI's own SDK says of its models beside those that chat
LACKS: Mapping[str, Callable[[str], list[str]]] = {
    "draw": lambda name: ["response_format"],
    "embed": lambda name: ["dimensions"] * name.startswith("text-embedding-ada"),
    "speak": lambda name: ["instructions"] * name.startswith("tts-1"),
    "transcribe": lambda name: [
        *["segments", "words", "translate"] * (name != "whisper-1"), *["hotwords"] * (name != "gpt-transcribe"),
        *["prompt"] * name.endswith("diarize"),
    ],
}  # fmt: skip
SAMPLING = ["temperature", "top_p", "top_k"]
OPENAI_SAMPLING = ["temperature", "top_p", "logprobs"]  # which models that can do without thinking take then
OPENAI_NEVER = ["presence_penalty", "frequency_penalty", "logit_bias", "stop"]
# efforts that the first table has not, and who tells them
MORE = (
    (
        r"gpt-5\.6(-sol|-terra|-luna)?",
        ["none", "low", "medium", "high", "xhigh", "max"],
        "https://github.com/anomalyco/opencode/issues/36141",
    ),
    # it always thinks
    (r"gemini-2\.5-pro", ["minimal", "low", "medium", "high"], "https://ai.google.dev/gemini-api/docs/thinking"),
)
# where a price holds to a day, as its page says
UNTIL = {"gemini-3.8-flash": "2026-12-31", "gemini-flash-latest": "2026-12-31"}
# priced by more than their tokens: what they search, draw or speak
UNPRICED = re.compile(r"search|deep-research|audio|realtime|live|image|tts|transcribe|lyria|omni|banana|computer-use")
ODD = re.compile(r"lyria|learnlm|-tts|gemini-exp|robotics")  # called conversations there, and none that are led here
DEV_COST = {"read": "input", "write": "output", "cached": "cache_read", "stored": "cache_write"}
CLAUDE = re.compile(r"(?:(?:us|eu|apac|au|jp|global)\.)?anthropic\.claude")


class Dev:
    """models.dev's rows."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def show(self, path: str) -> Row:
        command = ["git", "-C", str(self.folder), "show", f"HEAD:{path}"]
        found = subprocess.run(command, capture_output=True, text=True)
        return tomllib.loads(found.stdout) if found.returncode == 0 else {}

    def names(self, provider: str) -> list[str]:
        command = ["git", "-C", str(self.folder), "ls-tree", "--name-only", f"HEAD:providers/{provider}/models"]
        found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        return [name.removesuffix(".toml") for name in found if name.endswith(".toml")]

    def commit(self) -> str:
        """Its commit and the day of that, in a word each."""
        command = ["git", "-C", str(self.folder), "log", "-1", "--format=%h of %cs"]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def of(self, provider: str, name: str) -> Row:
        row = self.show(f"providers/{provider}/models/{name}.toml")
        if base := row.get("base_model"):
            row = {**self.show(f"models/{base}.toml"), **row}
        return row

    def named(self, provider: str, name: str) -> Row:
        """A model's row, else that of the name without its date."""
        plain = re.sub(r"-20\d\d-?\d\d-?\d\d$", "", name)
        return self.of(provider, name) or (self.of(provider, plain) if plain != name else {})

    def efforts(self, row: Row) -> list[str]:
        return [
            w for option in row.get("reasoning_options", ()) if option["type"] == "effort" for w in option["values"]
        ]


def models(table: Mapping[str, Row]) -> Iterator[tuple[str, str, str, Row]]:
    """Each model that a verb of ours can reach: vendor, its name there, models.dev's folder, its row."""
    for key, row in table.items():
        provider, mode = row.get("litellm_provider", ""), row.get("mode")
        if provider not in VENDORS or mode not in VERBS or key.startswith("openai/"):
            continue
        vendor, prefix, folder = VENDORS[provider]
        name = key.removeprefix(prefix)
        if vendor == "bedrock" and not CLAUDE.match(name):
            continue
        reached = row.get("supported_endpoints") or ["/v1/chat/completions"]
        if (
            ODD.search(name)
            and mode == "chat"
            or "/" in name
            or all("realtime" in one or "interactions" in one for one in reached)
        ):
            continue  # a size or a quality of pictures, or a protocol that is not spoken here
        yield vendor, name, folder, row


def traits(vendor: str, name: str, folder: str, row: Row, dev: Dev) -> Row:
    """What one row of litellm's tells, in our words."""
    other = dev.named(folder, name)
    found: Row = {}
    also = ""
    read, written = row.get("max_input_tokens"), row.get("max_output_tokens")
    whole = (other.get("limit") or {}).get("context")
    if vendor.startswith("openai") and read and written and read + written in (400_000, 1_050_000):
        whole = read + written  # its table tells what may be read of a window that is shared
    if whole or read:
        found["context"] = whole or read
    verbs = VERBS[row["mode"]]
    if row["mode"] in ("chat", "responses"):
        # where it says the whole window, it mostly means that nobody told
        whole = found.get("context")
        if written and (not whole or written < whole or (written == whole and vendor in ("gemini", "vertex"))):
            found["max_output"] = written
        efforts = row.get("reasoning_effort_levels") or dev.efforts(other)
        for pattern, words, page in MORE:
            if re.fullmatch(pattern, name):
                efforts, also = words, f"; its efforts: {page}"
        found |= thoughts(vendor, name, row, efforts)
        found |= lacking(vendor, name, row, found)
    if row["mode"] == "image_generation" and vendor in ("gemini", "vertex") and "gemini" in name:
        verbs = ["chat", "draw"]
    heard = "audio" in (row.get("supported_modalities") or ()) or row.get("supports_audio_input")
    reads = [
        w
        for w, has in (("image", row.get("supports_vision")), ("audio", heard), ("pdf", row.get("supports_pdf_input")))
        if has
    ]
    if "chat" in verbs and ("image" in reads or "audio" in reads):
        found["reads"] = reads
    if vendor.startswith("openai"):
        if lacks := LACKS.get(verbs[0], lambda name: [])(name):
            found["lacks"] = lacks
        ends = row.get("supported_endpoints") or ()
        if row["mode"] == "responses" or (ends and not any("chat" in end for end in ends) and "/v1/responses" in ends):
            found["dialects"] = ["openai.responses"]
        elif re.match(r"gpt-(5\.[6-9]|[6-9])", name):
            found["dialects"] = ["openai.responses", "openai.chat"]  # tools and an effort together by the first alone
            found["lacks"] = [*found.get("lacks", []), "chat_tools"]
        elif re.match(r"gpt-5\.[245](?!-chat)", name) and found.get("thinking") == "effort":
            found["lacks"] = [*found.get("lacks", []), "chat_tools"]
            also += "; tools and an effort: https://github.com/openai/openai-openapi/issues/541"
    found["verbs"] = verbs
    found["source"] = (row.get("source") or "") + also
    return found


def thoughts(vendor: str, name: str, row: Row, efforts: list[str]) -> Row:
    """How it is asked to think, and in which words."""
    thinks = bool(row.get("supports_reasoning"))
    more = [w for w in ("xhigh", "max") if row.get(f"supports_{w}_reasoning_effort")]
    if vendor.startswith("openai"):
        if "search" in name or ("chat" in name and not efforts):
            return {}  # its table is of two minds
        if not thinks:
            return {"thinking": "none"}
        told = [w for w in ("none", "minimal", "xhigh", "max") if f"supports_{w}_reasoning_effort" in row]
        if not efforts and told:
            few = [w for w in ("none", "minimal") if row.get(f"supports_{w}_reasoning_effort")]
            efforts = [
                *few,
                *(["low"] if row.get("supports_low_reasoning_effort", True) else []),
                "medium",
                "high",
                *more,
            ]
        return {"thinking": "effort"} | ({"efforts": efforts} if efforts else {})
    if vendor in CLAUDES:
        if not thinks:
            return {"thinking": "none"}
        if not row.get("supports_adaptive_thinking"):
            return {"thinking": "budget"} | (
                {"efforts": ["low", "medium", "high"]} if row.get("supports_output_config") else {}
            )
        off = [] if row.get("thinking_always_on") else ["none"]
        return {"thinking": "adaptive", "efforts": [*off, "low", "medium", "high", *more]}
    if vendor in ("gemini", "vertex"):
        if not thinks:
            return {"thinking": "none"}
        if re.match(r"gemini-2\.5", name):
            return {"thinking": "budget"} | ({"efforts": efforts} if efforts else {})
        if re.match(r"gemini-[34]", name):
            if not efforts and row.get("supports_minimal_reasoning_effort") is False:
                efforts = ["low", "medium", "high"]
            return {"thinking": "level"} | ({"efforts": efforts} if efforts else {})
    if levels := row.get("reasoning_effort_levels"):
        return {"thinking": "effort", "efforts": levels}
    return {}


def lacking(vendor: str, name: str, row: Row, found: Row) -> Row:
    """Options that the model refuses though its vendor has them."""
    lacks: list[str] = []
    if vendor.startswith("openai") and found.get("thinking") == "effort" and "chat" not in name:
        efforts = found.get("efforts", [])
        lacks += [] if "none" in efforts else OPENAI_SAMPLING
        lacks += OPENAI_NEVER
    elif row.get("supports_sampling_params") is False:
        lacks += SAMPLING
    if vendor in CLAUDES:
        lacks += ["prefill"] if row.get("supports_assistant_prefill") is False else []
        lacks += [] if row.get("supports_mid_conversation_system") else ["later_system"]
        lacks += ["tool_choice"] if row.get("supports_forced_tool_use") is False else []
    return {"lacks": lacks} if lacks else {}


def price(name: str, row: Row) -> Row | None:
    """Dollars a million tokens; None where tokens are not all that is paid for."""
    if row["mode"] not in ("chat", "responses", "embedding") or UNPRICED.search(name):
        return None
    found = _sums(row, "")
    if row["mode"] == "embedding":
        found.setdefault("write", 0.0)
    if "read" not in found or "write" not in found:
        return None
    steps = {int(m[1]) for key in row if (m := re.fullmatch(r"input_cost_per_token_above_(\d+)k_tokens", key))}
    if len(steps) > 1:
        return None  # more steps than we tell apart
    for step in steps:
        then = _sums(row, f"_above_{step}k_tokens")
        if "write" not in then:
            return None
        found |= {"over": step * 1000, "then": then}
    if (heard := row.get("input_cost_per_audio_token")) is not None and _million(heard) != found["read"]:
        found["heard"] = _million(heard)
    if name in UNTIL:
        found["until"] = UNTIL[name]
    return found | {"source": row.get("source") or ""}


def _sums(row: Row, tail: str) -> Row:
    names = {"read": "input_cost_per_token", "write": "output_cost_per_token", "cached": "cache_read_input_token_cost"}
    names["stored"] = "cache_creation_input_token_cost"
    found = {ours: _million(row[theirs + tail]) for ours, theirs in names.items() if row.get(theirs + tail) is not None}
    return found if found.get("read") else {}


def _million(dollars: float) -> float:
    return round(dollars * 1e6, 6)


def older(dev: Dev, has: set[tuple[str, str]]) -> Iterator[tuple[str, str, Row, Row | None]]:
    """Conversations of the three vendors that the first table has left out by now: facts and price of models.dev."""
    for vendor, folder in ((VENDORS["openai"][0], "openai"), ("anthropic", "anthropic"), ("gemini", "google")):
        for name in dev.names(folder):
            row = dev.of(folder, name)
            modes = row.get("modalities") or {}
            if (vendor, name) in has or UNPRICED.search(name) or modes.get("output") != ["text"] or "embedding" in name:
                continue
            limit, cost = row.get("limit") or {}, row.get("cost") or {}
            facts: Row = {"context": limit["context"], "max_output": limit["output"]}
            if not row.get("reasoning"):
                facts["thinking"] = "none"
            elif any(option["type"] == "budget_tokens" for option in row.get("reasoning_options", ())):
                facts["thinking"] = "budget"
            if row.get("temperature") is False and vendor == "anthropic":
                facts["lacks"] = SAMPLING
            if reads := [kind for kind in ("image", "audio", "pdf") if kind in modes.get("input", ())]:
                facts["reads"] = reads
            paid = {ours: cost[theirs] for ours, theirs in DEV_COST.items() if theirs in cost}
            whole = paid if "read" in paid and not {"tiers", "input_audio", "output_audio"} & cost.keys() else None
            yield vendor, name, facts | {"verbs": ["chat"]}, whole


def rows(found: list[tuple[str, str, Row]]) -> list[Row]:
    """A row for all names of a vendor that share every fact."""
    shared: dict[tuple[str, str], tuple[list[str], Row]] = {}
    for vendor, name, facts in found:
        key = (vendor, json.dumps(facts, sort_keys=True))
        shared.setdefault(key, ([], facts))[0].append(name)
    made = []
    for (vendor, _), (names, facts) in shared.items():
        ends = [
            re.escape(name).replace(r"\-", "-") + (":.*" if name.startswith("ft:") else "") for name in sorted(names)
        ]
        made.append({"match": f"{vendor}:({'|'.join(ends)})" if len(ends) > 1 else f"{vendor}:{ends[0]}", **facts})
    return sorted(made, key=lambda row: row["match"])


def write(path: Path, key: str, fresh: list[Row], by: str, day: str) -> None:
    """The rows made by hand, then the fresh ones; a name that a hand row has is the hand row's."""
    whole = json.loads(path.read_text())
    hand = [row for row in whole[key] if not row["source"].startswith(MADE)]
    for row in fresh:
        page = row.pop("source")
        plain = (
            page if page.startswith("models.dev") else f"{by}{f', for {page}' if page.startswith('https://') else ''}"
        )
        row["source"], row["seen"] = plain, day
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in [*hand, *fresh])
    path.write_text(f'{{\n"about": {json.dumps(whole["about"])},\n"{key}": [\n{lines}\n]\n}}\n')
    print(f"{path.name}: {len(hand)} rows by hand, {len(fresh)} made")


def main() -> None:
    table, version, folder, day = sys.argv[1:]
    dev = Dev(Path(folder))
    seen: set[tuple[str, str]] = set()
    hand = {key: [re.compile(row["match"]) for row in json.loads((DATA / f"{key}.json").read_text())[key]
                  if not row["source"].startswith(MADE)] for key in ("traits", "prices")}  # fmt: skip
    facts: list[tuple[str, str, Row]] = []
    prices: list[tuple[str, str, Row]] = []
    for vendor, name, other, row in models(json.loads(Path(table).read_text())):
        if (vendor, name) in seen:
            continue
        seen.add((vendor, name))
        full = f"{vendor.partition('(')[0]}:{name}"
        if not any(pattern.fullmatch(full) for pattern in hand["traits"]):
            facts.append((vendor, name, traits(vendor, name, other, row, dev)))
        if (paid := price(name, row)) and not any(pattern.fullmatch(full) for pattern in hand["prices"]):
            prices.append((vendor, name, paid))
    by, before = f"litellm {version}'s table", {"source": f"models.dev, {dev.commit()}"}
    for vendor, name, known, dollars in older(dev, seen):
        facts.append((vendor, name, known | before))
        if dollars:
            prices.append((vendor, name, dollars | before))
    write(DATA / "traits.json", "traits", rows(facts), by, day)
    write(DATA / "prices.json", "prices", rows(prices), by, day)


if __name__ == "__main__":
    main()
