"""TensorRT engines: named, never opened."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from brolly.checkpoint.tensorrt import read_tensorrt
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors

PLAN = b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes([10, 3, 0, 26]) + b"\x5a" * 500


def test_a_plan_tells_the_version_that_built_it(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(PLAN)
    header = read_tensorrt(path)
    assert header.format == "tensorrt" and dict(header.tensors) == {} and header.files == (path,)
    says = header.metadata
    assert says["opaque"] and says["magic"] == "ftrt" and says["serialization"] == 0 and says["tensorrt"] == "10.3.0.26"


def test_an_engine_of_another_layout_tells_no_version(tmp_path: Path) -> None:
    path = tmp_path / "m.plan"
    path.write_bytes(b"ftrt" + struct.pack("<I", 7) + bytes(60))
    assert read_tensorrt(path).metadata["tensorrt"] is None
    path.write_bytes(bytes(range(1, 200)))
    says = read_tensorrt(path).metadata
    assert says["magic"] is None and says["tensorrt"] is None and says["opaque"]


def test_the_notes_that_ultralytics_writes_are_read(tmp_path: Path) -> None:
    notes = json.dumps({"task": "detect", "names": {"0": "person"}, "license": "AGPL-3.0"}).encode()
    path = tmp_path / "m.engine"
    path.write_bytes(struct.pack("<I", len(notes)) + notes + PLAN)
    says = read_tensorrt(path).metadata
    assert says["written_by"] == "Ultralytics" and says["model"]["license"] == "AGPL-3.0"
    assert says["tensorrt"] == "10.3.0.26"


def test_the_config_of_tensorrt_llm_is_found_and_no_other(tmp_path: Path) -> None:
    (tmp_path / "rank0.engine").write_bytes(PLAN)
    (tmp_path / "config.json").write_text('{"pretrained_config": {"architecture": "LlamaForCausalLM"}}')
    assert read_tensorrt(tmp_path / "rank0.engine").config["pretrained_config"]["architecture"] == "LlamaForCausalLM"
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    assert read_tensorrt(tmp_path / "rank0.engine").config == {}
    (tmp_path / "config.json").write_text("{")
    assert read_tensorrt(tmp_path / "rank0.engine").config == {}


@pytest.mark.parametrize("raw", [b"", b"abc", bytes(1000)])
def test_what_is_no_engine_is_an_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.trt").write_bytes(raw)
    with pytest.raises(CheckpointError, match="m.trt"):
        read_tensorrt(tmp_path / "m.trt")


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.engine"
    path.write_bytes(struct.pack("<I", 20) + b'{"task": "segment" }' + PLAN[:100])
    assert only_our_errors(read_tensorrt, path, path.read_bytes(), 500) > 20
