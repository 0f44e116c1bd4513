"""Licences: spellings, texts, inheritance, contradictions, and a table that holds together."""

from __future__ import annotations

import json
import re
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from brolly.card import Header, TensorInfo
from brolly.identity import licence_text, tables
from brolly.identity.answers import Kind, Known, Licence
from brolly.identity.licence_text import licence_in, rank
from brolly.identity.licences import agree, conflicts, licence_named, licence_of, of_base, spdx_id, spelling, table
from brolly.identity.subject import Subject

HUB = (
    "apache-2.0 mit openrail bigscience-openrail-m creativeml-openrail-m bigscience-bloom-rail-1.0 bigcode-openrail-m "
    "afl-3.0 artistic-2.0 bsl-1.0 bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear c-uda cc cc0-1.0 cc-by-2.0 "
    "cc-by-2.5 cc-by-3.0 cc-by-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nd-4.0 "
    "cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0 cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cdla-sharing-1.0 "
    "cdla-permissive-1.0 cdla-permissive-2.0 wtfpl ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2 agpl-3.0 gfdl "
    "gpl gpl-2.0 gpl-3.0 lgpl lgpl-2.1 lgpl-3.0 isc h-research intel-research lppl-1.3c ms-pl apple-ascl apple-amlr "
    "mpl-2.0 odc-by odbl openmdw-1.0 openrail++ osl-3.0 postgresql ofl-1.1 ncsa unlicense zlib pddl lgpl-lr "
    "deepfloyd-if-license fair-noncommercial-research-license llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 "
    "grok2-community gemma "
)
SYSTEM = Path("/usr/share/common-licenses")  # Debian's copies: another source than the fingerprints'


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Known]:
    """The table of known models, as a test wants it."""
    found: list[Known] = []
    module = ModuleType("brolly.identity.known")
    module.by_name = lambda name: found  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "brolly.identity.known", module)
    return found


def subject(folder: Path, files: dict[str, str], metadata: dict[str, Any] | None = None, **config: Any) -> Subject:
    for name, text in files.items():
        (folder / name).write_text(text)
    weights = {"w": TensorInfo("w", "BF16", (2, 2), folder / "model.safetensors", 0, 8)}
    return Subject(folder, Header(folder, "safetensors", weights, config, metadata or {}), [])


def card(**keys: str) -> dict[str, str]:
    return {"README.md": "---\n" + "".join(f"{k}: {v}\n" for k, v in keys.items()) + "---\n# A model\n"}


def kind(relation: str | None = "base", *base: str) -> Kind:
    return Kind(None, None, "llm", True, "", (), ("text",), ("text",), None, "", relation, base)


def licence(
    folder: Path, files: dict[str, str], of: Kind | None = None, known: Known | None = None, **more: Any
) -> Licence:
    return licence_of(subject(folder, files, **more), of or kind(), known)


def row(**facts: Any) -> Known:
    plain = dict(name="Base", family="f", organization="o", kind="llm", modalities_in=(), modalities_out=())
    return Known(**(plain | facts))  # type: ignore[arg-type]


# ---- spellings


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Apache 2.0", "apache-2.0"), ("apache-2", "apache-2.0"), ("Apache License, Version 2.0", "apache-2.0"),
        ("Apache-2.0 license", "apache-2.0"), ("MIT License", "mit"), ("The MIT License", "mit"), ("MIT-0", "mit-0"),
        ("llama-3.1", "llama3.1"), ("Llama 3.1 Community License Agreement", "llama3.1"), ("llama2", "llama2"),
        ("GPL v3", "gpl-3.0"), ("GPL-3.0-or-later", "gpl-3.0"), ("AGPLv3", "agpl-3.0"),
        ("CC BY-NC 4.0", "cc-by-nc-4.0"),
        ("CC-BY-4.0", "cc-by-4.0"), ("BSD 3-Clause", "bsd-3-clause"), ("Gemma Terms of Use", "gemma"),
        ("openrail++", "openrail++"), ("OpenRAIL", "openrail"),
        ("FLUX.1 [dev] Non-Commercial License", "flux-1-dev-non-commercial-license"),
        ("https://ai.google.dev/gemma/terms", "gemma"), ("https://mistral.ai/licenses/MRL-0.1.md", "mrl"),
        ("LFM Open License v1.0", "lfm1.0"), ("tongyi-qianwen", "tongyi-qianwen"),
        ("Boost Software License 1.0", "bsl-1.0"),
        ("other", None), ("unknown", None), ("my own", None), ("", None), ("3.0", None), ("license", None),
    ],
)  # fmt: skip
def test_a_licence_is_known_however_it_is_spelt(text: str, name: str | None) -> None:
    assert licence_named(text) == name


@pytest.mark.parametrize("name", HUB.split())
def test_every_licence_of_the_hubs_list_is_in_the_table(name: str) -> None:
    assert licence_named(name) == name


# ---- what a licence grants


@pytest.mark.parametrize(
    ("name", "commercial", "free"),
    [
        ("apache-2.0", "yes", True), ("mit", "yes", True), ("gpl-3.0", "yes", True), ("cc-by-4.0", "yes", True),
        ("cc-by-sa-4.0", "yes", True), ("openmdw-1.0", "yes", True), ("cc-by-nc-4.0", "no", False),
        ("cc-by-nc-sa-4.0", "no", False), ("llama3.1", "conditional", False), ("llama2", "conditional", False),
        ("qwen", "conditional", False), ("mrl", "no", False), ("gemma", "conditional", None),
        ("openrail", "conditional", None),
        ("bigscience-bloom-rail-1.0", "conditional", None), ("stabilityai-ai-community", "conditional", False),
        ("flux-1-dev-non-commercial-license", "no", False), ("apple-amlr", "no", False),
        ("deepseek", "conditional", None),
        ("tencent-hunyuan-community", "conditional", False), ("kimi-k2-modified-mit", "conditional", None),
    ],
)  # fmt: skip
def test_commercial_use_and_the_acts_free_licence(
    name: str, commercial: str, free: bool | None, tmp_path: Path
) -> None:
    found = licence(tmp_path, card(license="other", license_name=name) if spdx_id(name) is None else card(license=name))
    assert (found.id, found.commercial, found.free_and_open) == (name, commercial, free)


def test_conditions_are_told_in_sentences(tmp_path: Path) -> None:
    told = " ".join(licence(tmp_path, card(license="llama3.1")).conditions)
    assert "700 million" in told and "Built with Llama" in told
    assert "European Union" in " ".join(licence(tmp_path, card(license="llama4")).conditions)


# ---- where it is told


def test_the_card_comes_first_then_metadata_then_the_text(tmp_path: Path) -> None:
    text = {"LICENSE": "MIT License"}
    assert licence(tmp_path, {**card(license="llama3.1"), **text}).id == "llama3.1"
    assert licence(tmp_path, {"README.md": "# no header", **text}).id == "mit"
    assert licence(tmp_path, {"README.md": "#", **text}, metadata={"general.license": "apache-2.0"}).id == "apache-2.0"


@pytest.mark.parametrize(
    "name", ["GPL-2", "GPL-3", "LGPL-2.1", "LGPL-3", "Apache-2.0", "MPL-2.0", "BSD", "CC0-1.0", "GFDL-1.3"]
)
def test_texts_from_another_source_are_recognised(name: str) -> None:
    if not (SYSTEM / name).is_file():
        pytest.skip(f"{SYSTEM}/{name} is absent: this test reads Debian's copies of licences")
    found = licence_in((SYSTEM / name).read_text(errors="replace"))
    assert found and found[0] == {"BSD": "bsd-3-clause"}.get(name, name.lower() + (".0" if name[-2] == "-" else ""))


def apache() -> str:
    return (Path(__file__).parents[2] / "LICENSE").read_text()


def test_our_own_licence_is_recognised_with_changes_of_layout() -> None:
    assert (licence_in(apache()) or [""])[0] == "apache-2.0"
    assert (licence_in(apache().upper().replace("\n", "\r\n   ")) or [""])[0] == "apache-2.0"


def test_a_text_with_a_condition_added_is_not_taken_for_the_plain_one() -> None:
    assert licence_in("“Commons Clause” License Condition v1.0\n" + apache()) == (
        "commons-clause",
        "“commons clause” in its text",
    )
    half = apache()[: len(apache()) // 2]
    assert licence_in(half + " You may use it on weekdays and holidays alone." * 200) is None


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("LLAMA 3.1 COMMUNITY LICENSE AGREEMENT\nLlama 3.1 Version Release Date: July 23, 2024", "llama3.1"),
        ("META LLAMA 3 COMMUNITY LICENSE AGREEMENT\n Meta Llama 3 Version Release Date: April 18, 2024", "llama3"),
        ("Gemma Terms of Use \n\nLast modified: March 24, 2025", "gemma"),
        ("# FLUX.1 [dev] Non-Commercial License", "flux-1-dev-non-commercial-license"),
        ("BigScience RAIL License v1.0\ndated May 19, 2022", "bigscience-bloom-rail-1.0"),
        ("CreativeML Open RAIL++-M License\ndated November 24, 2022", "openrail++"),
        ("CreativeML Open RAIL-M\ndated August 22, 2022", "creativeml-openrail-m"),
        ("DEEPSEEK LICENSE AGREEMENT\nVersion 1.0, 23 October 2023", "deepseek"),
        ("Tongyi Qianwen LICENSE AGREEMENT", "tongyi-qianwen"), ("Qwen LICENSE AGREEMENT Release Date", "qwen"),
        ("Qwen RESEARCH LICENSE AGREEMENT", "qwen-research"),
        ("STABILITY AI COMMUNITY LICENSE AGREEMENT", "stabilityai-ai-community"),
        ("TENCENT HUNYUAN COMMUNITY LICENSE AGREEMENT", "tencent-hunyuan-community"),
        ("Modified MIT License\nCopyright (c) 2025 Moonshot AI\nDisplay “Kimi K2” prominently", "kimi-k2-modified-mit"),
        ("Modified MIT License\nPermission is hereby granted", "modified-mit"),
        ("Licensed under the Apache License, Version 2.0.", "apache-2.0"),
        ("This work is licensed under CC BY-NC 4.0", "cc-by-nc-4.0"), ("All rights reserved.", None), ("", None),
    ],
)  # fmt: skip
def test_titles_of_model_licences_are_recognised(text: str, name: str | None) -> None:
    assert (licence_in(text) or (None,))[0] == name


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("LICENSE", 1), ("LICENCE.txt", 1), ("license.md", 1), ("COPYING", 1), ("LICENSE-MODEL", 0),
        ("MODEL_LICENSE", 0),
        ("Notice.txt", 2), ("USE_POLICY.md", 2), ("ltxv-2b.license.txt", 1), ("LICENSE-CODE", None),
        ("sub/LICENSE", None),
        ("THIRD_PARTY_LICENSES", None), ("README.md", None), ("model.safetensors", None), ("LICENSE.pdf", None),
    ],
)  # fmt: skip
def test_which_files_are_licences(name: str, expected: int | None) -> None:
    assert rank(name) == expected


def test_other_with_a_name_a_link_or_a_text(tmp_path: Path) -> None:
    assert licence(tmp_path, card(license="other", license_name="llama-3.2")).id == "llama3.2"
    assert licence(tmp_path, card(license="other", license_link="https://ai.google.dev/gemma/terms")).id == "gemma"
    strange = licence(tmp_path, card(license="other", license_name="acme-model-license"))
    assert (strange.id, strange.commercial, strange.free_and_open) == ("acme-model-license", None, None)
    assert licence(tmp_path, card(license="other", license_name="acme-non-commercial")).commercial == "no"
    nothing = licence(tmp_path, card(license="other"))
    assert (nothing.id, nothing.commercial) == (None, None)


def test_nothing_said_is_nothing_told(tmp_path: Path) -> None:
    found = licence(tmp_path, {})
    assert (found.id, found.commercial, found.free_and_open, found.inherited_from) == (None, None, None, None)
    assert found.openness == {"weights": True, "code": None, "data": None} and found.mof_class is None


def test_the_table_of_known_models_is_asked_last(tmp_path: Path) -> None:
    assert licence(tmp_path, {}, known=row(licence="gemma")).id == "gemma"
    assert licence(tmp_path, card(license="mit"), known=row(licence="gemma")).id == "mit"


# ---- base models


@pytest.mark.parametrize(
    ("base", "name"),
    [
        ("meta-llama/Llama-3.1-8B", "llama3.1"), ("meta-llama/Meta-Llama-3-8B", "llama3"),
        ("unsloth/Llama-3.2-1B", "llama3.2"),
        ("meta-llama/Llama-2-7b-hf", "llama2"), ("google/gemma-2-9b", "gemma"), ("Qwen/Qwen2.5-3B", "qwen-research"),
        ("black-forest-labs/FLUX.1-dev", "flux-1-dev-non-commercial-license"), ("JackFram/llama-160m", None),
        ("a/b", None),
        ("mistralai/Mistral-7B-v0.1", "apache-2.0"), ("", None), ("x" * 100_000, None),
    ],
)  # fmt: skip
def test_licences_of_published_base_models(base: str, name: str | None) -> None:
    found = of_base(base)
    assert (found.id if found else None) == name


def test_a_derived_model_inherits(tmp_path: Path, rows: list[Known]) -> None:
    found = licence(tmp_path, {}, kind("finetune", "meta-llama/Llama-3.1-8B"))
    assert (found.id, found.inherited_from, found.commercial) == ("llama3.1", "meta-llama/Llama-3.1-8B", "conditional")
    rows.append(row(ids=("acme/closed-7b",), licence="cc-by-nc-4.0"))
    assert licence(tmp_path, {}, kind("quantized", "acme/Closed-7B")).commercial == "no"
    assert (
        licence(tmp_path, {}, kind("finetune"), row(licence="llama3.1", name="Llama 3.1 8B")).inherited_from
        == "Llama 3.1 8B"
    )


def test_a_permissive_label_does_not_free_a_bound_base(tmp_path: Path) -> None:
    found = licence(tmp_path, card(license="apache-2.0"), kind("finetune", "meta-llama/Llama-3.1-8B"))
    assert (found.id, found.commercial, found.free_and_open) == ("apache-2.0", "conditional", False)
    assert found.inherited_from == "meta-llama/Llama-3.1-8B" and any("700 million" in c for c in found.conditions)
    stricter = licence(tmp_path, card(license="cc-by-nc-4.0"), kind("finetune", "meta-llama/Llama-3.1-8B"))
    assert (stricter.commercial, stricter.inherited_from) == ("no", None)


def test_of_a_merge_the_strictest_base_counts(tmp_path: Path) -> None:
    merged = kind("merge", "mistralai/Mistral-7B-v0.1", "CohereForAI/c4ai-command-r-v01", "meta-llama/Llama-2-7b-hf")
    assert licence(tmp_path, {}, merged).id == "cc-by-nc-4.0"


# ---- contradictions


def found_in(folder: Path, files: dict[str, str], of: Kind | None = None, **more: Any) -> list[str]:
    return [f.id for f in conflicts(subject(folder, files, **more), of or kind(), None)]


def test_card_and_text_that_differ_are_found(tmp_path: Path) -> None:
    files = {**card(license="mit"), "LICENSE": apache()}
    finding = conflicts(subject(tmp_path, files), kind(), None)[0]
    assert (finding.id, finding.severity, finding.file) == ("licence-conflict", "warning", "LICENSE")
    assert "mit" in finding.message and "apache-2.0" in finding.message


def test_card_and_gguf_that_differ_are_found(tmp_path: Path) -> None:
    assert found_in(tmp_path, card(license="mit"), metadata={"general.license": "llama3.1"}) == ["licence-conflict"]


def test_a_base_models_licence_that_forbids_what_the_card_grants_is_found(tmp_path: Path) -> None:
    tuned = kind("finetune", "meta-llama/Llama-3.1-8B")
    assert found_in(tmp_path, card(license="apache-2.0"), tuned) == ["licence-base-conflict"]
    assert found_in(tmp_path, card(license="apache-2.0"), kind("adapter", "CohereForAI/aya-23-8B")) == [
        "licence-base-conflict"
    ]
    assert found_in(tmp_path, card(license="llama3.1"), tuned) == []
    assert found_in(tmp_path, card(license="cc-by-nc-4.0"), tuned) == []
    assert found_in(tmp_path, card(license="mit"), kind("finetune", "mistralai/Mistral-7B-v0.1")) == []


@pytest.mark.parametrize(
    ("files", "more"),
    [
        ({}, {}), ({"LICENSE": "Our own words."}, {}), (card(license="apache-2.0"), {}), (card(license="other"), {}),
        ({**card(license="bsd"), "LICENSE": "BSD 3-Clause License"}, {}),
        ({**card(license="openrail"), "LICENSE": "CreativeML Open RAIL-M"}, {}),
        ({**card(license="apache-2.0"), "LICENSE-CODE": "MIT License"}, {}),
        (card(license="[mit, apache-2.0]"), {"metadata": {"general.license": "apache-2.0"}}),
        ({**card(license="llama3.1"), "NOTICE": "MIT License"}, {}),
        (card(license="other", license_name="acme"), {"metadata": {"general.license": "mit"}}),
    ],
)  # fmt: skip
def test_clean_models_have_no_findings(files: dict[str, str], more: dict[str, Any], tmp_path: Path) -> None:
    if "LICENSE" not in files and not more and files:
        files = {**files, "LICENSE": apache()} if "apache" in files["README.md"] else files
    assert found_in(tmp_path, files, **more) == []


def test_families_agree_with_their_members() -> None:
    assert agree("bsd", "bsd-3-clause") and agree("openrail", "creativeml-openrail-m") and agree("cc", "cc-by-4.0")
    assert not agree("mit", "apache-2.0") and not agree("gpl-2.0", "gpl-3.0") and not agree("cc-by-4.0", "cc-by-nc-4.0")


# ---- openness


def test_a_partial_class_of_openness_names_what_is_not_seen(tmp_path: Path) -> None:
    text = card(license="apache-2.0")["README.md"] + "## Evaluation\nSee arxiv.org/abs/1\n" + "Words. " * 100
    found = licence(tmp_path, {"README.md": text}, model_type="llama")
    assert found.mof_class and found.mof_class.startswith("partial") and "not seen: data card" in found.mof_class
    assert found.openness == {"weights": True, "code": True, "data": None}
    assert licence(tmp_path, card(license="llama3.1")).mof_class is None


# ---- hostile and fast


@pytest.mark.parametrize(
    "text", ["a " * 500_000, "copyright\n" * 100_000, "(c)" * 300_000, "license " * 100_000, "\0" * 10**6]
)
def test_hostile_texts_are_read_in_time(text: str, tmp_path: Path) -> None:
    where = subject(
        tmp_path, {"LICENSE": text, "README.md": "---\nlicense: " + text[:100_000].replace("\n", " ") + "\n---"}
    )
    start = time.perf_counter()
    licence_of(where, kind("finetune", text), None)
    conflicts(where, kind("finetune", text), None)
    assert time.perf_counter() - start < 1


@pytest.mark.parametrize("value", [1, 1.5, True, None, [], ["a", 3], {"a": 1}])
def test_odd_values_are_no_licence(value: Any, tmp_path: Path) -> None:
    where = subject(tmp_path, {}, metadata={"general.license": value, "license": value}, license=value)
    assert licence_of(where, kind(), None).id is None


def test_the_usual_path_is_quick(tmp_path: Path) -> None:
    where = subject(tmp_path, card(license="apache-2.0"))
    times = []
    for _ in range(5):
        tables.table.cache_clear()
        start = time.perf_counter()
        licence_of(where, kind(), None)
        times.append(time.perf_counter() - start)
    assert min(times) < 0.01  # 1.5 ms on an idle machine


# ---- the data


def test_the_table_holds_together() -> None:
    data = table()
    for name, of in data["licences"].items():
        assert name == name.lower() and of["name"]
        assert of["commercial"] in ("yes", "no", "conditional", None) and of["free"] in (True, False, None)
        assert of["redistribution"] in ("yes", "no", "conditional", None)
        assert of["by"] in ("spdx", "hub", "memory") or (of["by"] in ("text", "secondary") and of["read"])
        assert all(c in data["conditions"] for c in of["conditions"])
        assert not (of["commercial"] == "no" and of["free"])
        for text in (name, of["name"], *of["aliases"]):
            assert data["spellings"][spelling(text)] == name, f"{text}: run scripts/licences.py"
    used = {c for of in data["licences"].values() for c in of["conditions"]}
    assert used == set(data["conditions"])
    assert all(of in data["licences"] for _, of in (*data["links"], *data["bases"]))


def test_the_texts_table_names_licences_of_the_table() -> None:
    data, licences = licence_text.texts(), table()["licences"]
    for section in ("titles", "stubs", "additions"):
        for name, *phrases in data[section]:
            assert (name in licences or name == "") and phrases
            assert all(" ".join(licence_text.words_of(p)) == p for p in phrases), phrases
    assert all(len(of) <= licence_text.KEPT + 1 and licences[name]["spdx"] for name, of in data["prints"].items())
    assert json.dumps(data)


def test_every_licence_of_the_known_models_is_in_the_table() -> None:
    path = Path(licence_text.__file__).parent / "data/models.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is absent: this test reads the licences of the table of known models")
    named = set(re.findall(r'"licence"\s*:\s*"([^"]+)"', path.read_text()))
    assert not [name for name in named if licence_named(name) is None]
