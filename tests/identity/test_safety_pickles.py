"""Pickles in a model's files: published ways past scanners are flagged, what honest libraries write is not.

Every hostile file is made here and never loaded. Advisories: github.com/mmaitre314/picklescan/security/advisories,
github.com/trailofbits/fickling/security/advisories, github.com/protectai/modelscan/issues; read 2026-11-25.
"""

from __future__ import annotations

import argparse
import bz2
import collections
import datetime
import gzip
import io
import lzma
import pathlib
import pickle
import random
import struct
import tarfile
import time
import uuid
import zipfile
import zlib
from pathlib import Path
from typing import Any

import pytest

from brolly.card import Finding, Header
from brolly.checkpoint.pickles import Name
from brolly.identity.pickled import judged
from brolly.identity.safety import findings_of
from brolly.identity.subject import Subject
from tests.checkpoint.pickles import MARK, PROTO, STOP, data, in_legacy, in_zip, name, state, tensor


def findings(path: Path) -> list[Finding]:
    return findings_of(Subject(path, Header(path, "", {}), []))


def of(tmp_path: Path, raw: bytes, file: str = "model.pkl") -> dict[str, str]:
    """Finding → severity of one file."""
    (tmp_path / file).write_bytes(raw)
    found = findings(tmp_path / file)
    assert all(f.file == file and f.message.count("\n") == 0 and len(f.message) < 700 for f in found)
    return {f.id: f.severity for f in found}


def call(module: str, leaf: str, *arguments: Any) -> bytes:
    return PROTO + name(module, leaf) + data(arguments) + b"R" + STOP


EVIL = call("os", "system", "true")


# What published bypasses called: picklescan GHSA-655q-fx9r-782v and kin, modelscan #338, fickling's, CVE-2026-56315
CALLED = """os.system posix.system nt.system subprocess.Popen subprocess.check_output builtins.eval builtins.exec
    builtins.getattr builtins.compile builtins.open builtins.__import__ __builtin__.eval __builtin__.execfile
    sys.exit socket.create_connection pty.spawn runpy._run_code runpy.run_path importlib.import_module
    importlib.reload pkgutil.resolve_name ctypes.CDLL shutil.rmtree webbrowser.open timeit.timeit pdb.run
    pdb.Pdb bdb.Bdb.run code.InteractiveInterpreter asyncio.unix_events._UnixSubprocessTransport._start
    multiprocessing.util.spawnv_passfds operator.attrgetter operator.methodcaller _operator.attrgetter
    functools.reduce types.CodeType types.FunctionType torch.hub.load torch.load torch.jit.load
    torch.serialization.load torch.utils.collect_env.run torch.utils._config_module.load_config
    torch._inductor.codecache.compile_file torch.jit.unsupported_tensor_ops.execWrapper
    torch.utils.bottleneck.__main__.run_cprofile torch.distributed.rpc.internal._run_function
    numpy.testing._private.utils.runstring numpy.f2py.crackfortran.getlincoef numpy.f2py.crackfortran.myeval
    numpy.load pip.main pip._internal.main pydoc.locate pydoc.pipepager cProfile.run profile.run
    profile.Profile.runctx trace.Trace.run idlelib.calltip.get_entity idlelib.run.Executive.runcode
    idlelib.pyshell.ModifiedInterpreter.runcommand lib2to3.pgen2.pgen.ParserGenerator.make_label
    distutils.spawn.spawn distutils.file_util.write_file logging.config.listen urllib.request.urlopen
    requests.get http.client.HTTPSConnection ssl.get_server_certificate tempfile.mktemp ensurepip._run_pip
    venv.create doctest.debug_script cgitb.lookup code.interact codeop.compile_command _io.FileIO marshal.loads
    pickle.loads _pickle.loads dill.loads cloudpickle.cloudpickle.subimport joblib.load
    mlflow.projects.backend.local._run_entry_point pandas.io.parsers.readers.read_csv pandas.read_pickle
    uuid._get_command_stdout imaplib.IMAP4_stream _pyrepl.pager.pipe_pager _osx_support._find_build_tool
    _aix_support._read_cmd_output platform.popen commands.getoutput test.support.script_helper.assert_python_ok
    copyreg.add_extension linecache.getline xmlrpc.client.ServerProxy smtplib.SMTP ftplib.FTP telnetlib.Telnet
    zipimport.zipimporter gc.get_objects fickling.hook.deactivate_safe_ml_environment
    picklescan.scanner.scan_file_path sqlite3.connect yaml.unsafe_load numpy.__builtins__
    collections.OrderedDict.__init__ torch._utils._rebuild_tensor_v2.__globals__ torch.os.system
    torch.storage.os somewhere.exec_command my.lib.spawn_shell some.lib.eval a.b.popen"""


@pytest.mark.parametrize("path", CALLED.split())
def test_code_by_any_published_name_is_a_danger(tmp_path: Path, path: str) -> None:
    at = next((i for i, part in enumerate(path.split(".")) if part[:1].isupper()), path.count("."))
    parts = path.split(".")
    if path.startswith(("collections.O", "torch._utils._r", "torch.os")):
        at = {"c": 1, "t": 2 if "_utils" in path else 1}[path[0]]
    module, leaf = ".".join(parts[:at]), ".".join(parts[at:])
    assert of(tmp_path, call(module, leaf, "x")) == {"pickle-code": "danger"}
    stack = b"\x80\x04" + pickle.dumps(module, 4)[11:-2] + pickle.dumps(leaf, 4)[11:-2] + b"\x93)R."
    assert of(tmp_path, stack) == {"pickle-code": "danger"}


@pytest.mark.parametrize(
    "path", ["sklearn.svm._classes.SVC", "mypackage.Model", "__main__.Net", "xgboost.core.Booster", "os2.x"]
)
def test_a_name_that_nobody_listed_is_a_warning(tmp_path: Path, path: str) -> None:
    module, _, leaf = path.rpartition(".")
    assert of(tmp_path, call(module, leaf)) == {"pickle-unknown-global": "warning"}


def test_every_function_of_pythons_library_is_told() -> None:
    """Whatever Python brings along, not on the list: never without a word."""
    for module in (
        "os",
        "subprocess",
        "socket",
        "shutil",
        "importlib",
        "runpy",
        "tempfile",
        "sys",
        "builtins",
        "functools",
    ):
        for leaf in dir(__import__(module)):
            harmless = {"collections", "builtins", "functools", "types"} & {module} and judged(
                Name(module, leaf)
            ) != "danger"
            assert judged(Name(module, leaf)) == "danger" or harmless, f"{module}.{leaf}"


HIDDEN = {
    "modelscan 330: BUILD on numpy's builtins": b"\x80\x04\x8c\x05numpy\x8c\x04size\x93\x94\x94\x8c\x05numpy"
    b"\x8c\x0c__builtins__\x93\x94\x94h\x01}}\x8c\x05shapeh\x03s\x86bh\x01h\x01\x8c\x04eval\x86R\x8c\x01x\x85R.",
    "modelscan 331: str.join": b"\x80\x04\x8c\x09importlib\x8c\x0dimport_module\x93\x94\x8c\x08builtins\x85R\x94.",
    "modelscan 267: a pickle in a pickle": call("pickle", "loads", EVIL),
    "saferpickle 1: shutil": PROTO + name("shutil", "copy") + b"(S'/etc/passwd'\nS'foo'\ntR.",
    "fickling: called and thrown away": PROTO + name("os", "system") + data("x") + b"\x85R0N.",
    "fickling: OBJ": PROTO + MARK + name("os", "system") + data("x") + b"o.",
    "fickling: INST": PROTO + MARK + data("x") + b"ios\nsystem\n.",
    "fickling: BUILD of an attribute": PROTO + name("argparse",
    "Namespace") + b")\x81}" + data("__setstate__") + name("os", "system") + b"sb" + data("x") + b"b.",
    "GHSA-9gvj-pp9x-gcfr: from the memo": b"\x80\x04\x8c\x02os\x94\x8c\x06system\x940h\x00h\x01\x93\x8c\x01x\x85R.",
    "GHSA-m273-6v24-x4m4: operator chains": PROTO + name("operator",
    "attrgetter") + data("system") + b"\x85R" + name("m", "os") + b"\x85R.",
    "functools.partial of a danger": PROTO + name("functools", "partial") + name("os",
    "system") + data("x") + b"\x86R)R.",
    "a computed name": b"\x80\x04" + name("builtins",
    "str") + data(b"os") + data("ascii") + b"\x86R\x8c\x06system\x93.",
    "an encoded name": b"\x80\x04" + name("_codecs",
    "encode") + data("bf") + data("rot13") + b"\x86R\x8c\x06system\x93.",
    "bytes put together for torch's loader": PROTO + name("torch.storage", "_load_from_bytes") + name("builtins",
    "bytes") + b"]\x85R\x85R.",
    "torch's loader": b"\x80\x04" + name("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I",
    len(in_legacy(EVIL))) + in_legacy(EVIL) + b"\x85R.",
    "torch's loader, a zip": b"\x80\x04" + name("torch.storage", "_load_from_bytes") + b"B" + struct.pack("<I",
    len(in_zip(EVIL))) + in_zip(EVIL) + b"\x85R.",
    "torch's loader, by protocol 2": pickle.dumps([in_legacy(EVIL)], 2),
    "a class changed": PROTO + name("collections", "OrderedDict") + b"}" + data("x") + b"Nsb.",
    "protocol 0": b"cos\nsystem\n(S'x'\ntR.",
    "broken off": EVIL[:-1],
    "broken by an unknown opcode": EVIL[:-1] + b"\xff\xff",
    "the second of two": pickle.dumps({}) + EVIL,
    "the second, not saying so": pickle.dumps({}) + EVIL[2:],
    "after padding": PROTO + b"N0" * 50_000 + EVIL[2:],
    "memo by a long number": b"\x80\x04" + data("os") + b"p" + b"0" * 2000 + b"5\n" + data("system") + b"g5\n\x93.",
}  # fmt: skip
TOLD = {"pickle-broken": "warning", "pickle-unknown-global": "warning", "polyglot": "danger"}


@pytest.mark.parametrize("trick", HIDDEN)
def test_a_published_way_past_scanners_is_a_danger(tmp_path: Path, trick: str) -> None:
    for file in ("model.pkl", "pytorch_model.bin", "model.pt", "x.dat", "config", "m.safetensors"):
        found = of(tmp_path, HIDDEN[trick], file)
        if trick == "a class changed" or "computed" in trick or "long number" in trick or "bytes put" in trick:
            assert found.get("pickle-code") == "danger" or found == {}, file
            assert file not in ("model.pkl", "model.pt") or found["pickle-code"] == "danger"
        else:
            assert found.pop("pickle-code", None) == "danger", file
            assert found.items() <= TOLD.items()


def zipped(inside: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w", method) as archive:
        for member, body in inside.items():
            archive.writestr(member, body)
    return raw.getvalue()


def test_pickles_in_zips_are_found_whatever_their_name(tmp_path: Path) -> None:
    for member in (
        "archive/data.pkl",
        "data.pkl",
        "a/b/c/data.pkl",
        "archive/x.config",
        "a/data/0",
        "weights",
        "a.npy",
        "x.txt",
    ):
        for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2):
            assert of(tmp_path, zipped({"ok.txt": b"x", member: EVIL}, method), "m.pt") == {"pickle-code": "danger"}, (
                member
            )


def test_flags_and_checksums_of_a_zip_hide_nothing(tmp_path: Path) -> None:
    """GHSA-w8jq-xcqf-f792 (flag bits), GHSA-7q5r-7gvp-wc82 and CVE-2025-10156 (checksums),
    modelscan 354 (a bad entry first)."""
    raw = bytearray(zipped({"a/first": b"y", "a/data.pkl": EVIL}))
    directory = raw.index(b"PK\x01\x02")
    for flags in (1, 0x2000, 0x21, 8):
        spoilt = bytearray(raw)
        for at in (directory, raw.index(b"PK\x01\x02", directory + 1)):
            spoilt[at + 8 : at + 10] = flags.to_bytes(2, "little")
        assert of(tmp_path, bytes(spoilt), "m.pt")["pickle-code"] == "danger"
    spoilt = bytearray(raw)
    for at in range(directory, len(raw)):
        if raw[at : at + 4] == b"PK\x01\x02":
            spoilt[at + 16 : at + 20] = b"\xde\xad\xbe\xef"
    assert of(tmp_path, bytes(spoilt), "m.pt") == {"pickle-code": "danger"}
    for method in (1, 6, 99, 14, 93):
        spoilt = bytearray(raw)
        spoilt[directory + 10 : directory + 12] = method.to_bytes(2, "little")
        assert of(tmp_path, bytes(spoilt), "m.pt") == {"pickle-code": "danger", "opaque-archive": "warning"}
    spoilt = bytearray(raw)
    spoilt[0:4] = b"XXXX"  # the first member's own header
    assert "pickle-code" in of(tmp_path, bytes(spoilt), "m.pt")
    spoilt = bytearray(raw)
    spoilt[raw.index(b"a/data.pkl") :][:1] = b"b"  # another name in the member's own header
    spoilt[raw.index(b"a/data.pkl")] = ord("b")
    assert of(tmp_path, bytes(spoilt), "m.pt") == {"pickle-code": "danger"}


def test_a_second_directory_is_a_danger(tmp_path: Path) -> None:
    """PyTorch goes by the directory's absolute place, Python's zipfile by its distance from the end."""
    evil = zipped({"archive/data.pkl": EVIL})
    start = evil.index(b"PK\x01\x02")
    good = zipped({"archive/data.pkl": state(tensor())})
    both = bytearray(evil[: evil.index(b"PK\x05\x06")] + good)
    both[-6:-2] = start.to_bytes(4, "little")
    both[-10:-6] = (evil.index(b"PK\x05\x06") - start).to_bytes(4, "little")
    found = of(tmp_path, bytes(both), "m.pt")
    assert found["pickle-code"] == "danger"


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "lzma": lambda b: lzma.compress(b,
lzma.FORMAT_ALONE),
          "zlib": zlib.compress}  # fmt: skip


@pytest.mark.parametrize("kind", PACKED)
def test_packed_pickles_are_unpacked(tmp_path: Path, kind: str) -> None:
    for body in (EVIL, in_zip(EVIL), PACKED[kind](EVIL)):
        assert of(tmp_path, PACKED[kind](body), "model.joblib") == {"pickle-code": "danger"}
    assert of(tmp_path, PACKED[kind](pickle.dumps({"a": 1})), "model.joblib") == {}


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    for raw in (
        gzip.compress(bytes(64 * 2**20), 1),
        zlib.compress(bytes(64 * 2**20)),
        zipped({"a.pkl": b"N" * 30_000_000}, 8),
    ):
        start = time.process_time()
        found = of(tmp_path, raw, "model.joblib")
        assert time.process_time() - start < 2 and set(found.values()) <= {"warning"}
    gz = gzip.compress(b"\x80\x04" + b"N0" * 20_000_000, 1)
    assert of(tmp_path, gz, "model.joblib").keys() & {"bomb", "unscanned"}


def test_archives_that_cannot_be_opened_are_told(tmp_path: Path) -> None:
    for magic in (
        b"7z\xbc\xaf\x27\x1c",
        b"Rar!\x1a\x07\x00",
        b"\x28\xb5\x2f\xfd",
        b"\x04\x22\x4d\x18",
        b"MSCF\0\0\0\0",
    ):
        assert of(tmp_path, magic + bytes(100), "model.pt") == {"opaque-archive": "warning"}
        assert of(tmp_path, zipped({"a/data.pkl": magic + bytes(100)}), "m.pt") == {"opaque-archive": "warning"}


def test_tars_and_arrays_are_looked_into(tmp_path: Path) -> None:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for member, body in {"sys_info": pickle.dumps({}), "pickle": EVIL, "inner.zip": zipped({"x": EVIL})}.items():
            info = tarfile.TarInfo(member)
            info.size = len(body)
            tar.addfile(info, io.BytesIO(body))
    assert of(tmp_path, raw.getvalue(), "old.pt") == {"pickle-code": "danger"}
    assert of(tmp_path, gzip.compress(raw.getvalue()), "model.nemo") == {"pickle-code": "danger"}
    header = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    array = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + EVIL
    assert of(tmp_path, array, "a.npy") == {"pickle-code": "danger"}
    assert of(tmp_path, zipped({"a.npy": array}), "a.npz") == {"pickle-code": "danger"}


def test_a_file_that_is_two_is_told(tmp_path: Path) -> None:
    archive = zipped({"archive/data.pkl": state(tensor())})
    assert of(tmp_path, EVIL + archive, "m.pt") == {"pickle-code": "danger", "polyglot": "danger"}
    assert of(tmp_path, pickle.dumps([1]) + archive, "m.pt") == {"polyglot": "danger"}
    assert of(tmp_path, archive + b"more", "m.pt") == {"polyglot": "warning"}
    assert of(tmp_path, b"GGUF" + bytes(40) + zipped({"x.pkl": EVIL}), "m.gguf") == {
        "pickle-code": "danger",
        "polyglot": "danger",
    }
    assert of(tmp_path, archive, "m.pt") == {}


@pytest.mark.filterwarnings("ignore")
def test_what_torch_writes_is_clean(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    network = torch.nn.Sequential(
        torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3), torch.nn.GELU(), torch.nn.TransformerEncoderLayer(8, 2)
    )
    optimizer = torch.optim.AdamW(network[:2].parameters())
    network[:2](torch.zeros(4, 2)).sum().backward()
    optimizer.step()
    told = argparse.Namespace(
        lr=1.0, path=pathlib.PurePosixPath("x"), when=datetime.datetime(2024, 1, 1), id=uuid.UUID(int=3)
    )
    whole = {
        "state_dict": network.state_dict(), "optimizer_states": [optimizer.state_dict()], "hyper_parameters": told,
        "dtype": torch.bfloat16,
        "counts": collections.Counter("abc"), "rest": collections.defaultdict(list, a=[1]),
        "rng": torch.get_rng_state(), "device": torch.device("cpu"),
    }  # fmt: skip
    torch.save(whole, tmp_path / "last.ckpt")
    torch.save(whole, tmp_path / "old.ckpt", _use_new_zipfile_serialization=False)
    torch.save(network, tmp_path / "whole.pt")
    odd = {
        "q": torch.quantize_per_tensor(torch.ones(4), 0.1, 0, torch.qint8),
        "s": torch.eye(3).to_sparse(),
        "m": torch.empty(3, device="meta"),
    }
    torch.save(odd, tmp_path / "odd.pt")
    torch.jit.script(network[0]).save(str(tmp_path / "script.pt"))
    for protocol in (2, 4, 5):
        (tmp_path / f"tensor{protocol}.pkl").write_bytes(pickle.dumps({"x": torch.ones(1000), "y": network}, protocol))
    noise = torch.frombuffer(bytearray(random.Random(5).randbytes(4_000_000)), dtype=torch.uint8)
    torch.save(
        {"noise": noise, "n": torch.full((1000,), 0x4E, dtype=torch.uint8)},
        tmp_path / "noise.pt",
        _use_new_zipfile_serialization=False,
    )
    torch.save({"noise": noise}, tmp_path / "noise2.pt")
    assert findings(tmp_path) == []


def test_what_numpy_and_joblib_write_is_clean(tmp_path: Path) -> None:
    np, joblib = pytest.importorskip("numpy"), pytest.importorskip("joblib")
    value = {"w": np.arange(10.0), "o": np.array([{"a": 1}, None], dtype=object), "z": np.float32(1),
    "r": np.random.default_rng(0),
             "s": np.random.RandomState(0), "t": np.array(["é"]), "d": np.dtype("f4")}  # fmt: skip
    for n, packing in enumerate([0, ("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3)]):
        joblib.dump(value, tmp_path / f"m{n}.joblib", compress=packing)
    for protocol in range(6):
        (tmp_path / f"n{protocol}.pkl").write_bytes(pickle.dumps(value, protocol))
    np.save(tmp_path / "o.npy", value["o"], allow_pickle=True)
    np.savez_compressed(tmp_path / "a.npz", w=value["w"], o=value["o"])
    assert findings(tmp_path) == []


def test_a_torchscript_program_that_writes_files_is_a_danger(tmp_path: Path) -> None:
    inside = {
        "s/data.pkl": PROTO + b"}.",
        "s/constants.pkl": PROTO + b").",
        "s/code/__torch__.py": b"def forward(self):\n  torch.save(x, '/etc/x')\n",
    }
    assert of(tmp_path, zipped(inside), "s.pt") == {"script-file-op": "danger"}


def test_files_by_chance_never_break_the_scan(tmp_path: Path) -> None:
    """Damaged and invented files of every kind: findings or none, and no error but ours, in time."""
    rng = random.Random(11)
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        info = tarfile.TarInfo("a/b.pkl")
        info.size = len(EVIL)
        tar.addfile(info, io.BytesIO(EVIL))
    seeds = [EVIL, in_zip(EVIL), in_legacy(state(tensor())), zipped({"a.pkl": EVIL, "b": b"x"}, 8),
    gzip.compress(raw.getvalue()), raw.getvalue(),
             bz2.compress(EVIL), lzma.compress(in_zip(EVIL)), pickle.dumps({"a": [b"x" * 300, "é", 1.5]}, 4),
             b"\x93NUMPY\x01\x00\x10\x00{'descr': '|O'}"]  # fmt: skip
    slowest = 0.0
    for _ in range(600):
        spoilt = bytearray(rng.choice(seeds))
        for _ in range(rng.randrange(6)):
            at = rng.randrange(len(spoilt))
            match rng.randrange(4):
                case 0:
                    spoilt[at] = rng.randrange(256)
                case 1:
                    spoilt[at : at + rng.randrange(1, 9)] = rng.randbytes(rng.randrange(9))
                case 2:
                    spoilt[at:at] = rng.choice([b"\xff" * 4, b"PK\x05\x06", b"PK\x01\x02", b"\0" * 8, b"c", b"\n"])
                case 3:
                    del spoilt[rng.randrange(len(spoilt)) :]
            spoilt = spoilt or bytearray(b"\x80")
        start = time.process_time()
        of(tmp_path, bytes(spoilt), rng.choice(["m.pt", "m.bin", "m.joblib", "m.npz", "m.nemo", "m.txt", "m"]))
        slowest = max(slowest, time.process_time() - start)
    assert slowest < 1.0
