"""Pickles that run a program as soon as pickle.load sees them: refused by name, and nothing of them is executed."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path

import pytest

from brolly.errors import CheckpointError, UnsafeCheckpoint
from tests.checkpoint.hostile import survives
from tests.checkpoint.pickles import ENVELOPES, MAGIC, MARK, PROTO, STOP, data, in_zip, name, state, tensor


def gadgets(canary: Path) -> dict[str, bytes]:
    """Whole pickles, each of which creates the file `canary` when Python's own pickle reads it."""
    command = data(f"touch '{canary}'")
    line = f"touch '{canary}'"
    python = data(f"open({str(canary)!r}, 'w').close()")
    system, push = name("os", "system"), lambda text: b"\x8c" + bytes([len(text)]) + text.encode()  # noqa: E731
    runs = system + command + b"\x85R"
    namespace = name("argparse", "Namespace") + b")\x81"
    found = {
        "REDUCE": runs,
        "STACK_GLOBAL": push("os") + push("system") + b"\x93" + command + b"\x85R",
        "posix": name("posix", "system") + command + b"\x85R",
        "eval": name("builtins", "eval") + python + b"\x85R",
        "exec": name("builtins", "exec") + python + b"\x85R",
        "old eval": name("__builtin__", "eval") + python + b"\x85R",
        "INST": MARK + f"S{line!r}\n".encode() + b"ios\nsystem\n",
        "OBJ": MARK + system + command + b"o",
        "NEWOBJ": name("builtins", "bytes") + name("builtins", "map") + system + MARK + command + b"l\x86\x81\x85\x81",
        "NEWOBJ_EX": name("builtins", "bytes")
        + (name("builtins", "map") + system + MARK + command + b"l\x86}\x92")
        + b"\x85}\x92",
        "BUILD": namespace + b"}" + data("__setstate__") + system + b"sb" + command + b"b",
        "getattr": name("builtins", "getattr")
        + (name("importlib", "import_module") + data("os") + b"\x85R" + data("system") + b"\x86R")
        + command
        + b"\x85R",
        "dotted": b"\x80\x04" + push("shutil") + push("os.system") + b"\x93" + command + b"\x85R",
        "subprocess": name("subprocess", "check_call") + data(["touch", str(canary)]) + b"\x85R",
        "runpy": name("code", "InteractiveInterpreter") + b")R0" + runs,
        "thrown away": runs + b"0N",
        "in a list": b"](" + runs + b"e",
        "as a key": b"}" + runs + b"Ns",
        "in the memo": runs + b"q\x07h\x070",
        "thrown away with a mark": MARK + runs + b"1N",
        "state of a dictionary": name("collections", "OrderedDict") + b")R}" + data("x") + runs + b"sb",
        "pairs of a dictionary": name("collections", "OrderedDict") + b"](" + data("w") + runs + b"\x86e\x85R",
        "size": name("builtins", "list") + runs + b"\x85\x85R",
    }
    return {key: PROTO + body + STOP if key == "size" else state(body) for key, body in found.items()}


NAMES = list(gadgets(Path("x")))


@pytest.mark.parametrize("envelope", ENVELOPES)
@pytest.mark.parametrize("gadget", NAMES)
def test_a_gadget_is_refused_and_nothing_runs(tmp_path: Path, gadget: str, envelope: str) -> None:
    canary = tmp_path / "canary"
    body = gadgets(canary)[gadget]
    for suffix in (".pt", ".pth", ".bin", ".ckpt"):
        path = tmp_path / f"gadget{suffix}"
        path.write_bytes(ENVELOPES[envelope](body))
        assert isinstance(survives(path), UnsafeCheckpoint)
    assert not canary.exists()


@pytest.mark.parametrize("gadget", NAMES)
def test_every_gadget_is_live(tmp_path: Path, gadget: str) -> None:
    """Else the test above would show nothing."""
    canary = tmp_path / "canary"
    try:
        pickle.loads(gadgets(canary)[gadget])
    except TypeError as error:
        assert gadget in ("NEWOBJ", "NEWOBJ_EX", "size"), error
    assert canary.exists()


@pytest.mark.parametrize("at", range(5))
def test_a_gadget_in_any_of_the_five_legacy_pickles_is_refused(tmp_path: Path, at: int) -> None:
    canary = tmp_path / "canary"
    pickles = [pickle.dumps(v, 2) for v in (MAGIC, 1001, {})] + [state(tensor()), pickle.dumps(["0"], 2)]
    pickles[at] = gadgets(canary)["REDUCE"]
    (tmp_path / "old.pt").write_bytes(b"".join(pickles) + (4).to_bytes(8, "little") + bytes(16))
    assert isinstance(survives(tmp_path / "old.pt"), UnsafeCheckpoint)
    assert not canary.exists()


def test_what_follows_the_end_of_a_pickle_is_not_read(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "m.pt").write_bytes(in_zip(state(tensor()) + gadgets(canary)["REDUCE"]))
    assert survives(tmp_path / "m.pt") is None
    assert not canary.exists()


@pytest.mark.parametrize(
    "module, leaf",
    [
        ("torch", "load"),
        ("torch", "Tensor"),
        ("torch.storage", "_load_from_bytes"),
        ("torch._utils", "_rebuild_tensor_v2.__globals__"),
        ("torch._utils", "sys.modules"),
        ("torch", "os.system"),
        ("torch.storage", "torch.load"),
        ("torch.hub", "load"),
        ("numpy._core.multiarray", "_reconstruct"),
        ("collections", "OrderedDict.fromkeys"),
        ("collections", "Counter"),
        ("", "eval"),
        ("os", ""),
        ("__main__", "x"),
    ],
)
def test_only_the_names_of_tensors_are_known(tmp_path: Path, module: str, leaf: str) -> None:
    path = tmp_path / "name.pt"
    path.write_bytes(in_zip(state(name(module, leaf))))
    error = survives(path)
    assert isinstance(error, UnsafeCheckpoint)
    assert f"{module}.{leaf}" in str(error)


@pytest.mark.parametrize(
    "inner",
    [
        name("torch._utils", "_rebuild_tensor_v2") + data(("x", 0, (1,), (1,))) + b"R",
        name("torch._utils", "_rebuild_tensor_v2") + data("args") + b"R",
        name("torch._utils", "_rebuild_tensor_v2") + b")R",
        name("torch._utils", "_rebuild_parameter") + data((1, True)) + b"R",
        name("torch._utils", "_rebuild_tensor_v3") + name("torch", "Size") + b"\x85R",
        name("torch", "FloatStorage") + b")R",
        name("torch", "float32") + b")R",
        data("os.system") + b")R",
        tensor() + b")R",
        tensor() + data({"x": 1}) + b"b",
        MARK + data("module") + name("torch", "FloatStorage") + data("0") + data("cpu") + data(4) + b"tQ",
        MARK + data("storage") + data("FloatStorage") + data("0") + data("cpu") + data(4) + b"tQ",
        MARK + data("storage") + name("torch", "Size") + data("0") + data("cpu") + data(4) + b"tQ",
        MARK + data("storage") + name("torch", "FloatStorage") + data(0) + data("cpu") + data(4) + b"tQ",
        data("os") + b"Q",
        b"Pos\n",
        b"\x82\x01",
        b"\x83\x01\x00",
        b"\x84\x01\x00\x00\x00",
        b"\x97",
        b"\x96\x00\x00\x00\x00\x00\x00\x00\x00",
    ],
)
def test_functions_of_tensors_take_tensors_only(tmp_path: Path, inner: bytes) -> None:
    path = tmp_path / "odd.pt"
    path.write_bytes(in_zip(state(inner)))
    assert isinstance(survives(path), CheckpointError)


@pytest.mark.parametrize("where", ["data.pkl", "constants.pkl"])
def test_a_torchscript_program_that_asks_for_more_than_tensors_is_refused(tmp_path: Path, where: str) -> None:
    path = tmp_path / "script.pt"
    held = {"data.pkl": state(tensor()), "constants.pkl": b"\x80\x02)."}
    with zipfile.ZipFile(path, "w") as archive:
        for name, pickled in held.items():
            archive.writestr(f"script/{name}", b"cos\nsystem\n(S'echo'\ntR." if name == where else pickled)
        archive.writestr("script/data/0", bytes(16))
    error = survives(path)
    assert isinstance(error, UnsafeCheckpoint) and "TorchScript" in str(error)
