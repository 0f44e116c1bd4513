"""SavedModels and checkpoints, written here byte by byte after the published formats, and their damage."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest

from brolly.checkpoint.sstable import unsnap
from brolly.checkpoint.tensorflow import read_graphdef, read_savedmodel, read_tf_checkpoint
from brolly.errors import CheckpointError
from tests.checkpoint.spoilt import only_our_errors

FLOAT, STRING, INT64, BFLOAT16, FLOAT_REF = 1, 7, 9, 14, 101
MAGIC = struct.pack("<Q", 0xDB4775248B80FB57)
Entry = tuple[int, list[int], bytes]  # type, shape, numbers


def varint(n: int) -> bytes:
    raw = b""
    n &= 2**64 - 1
    while n > 127:
        raw, n = raw + bytes([n & 127 | 128]), n >> 7
    return raw + bytes([n])


def field(number: int, value: int | bytes | str) -> bytes:
    """One field of a protocol buffer."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape(*sizes: int) -> bytes:
    return b"".join(field(2, field(1, n)) for n in sizes)


def entry(kind: int, sizes: list[int], offset: int, size: int, shard: int = 0) -> bytes:
    """A BundleEntryProto."""
    place = (field(3, shard) if shard else b"") + (field(4, offset) if offset else b"") + field(5, size)
    return field(1, kind) + field(2, shape(*sizes)) + place + b"\x35" + bytes(4)


def table(rows: dict[bytes, bytes], per_block: int = 3, compress: bool = False) -> bytes:
    """A LevelDB table: sorted keys, a restart point every two, an index of blocks, a footer."""
    raw, index = b"", {}
    keys = sorted(rows)
    for i in range(0, len(keys), per_block):
        some = keys[i : i + per_block]
        body, kind = block({k: rows[k] for k in some}), 0
        if compress:
            cramjam = pytest.importorskip("cramjam", reason="cramjam compresses what is decompressed here")
            body, kind = bytes(cramjam.snappy.compress_raw(body)), 1
        index[some[-1] + b"\xff"] = varint(len(raw)) + varint(len(body))
        raw += body + bytes([kind]) + bytes(4)
    handles = b""
    for body in (block({}), block(index)):
        handles += varint(len(raw)) + varint(len(body))
        raw += body + bytes(5)
    return raw + handles.ljust(40, b"\0") + MAGIC


def block(rows: dict[bytes, bytes]) -> bytes:
    raw, restarts, last = b"", [0], b""
    for i, (key, value) in enumerate(rows.items()):
        shared = 0
        if i % 2:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        elif i:
            restarts.append(len(raw))
        raw += varint(shared) + varint(len(key) - shared) + varint(len(value)) + key[shared:] + value
        last = key
    return raw + b"".join(struct.pack("<I", r) for r in restarts) + struct.pack("<I", len(restarts))


def checkpoint(folder: Path, name: str, tensors: dict[str, Entry], compress: bool = False, shards: int = 1) -> Path:
    """A version 2 checkpoint; the index. The tensors go into the shards in turn."""
    rows = {b"": field(1, shards) + field(3, field(1, 1))}
    data = [b""] * shards
    for i, (key, (kind, sizes, numbers)) in enumerate(tensors.items()):
        rows[key.encode()] = entry(kind, sizes, len(data[i % shards]), len(numbers), i % shards)
        data[i % shards] += numbers
    folder.mkdir(parents=True, exist_ok=True)
    for i, raw in enumerate(data):
        (folder / f"{name}.data-{i:05d}-of-{shards:05d}").write_bytes(raw)
    (folder / f"{name}.index").write_bytes(table(rows, compress=compress))
    return folder / f"{name}.index"


TENSORS: dict[str, Entry] = {
    "layer_with_weights-0/bias/.ATTRIBUTES/VARIABLE_VALUE": (FLOAT, [3], np.arange(3, dtype="<f4").tobytes()),
    "layer_with_weights-0/kernel/.ATTRIBUTES/VARIABLE_VALUE": (FLOAT, [2, 3], np.arange(6, dtype="<f4").tobytes()),
    "layer_with_weights-0/kernel/.OPTIMIZER_SLOT/optimizer/m/.ATTRIBUTES/VARIABLE_VALUE": (FLOAT, [2, 3], bytes(24)),
    "layer_with_weights-1/table/.ATTRIBUTES/VARIABLE_VALUE": (BFLOAT16, [4, 2], bytes(range(16))),
    "save_counter/.ATTRIBUTES/VARIABLE_VALUE": (INT64, [], bytes(8)),
}
TEXT: dict[str, Entry] = {"_CHECKPOINTABLE_OBJECT_GRAPH": (STRING, [], b"\x05graph")}


@pytest.mark.parametrize(("compress", "shards"), [(False, 1), (True, 1), (False, 2)])
def test_a_checkpoint_is_told_with_the_true_place_of_its_bytes(tmp_path: Path, compress: bool, shards: int) -> None:
    index = checkpoint(tmp_path, "ckpt-7", TENSORS | TEXT, compress, shards)
    header = read_tf_checkpoint(index)
    assert header.format == "tf-checkpoint" and len(header.files) == 1 + shards
    assert {t.dtype for t in header.tensors.values()} == {"F32", "BF16", "I64"}
    assert {k: t.shape for k, t in header.tensors.items()} == {k: tuple(v[1]) for k, v in TENSORS.items()}
    for name, (_, _, numbers) in TENSORS.items():
        info = header.tensors[name]
        assert Path(str(info.file)).read_bytes()[info.offset : info.offset + info.nbytes] == numbers
    says = header.metadata
    assert says["version"] == 2 and says["shards"] == shards and says["texts"] == list(TEXT) and says["faults"] == []
    assert [name.split("/")[0] for name in says["training_state"]] == ["layer_with_weights-0", "save_counter"]


def test_a_prefix_a_folder_and_its_checkpoint_file_lead_to_the_index(tmp_path: Path) -> None:
    for step in (9, 10):
        checkpoint(tmp_path, f"ckpt-{step}", {f"w{step}": (FLOAT, [1], bytes(4))})
    assert list(read_tf_checkpoint(tmp_path / "ckpt-9").tensors) == ["w9"]
    assert list(read_tf_checkpoint(tmp_path).tensors) == ["w10"]
    (tmp_path / "checkpoint").write_text(
        'model_checkpoint_path: "/elsewhere/ckpt-9"\nall_model_checkpoint_paths: "x"\n'
    )
    for path in (tmp_path, tmp_path / "checkpoint"):
        header = read_tf_checkpoint(path)
        assert list(header.tensors) == ["w9"] and header.metadata["latest"] == "ckpt-9"
    (tmp_path / "checkpoint").write_text('model_checkpoint_path: ".."\n')
    assert list(read_tf_checkpoint(tmp_path).tensors) == ["w10"]


def test_a_missing_or_short_shard_is_a_fault_and_the_shapes_are_told(tmp_path: Path) -> None:
    index = checkpoint(tmp_path, "m", TENSORS, shards=2)
    (tmp_path / "m.data-00001-of-00002").unlink()
    data = tmp_path / "m.data-00000-of-00002"
    data.write_bytes(data.read_bytes()[:-1])
    header = read_tf_checkpoint(index)
    assert len(header.tensors) == 5 and sum(t.offset >= 0 for t in header.tensors.values()) == 2
    assert sorted("missing" in fault for fault in header.metadata["faults"]) == [False, True]


def test_a_partitioned_variable_has_its_whole_shape(tmp_path: Path) -> None:
    whole = field(1, FLOAT) + field(2, shape(100, 4)) + field(7, field(1, b"")) + field(7, field(1, b""))
    rows = {b"": field(1, 1), b"embedding": whole, b"\0\1embedding\0\1": entry(FLOAT, [50, 4], 0, 800)}
    (tmp_path / "m.index").write_bytes(table(rows))
    header = read_tf_checkpoint(tmp_path / "m.index")
    assert {k: (t.shape, t.offset, t.nbytes) for k, t in header.tensors.items()} == {"embedding": ((100, 4), -1, 1600)}
    assert header.metadata["partitioned"] == ["embedding"]


def test_a_version_1_checkpoint_is_told_by_its_table_of_contents(tmp_path: Path) -> None:
    rows = [("conv/weights", FLOAT, (3, 3)), ("conv/weights/Adam", FLOAT_REF, (3, 3)), ("names", STRING, (2,))]
    meta = b"".join(field(1, field(1, n) + field(2, shape(*s)) + field(3, k)) for n, k, s in rows)
    path = tmp_path / "model.ckpt-5"
    path.write_bytes(table({b"": field(1, meta), b"\0conv/weights": field(2, bytes(40))}, per_block=1))
    header = read_tf_checkpoint(path)
    assert header.metadata["version"] == 1 and header.metadata["texts"] == ["names"]
    assert {k: (t.shape, t.offset) for k, t in header.tensors.items()} == {
        "conv/weights": ((3, 3), -1), "conv/weights/Adam": ((3, 3), -1),
    }  # fmt: skip
    assert header.metadata["training_state"] == ["conv/weights/Adam"]


@pytest.mark.parametrize(
    "bad",
    [
        entry(FLOAT, [2, 3], 0, 23),
        entry(FLOAT, [2, 3], 0, 24, shard=5),
        entry(55, [2, 3], 0, 24),
        entry(FLOAT, [-2, -3], 0, 24),
        entry(FLOAT, [2] * 17, 0, 24),
        b"\xff",
    ],
)
def test_an_entry_that_contradicts_itself_is_an_error(tmp_path: Path, bad: bytes) -> None:
    (tmp_path / "m.index").write_bytes(table({b"": field(1, 1), b"w": bad}))
    with pytest.raises(CheckpointError, match="m.index"):
        read_tf_checkpoint(tmp_path / "m.index")


def node(name: str, op: str, value: bytes = b"") -> bytes:
    """A NodeDef, with a tensor as its value."""
    return field(1, name) + field(2, op) + (field(5, field(1, "value") + field(2, field(8, value))) if value else b"")


def tensor(kind: int, sizes: list[int], numbers: bytes, number: int = 4) -> bytes:
    return field(1, kind) + field(2, shape(*sizes)) + field(number, numbers)


def graph(*nodes: bytes, functions: dict[str, list[bytes]] | None = None) -> bytes:
    library = b""
    for name, body in (functions or {}).items():
        library += field(1, field(1, field(1, name)) + b"".join(field(3, n) for n in body))
    return b"".join(field(1, n) for n in nodes) + field(2, library)


def signature(**ends: tuple[str, int, list[int]]) -> bytes:
    raw = b""
    for side, (name, kind, sizes) in ends.items():
        value = field(1, "t:0") + field(2, kind) + field(3, shape(*sizes))
        raw += field(1 if side == "inputs" else 2, field(1, name) + field(2, value))
    return raw


def saved_model(folder: Path, graph_def: bytes) -> Path:
    info = field(4, "serve") + field(5, "2.16.1")
    said = signature(inputs=("image", FLOAT, [-1, 28]), outputs=("scores", FLOAT, [-1, 10]))
    meta = field(1, info) + field(2, graph_def) + field(5, field(1, "serving_default") + field(2, said))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "saved_model.pb").write_bytes(field(1, 1) + field(2, meta + field(6, field(2, "vocab.txt"))))
    return folder


def test_a_saved_model_tells_its_variables_operators_and_signatures(tmp_path: Path) -> None:
    epsilon = node("eps", "Const", tensor(FLOAT, [1], bytes(4)))
    body = graph(node("v", "VarHandleOp"), functions={"f": [node("r", "ReadFile"), node("m", "MatMul"), epsilon]})
    folder = saved_model(tmp_path / "model", body)
    checkpoint(folder / "variables", "variables", TENSORS)
    for path in (folder, folder / "saved_model.pb"):
        header = read_savedmodel(path)
        assert header.format == "savedmodel" and list(header.tensors) == list(TENSORS)
        says = header.metadata
        assert says["ops"] == {"VarHandleOp": 1, "ReadFile": 1, "MatMul": 1, "Const": 1} and says["functions"] == 1
        assert says["tags"] == ["serve"] and says["tensorflow_version"] == "2.16.1" and says["assets"] == ["vocab.txt"]
        assert says["signatures"]["serving_default"] == {
            "inputs": [{"name": "image", "dtype": "F32", "shape": [None, 28]}],
            "outputs": [{"name": "scores", "dtype": "F32", "shape": [None, 10]}],
        }
    (folder / "variables" / "variables.index").unlink()
    assert "lacks variables/variables.index" in read_savedmodel(folder).metadata["faults"][0]


def test_a_frozen_graph_has_its_weights_in_constants(tmp_path: Path) -> None:
    numbers = np.arange(6, dtype="<f4").tobytes()
    raw = graph(
        node("w", "Const", tensor(FLOAT, [2, 3], numbers)),
        node("typed", "Const", tensor(FLOAT, [6], numbers, 5)),
        node("repeated", "Const", tensor(FLOAT, [1000], numbers[:4], 5)),
        node("words", "Const", tensor(STRING, [1], b"hello", 8)),
        node("y", "MatMul"),
    )
    (tmp_path / "frozen.pb").write_bytes(raw)
    header = read_graphdef(tmp_path / "frozen.pb")
    assert {k: t.shape for k, t in header.tensors.items()} == {"w": (2, 3), "typed": (6,)}
    for info in header.tensors.values():
        assert raw[info.offset : info.offset + info.nbytes] == numbers
    header = read_savedmodel(saved_model(tmp_path / "model", raw))
    assert list(header.tensors) == header.metadata["constants"] == ["w", "typed"]


@pytest.mark.parametrize("raw", [b"", b"\0" * 100, MAGIC, bytes(40) + MAGIC, b"\xff" * 40 + MAGIC])
def test_what_is_no_table_is_an_error(tmp_path: Path, raw: bytes) -> None:
    (tmp_path / "m.index").write_bytes(raw)
    with pytest.raises(CheckpointError, match="m.index"):
        read_tf_checkpoint(tmp_path / "m.index")


def test_snappy_agrees_with_the_snappy_library() -> None:
    cramjam = pytest.importorskip("cramjam", reason="cramjam compresses what is decompressed here")
    rng = np.random.default_rng(0)
    for n in (0, 1, 59, 60, 61, 255, 256, 257, 5000, 70_000):
        for raw in (
            bytes(n),
            bytes(rng.integers(0, 3, n, dtype=np.uint8)),
            bytes(rng.integers(0, 256, n, dtype=np.uint8)),
        ):
            assert unsnap(bytes(cramjam.snappy.compress_raw(raw)), n) == raw


@pytest.mark.parametrize("raw", [b"", b"\x05", b"\xff\xff\xff\xff\x0f\0a", b"\x04\x0c", b"\x04\x01\0", b"\x01\x04ab"])
def test_snappy_refuses_what_does_not_add_up(raw: bytes) -> None:
    with pytest.raises((ValueError, IndexError)):
        unsnap(raw, 2**20)


def test_damage_is_met_with_our_errors_alone(tmp_path: Path) -> None:
    index = checkpoint(tmp_path / "v", "m", TENSORS | TEXT)
    assert only_our_errors(read_tf_checkpoint, index, index.read_bytes(), 1000) > 300
    pytest.importorskip("cramjam", reason="cramjam compresses what is decompressed here")
    index = checkpoint(tmp_path / "c", "m", TENSORS | TEXT, compress=True)
    assert only_our_errors(read_tf_checkpoint, index, index.read_bytes(), 1000) > 300
    body = graph(node("w", "Const", tensor(FLOAT, [2, 3], bytes(24))), functions={"f": [node("m", "MatMul")]})
    folder = saved_model(tmp_path / "s", body)
    file = folder / "saved_model.pb"
    assert only_our_errors(read_savedmodel, file, file.read_bytes(), 1000, folder) > 100
