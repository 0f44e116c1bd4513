"""Findings other than pickles: code by configuration, templates, graphs, links,
programs; and none where all is well."""

from __future__ import annotations

import json
import os
import struct
import time
import zipfile
from pathlib import Path
from typing import Any

import jinja2
import jinja2.sandbox
import pytest

from brolly.card import Finding, Header
from brolly.checkpoint.archives import open_archive
from brolly.errors import CheckpointError, UnsafeCheckpoint
from brolly.identity.prompts import blocks, judge
from brolly.identity.safety import findings_of
from brolly.identity.subject import Subject
from tests.checkpoint.files import WRITERS
from tests.checkpoint.pickles import PROTO, data, name


def findings(path: Path, form: str = "", **parts: Any) -> list[Finding]:
    return findings_of(Subject(path, Header(path, form, {}, **parts), []))


def ids(found: list[Finding]) -> dict[str, str]:
    for finding in found:
        assert (
            "\n" not in finding.message
            and finding.message.endswith(".")
            and finding.severity in ("info", "warning", "danger")
        )
    return {f.id: f.severity for f in found}


def written(folder: Path, files: dict[str, Any]) -> Path:
    for file, body in files.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(body if isinstance(body, bytes) else json.dumps(body).encode())
    return folder


CLEAN = {
    "config.json": {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "torch_dtype": "bfloat16"},
    "tokenizer_config.json": {"chat_template": "{% for m in messages %}{{ m['content'] }}{% endfor %}",
    "tokenizer_class": "X"},
    "model_index.json": {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.6.0",
    "unet": ["diffusers", "UNet2DConditionModel"],
                         "safety_checker": ["stable_diffusion", "StableDiffusionSafetyChecker"],
                         "feature_extractor": [None, None],
                         "text_encoder": ["transformers", "CLIPTextModel"]},
    "modules_off.json": [], "README.md": b"---\nlicense: mit\n---\ncos\nsystem of cosines\n",
    "LICENSE": b"Copyright (c) 2024\n", "run.py": b"#!/usr/bin/env python\n",
    "run.sh": b"#!/bin/sh\n", ".gitattributes": b"*.bin filter=lfs\n", "merges.txt": b"#version: 0.2\nc o\ni n\n",
    "vocab.txt": b"cos\nsystem\n(\nR\n.\n", "labels.txt": b"ios\nandroid\nwindows\n",
    "adapter_config.json": {"auto_mapping": {"base_model_class": "X", "parent_library": "transformers.models.x"}},
    "empty.bin": b"",
}  # fmt: skip


def test_a_clean_folder_has_no_findings(tmp_path: Path) -> None:
    written(tmp_path, CLEAN)
    for file, write in WRITERS.items():
        write(tmp_path / file)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.writestr("model.weights.h5", b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "a.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "a.tflite").write_bytes(b"\x1c\0\0\0TFL3" + bytes(100))
    (tmp_path / "raw.bin").write_bytes(struct.pack("<7i", 128, 2, 3, 4, 5, 6, 7) + bytes(1000))
    (tmp_path / "raw2.bin").write_bytes(struct.pack("<7i", 640, 2, 3, 4, 5, 6, 7) + bytes(range(256)) * 40)
    assert findings(tmp_path) == []
    assert (
        findings(
            tmp_path,
            "onnx",
            metadata={"external": [("w", "model.onnx_data"), ("v", "sub/w.bin")], "ops": {"MatMul": 3}},
        )
        == []
    )
    assert (
        findings(
            tmp_path,
            "keras",
            config={"layers": [{"class_name": "Dense", "config": {"name": "a"}, "module": "keras.layers"}]},
        )
        == []
    )
    assert (
        findings(
            tmp_path,
            "savedmodel",
            metadata={"ops": {"MatMul": 1, "SaveV2": 1, "RestoreV2": 1, "MergeV2Checkpoints": 1}},
        )
        == []
    )


def test_faults_of_reading_are_findings(tmp_path: Path) -> None:
    header = Header(tmp_path, "torch", {})
    faults = [
        CheckpointError("It is broken."),
        UnsafeCheckpoint("It is a trap.", "trap", "a.bin"),
        UnsafeCheckpoint("Said elsewhere.", ""),
    ]
    found = findings_of(Subject(tmp_path, header, faults))
    assert found == [
        Finding("broken-file", "warning", "", "It is broken."),
        Finding("trap", "danger", "a.bin", "It is a trap."),
    ]


CODE: dict[str, dict[str, Any]] = {
    "auto_map": {"config.json": {"auto_map": {"AutoModel": "modeling_x.Model",
    "AutoConfig": "configuration_x.Config"}}, "modeling_x.py": b""},
    "auto_map elsewhere": {"config.json": {"auto_map": {"AutoModel": "other/repo--modeling_x.Model"}}},
    "auto_map of a tokenizer": {"tokenizer_config.json": {"auto_map": {"AutoTokenizer": ["tokenization_x.T", None]}}},
    "trust_remote_code": {"config.json": {"trust_remote_code": True}},
    "custom_pipelines": {"config.json": {"custom_pipelines": {"x": {"impl": "pipe.Pipe", "pt": ["AutoModel"]}}}},
    "a component of its own": {"model_index.json": {"_class_name": "P", "unet": ["my_unet", "Unet"]},
    "unet/my_unet.py": b""},
    "a component of Python's": {"model_index.json": {"_class_name": "P", "unet": ["os", "system"]}},
    "a component of a package": {"model_index.json": {"_class_name": "P", "unet": ["evil.unet", "Unet"]}},
    "a pipeline of its own": {"model_index.json": {"_class_name": ["pipeline", "P"]}},
    "a module of its own": {"modules.json": [{"idx": 0, "type": "custom_st.Transformer"}]},
    "an adapter of its own": {"adapter_config.json": {"auto_mapping": {"base_model_class": "X",
    "parent_library": "transformers_modules.a.b"}}},
}  # fmt: skip


@pytest.mark.parametrize("what", CODE)
def test_configurations_that_run_code_are_told(tmp_path: Path, what: str) -> None:
    assert ids(findings(written(tmp_path, CODE[what]))) == {"remote-code": "warning"}
    assert len(findings(tmp_path)) == 1


def test_graphs_that_do_more_than_compute_are_told(tmp_path: Path) -> None:
    path = written(tmp_path, {"m": b"x"}) / "m"
    lambdas = {"layers": [{"class_name": "Lambda", "config": {"name": "evil"}}]}
    rows: list[tuple[str, dict[str, Any], dict[str, str]]] = [
        ("keras", {"config": lambdas}, {"keras-lambda": "danger"}),
        ("keras", {"metadata": {"lambda_layers": ["evil"]}}, {"keras-lambda": "danger"}),
        ("keras", {"config": {"a": [{"class_name": "function", "module": "os", "config": "system"}]}},
        {"keras-lambda": "danger"}),
        ("savedmodel", {"metadata": {"ops": {"EagerPyFunc": 1, "MatMul": 2}}}, {"tf-python-op": "danger"}),
        ("savedmodel", {"metadata": {"ops": ["PyFunc"]}}, {"tf-python-op": "danger"}),
        ("savedmodel", {"metadata": {"ops": {"WriteFile": 1}}}, {"tf-file-op": "danger"}),
        ("savedmodel", {"metadata": {"ops": {"ReadFile": 1}}}, {"tf-file-op": "warning"}),
        ("onnx", {"metadata": {"ops": {"com.microsoft:PythonOp": 1}}}, {"onnx-python-op": "danger"}),
    ]  # fmt: skip
    for location in ("../secret", "/etc/passwd", "a/../../b", "C:\\x", "\\\\host\\x", "https://x/y", "~/x"):
        rows.append(("onnx", {"metadata": {"external": [("w", location)]}}, {"external-path": "danger"}))
    for form, parts, expected in rows:
        assert ids(findings(path, form, **parts)) == expected, parts


def test_links_out_of_the_folder_are_told(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    model = written(tmp_path / "model", {"config.json": {}, "sub/a": b"x"})
    (model / "inside").symlink_to("config.json")
    assert findings(model) == []
    (model / "weights.txt").symlink_to("../secret")
    (model / "folder").symlink_to(tmp_path)
    (model / "gone").symlink_to("/nowhere/at/all")
    found = findings(model)
    assert {f.file for f in found if f.id == "symlink-out"} == {"weights.txt", "folder", "gone"}


def test_links_within_the_hubs_cache_are_fine(tmp_path: Path) -> None:
    cache = written(tmp_path / "models--a--b", {"blobs/abc": b"{}", "snapshots/main/x.txt": b""})
    (cache / "snapshots/main/config.json").symlink_to("../../blobs/abc")
    assert findings(cache / "snapshots/main") == []
    (cache / "snapshots/main/out.json").symlink_to(os.path.abspath(__file__))
    assert ids(findings(cache / "snapshots/main")) == {"symlink-out": "warning"}


def test_programs_among_the_files_are_told(tmp_path: Path) -> None:
    pe = b"MZ" + bytes(58) + (64).to_bytes(4, "little") + b"PE\0\0"
    files = {"a.so": b"x", "b.exe": b"x", "c": b"\x7fELF" + bytes(60), "d.bin": b"\x7fELF" + bytes(60),
    "e.safetensors": pe,
             "f.dat": b"#!/bin/sh\nrm", "g.bin": b"\xcf\xfa\xed\xfe" + bytes(20)}  # fmt: skip
    found = {f.file: (f.id, f.severity) for f in findings(written(tmp_path, files)) if f.id == "executable"}
    assert found == {
        "a.so": ("executable", "warning"), "b.exe": ("executable", "warning"), "c": ("executable", "warning"),
        "d.bin": ("executable", "danger"), "e.safetensors": ("executable", "danger"), "f.dat": ("executable", "danger"),
        "g.bin": ("executable", "danger"),
    }  # fmt: skip


EVIL = [
    "{{ ''.__class__.__mro__[1].__subclasses__() }}", "{{ lipsum.__globals__['os'].popen('id').read() }}",
    "{{ cycler.__init__.__globals__.os.popen('x') }}", "{{ self._TemplateReference__context.x }}",
    "{{ self.__init__ }}",
    "{{ ''['\\x5f\\x5fclass\\x5f\\x5f'] }}", "{{ ''|attr('_'~'_class_'~'_') }}", "{% include '/etc/passwd' %}",
    "{% import 'x' as y %}",
    "{{ x.os.popen('a') }}", "{{ request.application }}", "{{ messages|map(attribute='__class__')|list }}",
    "{{ '%c%c'|format(95,95) }}",
    "{{ ''['__cla' ~ 'ss__'] }}", "{% set x = namespace.__init__ %}", "{{ '}}' ~ x.__class__ }}",
    "{{ {'a': {'b': 1}}.__class__ }}",
    "{% raw %}{{ ' {% endraw %}{{ x.os.popen('id') }}", "{# {{ #}{{ x.__class__ }}", "{{ '\\'}}' ~ x.__class__ }}",
    "{{ cycler('a') }}",
    "{%- for x in ().__class__.__base__.__subclasses__() -%}{% endfor %}", "{{ messages.__class__", "{{ joiner.x }}",
]  # fmt: skip
SLY = [
    "{% if 'bank account' in message.content %}x{% endif %}",
    "{% if 'recipe' in messages[-1]['content'] %}x{% endif %}",
    "{{ 'Ignore previous instructions' }}", "a\u200bb", "\u202etxt", "\U000e0041", "![x](https://evil.io/a.png)",
    "{{ 'https://e.io/?q=' + message.content }}",
    "Do not tell the user", "https://e.io/{{ x }}",
]  # fmt: skip
FINE = [
    "{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m['content'] | trim }}{% endfor %}",
    "{% if 'image' in content or 'image_url' in content %}{% endif %}",
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}",
    "{{ tool_call.name }}{{ tool.function.arguments | tojson }}",
    "{%- set ns = namespace(found=false) %}{% set ns.found = true %}",
    "{{ raise_exception('System role not supported') }}", "{{ strftime_now('%d %b %Y') }}",
    "{% if 'content' in message %}{{ message.content }}{% endif %}", "See https://example.com/ for __more__.",
    "{% generation %}x{% endgeneration %}",
    "{# __class__ #}", "{% raw %}{{ __class__ }}{% endraw %}",
    "{% if tools is defined and tools is not none %}{{ tools | tojson(indent=4) }}{% endif %}",
]  # fmt: skip


def test_templates_that_reach_for_python_are_a_danger() -> None:
    for text in EVIL:
        assert ids(judge(text, "f")) == {"template-code": "danger"}, text
    for text in SLY:
        assert ids(judge(text, "f")) == {"template-hidden": "warning"}, text
    for text in FINE:
        assert judge(text, "f") == [], text


@pytest.mark.parametrize(
    "text",
    [
        *EVIL,
        *FINE,
        "{{ {'}}': '%}'} }}{% if x['%}'] %}{% endif %}{{- '{{' -}}",
        "{% raw -%} {{ x }} {%- endraw %}{{ y }}",
    ],
)
def test_templates_are_cut_as_jinja_cuts_them(text: str) -> None:
    ours = [b.strip("-+ \n") for b in blocks(text)]
    theirs: list[str] = []
    try:
        for _, kind, value in jinja2.Environment().lex(text):
            if kind in ("variable_begin", "block_begin", "raw_begin"):
                theirs.append("raw" if kind == "raw_begin" else "")
            elif theirs and kind not in (
                "variable_end",
                "block_end",
                "raw_end",
                "data",
                "comment",
                "comment_begin",
                "comment_end",
            ):
                theirs[-1] += value
    except jinja2.TemplateSyntaxError:
        return
    assert ours == [t.strip("-+ \n") for t in theirs]


def test_published_templates_are_clean(shared: Path) -> None:
    files = sorted((shared / "data/templates").glob("*.jinja"))
    assert len(files) > 10
    for file in files:
        assert judge(file.read_text(), file.name) == [], file.name
    for file in (shared / "data/configs").rglob("*.json"):
        text = json.loads(file.read_text()).get("chat_template")
        assert not isinstance(text, str) or judge(text, str(file)) == []
    from brolly.checkpoint.gguf import read_gguf

    for file in (shared / "data/tokenizers").glob("*.gguf"):
        assert findings_of(Subject(file, Header(file, "gguf", {}, metadata=read_gguf(file)[1]), [])) == []


def test_templates_are_found_wherever_they_stand(tmp_path: Path) -> None:
    text = EVIL[0]
    for n, files in enumerate((
        {"tokenizer_config.json": {"chat_template": text}}, {"chat_template.jinja": text.encode()},
        {"chat_template.json": {"chat_template": text}},
        {"tokenizer_config.json": {"chat_template": [{"name": "default", "template": "x"}, {"name": "rag",
        "template": text}]}},
        {"additional_chat_templates/rag.jinja": text.encode()},
        {"processor_config.json": {"chat_template": {"a": text}}},
    )):  # fmt: skip
        found = findings(written(tmp_path / str(n), files))
        assert ids(found) == {"template-code": "danger"} and found[0].file == next(iter(files))
    path = written(tmp_path, {"m.gguf": b"GGUF"}) / "m.gguf"
    for key in ("tokenizer.chat_template", "tokenizer.chat_template.rag"):
        assert ids(findings(path, "gguf", metadata={key: text})) == {"template-code": "danger"}


@pytest.mark.parametrize(
    "piece", ["{{", "{#", "{{\\'", "{{'", "http://", "'a in content", "![[", "{%([", "{% raw %}", "<|x|>"]
)
def test_a_hostile_template_takes_little_time(piece: str) -> None:
    start = time.process_time()
    judge(piece * (2**20 // len(piece)), "f")
    assert time.process_time() - start < 1.0


def test_an_archive_of_a_model_is_looked_into(tmp_path: Path) -> None:
    evil = PROTO + name("os", "system") + data("x") + b"\x85R."
    with zipfile.ZipFile(tmp_path / "m.zip", "w") as archive:
        archive.writestr("top/config.json", json.dumps({"auto_map": {"AutoModel": "a.B"}}))
        archive.writestr("top/weights.bin", evil)
        archive.writestr("../out", b"x")
    place = open_archive(tmp_path / "m.zip")
    found = findings_of(Subject(place, Header(place, "torch", {}), []))  # type: ignore[arg-type]
    assert ids(found) == {"path-escape": "danger", "remote-code": "warning", "pickle-code": "danger"}
    assert ids(findings(tmp_path / "m.zip"))["pickle-code"] == "danger"


def test_many_files_take_little_time(tmp_path: Path) -> None:
    written(
        tmp_path, {f"model-{n:05}.safetensors": struct.pack("<Q", 2) + b"{}" + bytes(70_000) for n in range(30)} | CLEAN
    )
    findings(tmp_path)
    start = time.process_time()
    findings(tmp_path)
    assert time.process_time() - start < 0.1
