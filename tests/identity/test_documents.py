"""What other tools read: JSON, CycloneDX, SPDX and SARIF, each held against its schema; the form and the page."""

from __future__ import annotations

import io
import json
import lzma
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from brolly.identity import Card, identify, sbom
from brolly.identity.gpai import PROVIDER, form
from brolly.identity.html import page, write_page
from brolly.identity.sarif import sarif
from tests.identity.hollow import hollow_files, llama_gguf, llama_shapes, write_hollow
from tests.identity.samples import FILES

SCHEMAS = Path(__file__).parent / "schemas"
CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4096, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "intermediate_size": 14336, "vocab_size": 128256,
    "max_position_embeddings": 131072, "rms_norm_eps": 1e-5, "rope_theta": 5e5, "tie_word_embeddings": False,
}  # fmt: skip
README = """---
license: llama3.1
base_model: meta-llama/Llama-3.1-8B
datasets: [org/one, "two <script>alert(1)</script>"]
pipeline_tag: text-generation
---
# A fine-tune <script>alert(2)</script>
"""


@cache
def published(name: str, kind: Any) -> Any:
    return kind(json.loads(lzma.decompress((SCHEMAS / f"{name}.schema.json.xz").read_bytes())))


@cache
def strict_cyclonedx() -> Any:
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def check_cyclonedx(document: dict[str, Any]) -> None:
    assert (error := strict_cyclonedx().validate_str(json.dumps(document))) is None, error


def check_spdx(document: dict[str, Any]) -> None:
    published("spdx-3.0.1", jsonschema.Draft202012Validator).validate(document)
    ids = [e.get("spdxId") or e.get("@id") for e in document["@graph"]]
    assert len(ids) == len(set(ids)), "every element has an id of its own"
    for element in document["@graph"]:
        for key in ("from", "suppliedBy", "creationInfo"):
            assert key not in element or element[key] in ids
        for key in ("to", "element", "rootElement"):
            assert set(element.get(key, ())) <= set(ids)


def check_sarif(document: dict[str, Any]) -> None:
    published("sarif-2.1.0", jsonschema.Draft7Validator).validate(document)


def check_json(data: Any) -> None:
    own = json.loads((Path(sbom.__file__).parent / "data" / "card.schema.json").read_text())
    jsonschema.Draft202012Validator(own).validate(json.loads(json.dumps(data)))


@pytest.fixture(scope="module")
def cards(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Card]:
    base = tmp_path_factory.mktemp("cards")
    whole = write_hollow(base / "whole", hollow_files(llama_shapes(4096, 32, 1024, 14336, 128256), 4, CONFIG))
    (whole / "README.md").write_text(README)
    broken = write_hollow(base / "broken", hollow_files(llama_shapes(64, 2, 32, 128, 99), 3, CONFIG))
    (broken / "model-00002-of-00003.safetensors").unlink()
    (broken / "weird <b>&name.bin").write_bytes(b"\x80\x02cposix\nsystem\n(X\x04\x00\x00\x00truetR.")
    llama_gguf(base / "m.gguf", n_vocab=1000, n_merges=100)
    (base / "config").mkdir()
    (base / "config" / "config.json").write_text(json.dumps(CONFIG))
    (base / "unknown").mkdir()
    (base / "unknown" / "config.json").write_text('{"model_type": "never-heard-of"}')
    found = {name: identify(base / name) for name in ("whole", "broken", "m.gguf", "config", "unknown")}
    return found | {"table": identify("GPT-4o")}


NAMES = ("whole", "broken", "m.gguf", "config", "unknown", "table")


@pytest.mark.parametrize("name", NAMES)
def test_documents_are_valid_by_the_published_schemas(cards: dict[str, Card], name: str) -> None:
    card = cards[name]
    check_json(card.json())
    check_cyclonedx(sbom.cyclonedx(card))
    check_spdx(sbom.spdx(card))
    check_sarif(sarif([card]))


@pytest.mark.parametrize("sample", FILES)
def test_documents_of_every_format_are_valid(tmp_path: Path, sample: str) -> None:
    FILES[sample](tmp_path / sample)
    card = identify(tmp_path / sample)
    check_json(card.json())
    check_cyclonedx(sbom.cyclonedx(card, hashes=True))


def test_the_schema_refuses_what_is_no_card(cards: dict[str, Card]) -> None:
    for key, value in (("kind", "chatbot"), ("is_llm", "yes"), ("rules", [{"id": "x"}]), ("parameters", None)):
        with pytest.raises(jsonschema.ValidationError):
            check_json(cards["whole"].json() | {key: value})


def test_the_bill_of_materials_says_what_the_card_says(cards: dict[str, Card]) -> None:
    model = sbom.cyclonedx(cards["whole"])["metadata"]["component"]
    properties = {p["name"]: p["value"] for p in model["properties"]}
    assert properties["cdx:ai-ml:model:parameter:count"] == "8030261248"
    assert model["pedigree"]["ancestors"][0]["name"] == "meta-llama/Llama-3.1-8B"
    assert model["modelCard"]["modelParameters"]["modelArchitecture"] == "LlamaForCausalLM"
    graph = sbom.spdx(cards["whole"])["@graph"]
    package = next(e for e in graph if e["type"] == "ai_AIPackage")
    assert {"releaseTime", "suppliedBy", "software_downloadLocation", "software_packageVersion"} <= package.keys()
    kinds = [e["relationshipType"] for e in graph if e["type"] == "Relationship"]
    assert kinds.count("hasDeclaredLicense") == kinds.count("hasConcludedLicense") == 1
    assert "descendantOf" in kinds and "trainedOn" in kinds


def test_spdx_own_library_reads_the_document(cards: dict[str, Card]) -> None:
    model = pytest.importorskip("spdx_python_model").v3_0_1
    found = model.SHACLObjectSet()
    model.JSONLDDeserializer().read(io.BytesIO(json.dumps(sbom.spdx(cards["whole"])).encode()), found)
    assert not found.link(), "nothing refers to what is not there"
    (package,) = found.foreach_type(model.ai_AIPackage)
    assert package.ai_typeOfModel == ["Llama", "LlamaForCausalLM", "llm"]


def test_hashes_are_those_of_the_files(tmp_path: Path) -> None:
    import hashlib

    FILES["model.safetensors"](tmp_path / "model.safetensors")
    expected = hashlib.sha256((tmp_path / "model.safetensors").read_bytes()).hexdigest()
    files = sbom.cyclonedx(identify(tmp_path), hashes=True)["metadata"]["component"]["components"]
    assert files[0]["hashes"] == [{"alg": "SHA-256", "content": expected}]


def test_a_document_can_be_made_again(cards: dict[str, Card], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOURCE_DATE_EPOCH", "1700000000")
    assert sbom.cyclonedx(cards["whole"]) == sbom.cyclonedx(cards["whole"])
    assert sbom.cyclonedx(cards["whole"])["metadata"]["timestamp"] == "2023-11-14T22:13:20Z"


def test_findings_become_results(cards: dict[str, Card]) -> None:
    results = sarif([cards["broken"]])["runs"][0]["results"]
    levels = {r["ruleId"]: r["level"] for r in results}
    assert levels["missing-shards"] == "warning" and levels["pickle-code"] == "error"
    uris = [r["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] for r in results]
    assert any(uri.endswith("weird%20%3Cb%3E%26name.bin") for uri in uris)
    assert sarif([cards["whole"]])["runs"][0]["results"] == []


def test_the_form_fills_what_files_tell_and_says_who_must_do_the_rest(cards: dict[str, Card]) -> None:
    found = form(cards["whole"])
    properties = found["model properties"]
    assert properties["total model size (parameters)"]["value"] == 8_030_261_248
    assert properties["total model size (two significant figures)"]["value"] == 8.0e9
    assert found["energy consumption during training and inference"]["measurement methodology"] == {
        "value": None, "from": PROVIDER,
    }  # fmt: skip


class Balanced(HTMLParser):
    """Every element is closed in its order, and none is a script."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert tag not in ("script", "iframe", "img", "link"), tag
        assert not any(key.startswith("on") for key, _ in attrs)
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_whole_and_holds_no_code_of_the_model(cards: dict[str, Card], name: str, tmp_path: Path) -> None:
    parser = Balanced()
    parser.feed(page(cards[name]))
    assert parser.open == []
    write_page(cards[name], str(tmp_path / "card.html"))
    assert (tmp_path / "card.html").read_text() == page(cards[name])
