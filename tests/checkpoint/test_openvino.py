"""OpenVINO's XML and .bin, written by hand after the published format, hostile XML, and damage."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from brolly.checkpoint.openvino import read_openvino
from brolly.errors import CheckpointError, UnsafeCheckpoint
from tests.checkpoint.spoilt import only_our_errors

WEIGHT, SCALE = bytes(range(12)), bytes(4)


def const(name: str, kind: str, shape: str, offset: int, size: int) -> str:
    data = f'<data element_type="{kind}" shape="{shape}" offset="{offset}" size="{size}"/>'
    return f'<layer id="1" name="{name}" type="Const" version="opset1">{data}<output><port id="0"/></output></layer>'


DIMS = '<output><port id="0" precision="FP32"><dim>1</dim><dim>3</dim></port></output>'
BODY = (
    '<layer id="0" name="x" type="Parameter" version="opset1"><data shape="?,3" element_type="f32"/></layer>'
    + const("w", "f16", "2, 3", 0, 12)
    + const("packed", "u4", "3", 12, 2)
    + const("words", "string", "1", 14, 2)
    + '<layer id="4" name="If_1" type="If" version="opset8"><then_body><layers>'
    + const("w", "i8", "2", 14, 2)
    + '<layer id="9" name="inner" type="Parameter" version="opset1"/></layers></then_body></layer>'
    + f'<layer id="5" name="mm" type="MatMul" version="opset1">{DIMS}</layer>'
    + '<layer id="6" name="y" type="Result" version="opset1"/>'
)
MODE = '<nncf><weight_compression><mode value="int4_sym"/></weight_compression></nncf>'
NOTES = f'<rt_info><MO_version value="2024.1"/>{MODE}</rt_info>'


def write(folder: Path, body: str = BODY, notes: str = NOTES, n_bytes: int = 16) -> Path:
    path = folder / "m.xml"
    path.write_text(f'<?xml version="1.0"?><net name="net" version="11"><layers>{body}</layers><edges/>{notes}</net>')
    (folder / "m.bin").write_bytes((WEIGHT + SCALE)[:n_bytes])
    return path


def test_constants_are_told_with_the_true_place_of_their_bytes(tmp_path: Path) -> None:
    path = write(tmp_path)
    for named in (path, tmp_path / "m.bin"):
        header = read_openvino(named)
        assert header.format == "openvino" and header.files == (path, tmp_path / "m.bin")
        assert {k: (t.dtype, t.shape, t.offset, t.nbytes) for k, t in header.tensors.items()} == {
            "w": ("F16", (2, 3), 0, 12), "packed": ("U4", (3,), 12, 2), "w#2": ("I8", (2,), 14, 2),
        }  # fmt: skip
        assert all(t.file == tmp_path / "m.bin" for t in header.tensors.values())


def test_the_model_tells_of_itself(tmp_path: Path) -> None:
    says = read_openvino(write(tmp_path)).metadata
    assert says["ir_version"] == "11" and says["name"] == "net" and says["opsets"] == ["opset1", "opset8"]
    assert says["ops"] == {"Const": 4, "Parameter": 2, "If": 1, "MatMul": 1, "Result": 1}
    assert says["inputs"] == [{"name": "x", "dtype": "F32", "shape": [None, 3]}] and len(says["outputs"]) == 1
    assert says["rt_info"] == {"MO_version": "2024.1", "nncf/weight_compression/mode": "int4_sym"}
    assert says["texts"] == ["words"] and says["faults"] == []


def test_weights_that_are_missing_or_cut_short_are_a_fault(tmp_path: Path) -> None:
    path = write(tmp_path, n_bytes=13)
    header = read_openvino(path)
    assert header.tensors["w"].offset == 0 and header.tensors["packed"].offset == -1
    assert len(header.metadata["faults"]) == 1 and "m.bin ends at 13 bytes" in header.metadata["faults"][0]
    (tmp_path / "m.bin").unlink()
    header = read_openvino(path)
    assert len(header.tensors) == 3 and "missing" in header.metadata["faults"][0]


def test_blobs_of_the_old_versions_are_counted(tmp_path: Path) -> None:
    body = (
        '<layer id="0" name="conv" precision="FP16" type="Convolution"><blobs>'
        '<weights offset="0" size="12"/><biases offset="12" size="4" precision="FP32"/></blobs></layer>'
    )
    body = body.replace('type="Convolution">', f'type="Convolution">{DIMS.replace("FP32", "FP16")}')
    found = read_openvino(write(tmp_path, body)).tensors
    assert {k: (t.dtype, t.shape) for k, t in found.items()} == {
        "conv/weights": ("F16", (6,)), "conv/biases": ("F32", (1,)),
    }  # fmt: skip


BOMB = "<!DOCTYPE b [" + "".join(f'<!ENTITY e{i} "{f"&e{i - 1};" * 10 if i else "ha"}">' for i in range(12)) + "]>"


@pytest.mark.parametrize(
    "text",
    [
        BOMB + "<net>&e11;</net>",
        '<!DOCTYPE x [<!ENTITY f SYSTEM "file:///etc/passwd">]><net>&f;</net>',
        '<!DOCTYPE x SYSTEM "http://127.0.0.1/x.dtd"><net/>',
    ],
)
def test_entities_are_refused_before_they_are_expanded(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.xml").write_text(text)
    with pytest.raises(UnsafeCheckpoint, match="entities"):
        read_openvino(tmp_path / "m.xml")


@pytest.mark.parametrize(
    "text",
    [
        "", "no xml", "<html></html>", "<net></net>", "<net>" + "<a>" * 200, "<net><layers></net>",
        '<net a="' + "x" * 3_000_000 + '"/>', "<net><!--" + "x" * 3_000_000,
        f"<net><layers>{'<a/>' * 700_000}</layers></net>",
        f"<net><layers>{const('w', 'f32', '2', 0, 9)}</layers></net>",
        f"<net><layers>{const('w', 'f99', '2', 0, 8)}</layers></net>",
        f"<net><layers>{const('w', 'f32', '-2', 0, 8)}</layers></net>",
        f"<net><layers>{const('w', 'f32', ','.join('1' * 17), 0, 4)}</layers></net>",
    ],
    ids=lambda text: text[:24],
)  # fmt: skip
def test_what_is_no_model_is_an_error_soon(tmp_path: Path, text: str) -> None:
    (tmp_path / "m.xml").write_text(text)
    start = time.process_time()
    with pytest.raises(CheckpointError, match="m.xml"):
        read_openvino(tmp_path / "m.xml")
    assert time.process_time() - start < 2


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    path = write(tmp_path)
    assert only_our_errors(read_openvino, path, path.read_bytes(), 1000) > 300
