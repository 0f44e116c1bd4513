"""What a hostile review got past the first version; every file is made here and none is ever loaded."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import lzma
import os
import struct
import tarfile
import threading
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any

import pytest

from brolly.errors import BrollyError
from brolly.identity import identify
from brolly.identity.prompts import judge

EVIL = b"cos\nsystem\n(S'true'\ntR."
DECLARED = b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."
EMPTY = b"\x80\x02N."
LOADER = b"\x80\x03ctorch.storage\n_load_from_bytes\n"
WRAPPER = b"\x80\x02cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(X\x05\0\0\0dtypecnumpy\ndtype\nX\x02\0\0\0%s\x85R"
PADDING = b"X" + struct.pack("<I", 2_000_000) + b"A" * 2_000_000 + b"0"
CONFIG = {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 8}
ESCAPE = "{{ ''.__class__ }}"


def safetensors() -> bytes:
    head = json.dumps({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}}).encode()
    return struct.pack("<Q", len(head)) + head + bytes(4)


def told(folder: Path, files: dict[str, Any]) -> set[str]:
    """The severities of what is found in a folder of safe weights and these files."""
    given = {"config.json": CONFIG, "model.safetensors": safetensors()} | files
    for name, inside in given.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        raw = inside if isinstance(inside, (bytes, str)) else json.dumps(inside)
        path.write_bytes(raw.encode() if isinstance(raw, str) else raw)
    return {finding.severity for finding in identify(folder).findings}


def encoded(raw: bytes, name: str) -> bytes:
    text = raw.decode(name).encode()
    said = b"X%sX%s" % (struct.pack("<I", len(text)) + text, struct.pack("<I", len(name)) + name.encode())
    return b"c_codecs\nencode\n" + said + b"\x86R"


def npy(descr: str, data: bytes) -> bytes:
    head = f"{{'descr': {descr}, 'fortran_order': False, 'shape': (1,), }}\n".encode()
    return b"\x93NUMPY\x02\0" + struct.pack("<I", len(head)) + head + data


def zipped(members: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        for name, raw in members.items():
            file.writestr(name, raw)
    return out.getvalue()


def two_ends() -> bytes:
    """A zip whose last end is the bad one, with a comment longer than the file, and an end before that fits."""
    bad, good = zipped({"archive/data.pkl": DECLARED}), zipped({"archive/data.pkl": EMPTY})
    _, long, at = struct.unpack("<10xHLL", bad[-22:-2])
    _, good_long, good_at = struct.unpack("<10xHLL", good[-22:-2])
    directory = bytearray(good[good_at:-22])
    struct.pack_into("<L", directory, 42, at)
    start = at + good_at
    rest = long + 22
    end = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, good_long, start, rest)
    last = b"PK\5\6" + struct.pack("<HHHHLLH", 0, 0, 1, 1, long, start + good_long + 22, 65535)
    return bad[:at] + good[:good_at] + bytes(directory) + end + bad[at:-22] + last


def tarred(kind: bytes, name: str = "pickle") -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as file:
        info = tarfile.TarInfo(name)
        info.size = len(DECLARED)
        file.addfile(info, io.BytesIO(DECLARED))
    raw = bytearray(out.getvalue())
    raw[156:157], raw[148:156] = kind, b" " * 8
    raw[148:156] = b"%06o\0 " % sum(byte - 256 * (byte > 127) for byte in raw[:512])
    return bytes(raw)


PICKLES: dict[str, tuple[str, bytes]] = {
    "before protocol 2, unknown": ("pytorch_model.bin", b"cevil_mod\nf\n(tR."),
    "before protocol 2, padded": ("weights", PADDING + EVIL),
    "protocol 1, padded": ("x.bin", b"\x80\x01" + PADDING + EVIL),
    "begins as GGUF": ("pytorch_model.bin", b"GGUF" + bytes(5) + b"0" + EVIL),
    "an argument is called": ("x.bin", b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nN(S'true'\ntNtR."),
    "a computed name": ("x.bin", b"cbuiltins\nstr\n(Vos\ntRVsystem\n\x93(S'true'\ntR."),
    "after joblib's array": ("m.pkl", WRAPPER % b"f8" + b"X\x05\0\0\0shapeK\x20\x85ub" + EVIL + bytes(400)),
    "joblib's objects in fields": (
        "m.joblib", WRAPPER % b"V8" + b"X\x05\0\0\0shapeK\x20\x85ub" + DECLARED + bytes(400)),
    "bytes of protocol 0": ("m.pkl", LOADER + b"B" + struct.pack("<I", len(EVIL)) + EVIL + b"\x85R."),
    "text of protocol 0": ("m.pkl", LOADER + encoded(EVIL, "latin1") + b"\x85R."),
    "text in EBCDIC": ("m.pkl", LOADER + encoded(DECLARED, "cp037") + b"\x85R."),
    "a fourth pickle, long": ("pytorch_model.bin", EMPTY * 3 + b"N0" * 1_200_000 + EVIL),
    "fills the memory": ("m.pkl", b"\x80\x02cbuiltins\nbytearray\n\x8a\x06\0\0\0\0\0\x10\x85R."),
    "array of 'object'": ("a.npy", npy("'object'", DECLARED)),
    "array of an escape": ("a.npy", npy("'\\x4f'", DECLARED)),
    "two ends of a zip": ("m.pt", two_ends()),
    "sparse file of a tar": ("m.pt", tarred(b"S")),
    "unknown kind in a tar": ("m.pt", tarred(b"Z")),
    "signed sum of a tar": ("m.pt", tarred(b"0", "é" * 20)),
    "LZMA's small dictionary": (
        "m.joblib",
        lzma.compress(DECLARED, lzma.FORMAT_ALONE, filters=[{"id": lzma.FILTER_LZMA1, "dict_size": 2**15}]),
    ),
    "7-Zip": ("model.7z", b"7z\xbc\xaf\x27\x1c" + bytes(99)),
    "TorchServe": ("m.mar", zipped({"MAR-INF/MANIFEST.json": b"{}", "handler.py": b"import os"})),
    "a library in an archive": ("m.pt2", zipped({"m/data/aotinductor/x.so": b"\x7fELF" + bytes(99)})),
}  # fmt: skip


@pytest.mark.parametrize("case", PICKLES)
def test_pickles_and_archives(tmp_path: Path, case: str) -> None:
    name, raw = PICKLES[case]
    assert told(tmp_path, {name: raw}) & {"danger", "warning"}


def test_a_line_that_never_ends_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "m.pkl"
    path.write_bytes(b"\x80\x02F")
    with open(path, "r+b") as file:
        file.truncate(2**40)
    start = time.process_time()
    assert told(tmp_path, {}) == {"warning"}
    assert time.process_time() - start < 2


TEMPLATES = (
    "{{ x['_'*2~'class'~'_'*2] }}",
    "{{ x ['_'*2~'class'~'_'*2] }}",
    "{{ [x]|map(attribute='_'~'_class_'~'_')|list }}",
    "{{ [x]|groupby('_' '_class_' '_') }}",
    "{{ x['%s%sclass' % ('_','_')] }}",
    "{{ x['{0}{0}class{0}{0}'.format('_')] }}",
    r"{{ x['\U0000005f_class_\U0000005f'] }}",
    "{{ x[['_','_','class','_','_']|join] }}",
    "{{ x['a_'[1:]*2~'class'] }}",
    "{% set u={'_':1}|first %}{{ x[u~u~'class'~u~u] }}",
    "{% set k=u~u~'_' %}{% set u='_' %}{{ x[k] }}",
    "{{ (messages|map('upper'))['gi_frame']['f_back']['f_builtins']['eval']('1') }}",
    "{{ [messages|map('upper')]|map(attribute='gi_frame.f_back.f_globals')|list }}",
    "{% raw %}x{%" + " " * 120 + "endraw %}" + ESCAPE,
)


@pytest.mark.parametrize("text", TEMPLATES)
def test_templates(text: str) -> None:
    assert [f.id for f in judge(text, "x")] == ["template-code"]


@pytest.mark.parametrize(
    "text",
    (
        "{{ messages[loop.index0 - 1]['content'] }}{{ messages[messages|length - 1].role }}{{ 'call_' ~ loop.index }}",
        "{% for x in ['a' ~ b, 'c'] %}{{ d[x] }}{{ tools|selectattr('type', 'equalto', 'function')|list }}{% endfor %}",
        "{% set name = tool.name|replace('-', '_') %}{{ messages|map(attribute='role')|join(', ') }}{{ name }}",
    ),
)
def test_honest_templates(text: str) -> None:
    assert judge(text, "x") == []


def gguf(template: str) -> bytes:
    def text(value: str) -> bytes:
        return struct.pack("<Q", len(value)) + value.encode()

    rows = [("general.architecture", "llama"), ("tokenizer.chat_template", template)]
    pairs = b"".join(text(key) + struct.pack("<I", 8) + text(value) for key, value in rows)
    return b"GGUF" + struct.pack("<IQQ", 3, 0, 2) + pairs + bytes(64)


def keras(*layers: dict[str, Any]) -> bytes:
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": list(layers)}}
    return zipped({"config.json": json.dumps(config).encode(), "metadata.json": b'{"keras_version": "3.0"}'})


def dense(module: str, name: str) -> dict[str, Any]:
    function = {"class_name": "function", "module": module, "config": name}
    return {"module": "keras.layers", "class_name": "Dense", "config": {"activation": function}}


def layer(where: str, kind: str, **config: Any) -> dict[str, Any]:
    return {"module": where, "class_name": kind, "config": config}


HIDDEN: dict[str, dict[str, Any]] = {
    "template 41 of 41": {"tokenizer_config.json": {"chat_template": [
        *({"name": str(i), "template": "a"} for i in range(40)), {"name": "default", "template": ESCAPE}]}},
    "after a long comment": {"chat_template.jinja": "{# " + "a" * 300_000 + " #}" + ESCAPE},
    "in a folder": {"tokenizer/tokenizer_config.json": {"chat_template": ESCAPE}},
    "in JSON too deep to read": {"tokenizer_config.json": '{"x":' + "[" * 70 + "]" * 70 + "}"},
    "auto_map of a part": {"text_encoder/config.json": {"auto_map": {"AutoModel": "m.X"}}},
    "auto_map's 26th": {
        "config.json": CONFIG | {"auto_map": {**dict.fromkeys(map(str, range(25))), "AutoModel": "m.X"}}},
    "modules.json with escapes": {"modules.json": '[{"\\u0074ype": "evil.Mod", "path": ""}]'},
    "modules.json after spaces": {"modules.json": " " * 2**20 + '[{"type": "evil.Mod", "path": ""}]'},
    "a router's modules": {"1/config.json": {"types": {"x": "evil.Mod"}, "structure": {}}},
    "a dense layer's activation": {"2_Dense/config.json": {"in_features": 1, "activation_function": "os.abort"}},
    "auto_mapping": {
        "adapter_config.json": {"auto_mapping": {"base_model_class": "X", "parent_library": "antigravity"}}},
    "Hydra": {"config.json": CONFIG | {"x": {"_target_": "os.system", "command": "true"}}},
    "YAML's Python": {"config.yaml": 'a: !!python/object/apply:os.system ["true"]\n'},
    "SpeechBrain": {"hyperparams.yaml": 'a: !apply:os.system ["true"]\n'},
    "a GGUF beside": {"m.gguf": gguf(ESCAPE)},
    "a Lambda beside": {"m.keras": keras(layer("keras.layers", "Lambda", name="l"))},
    "get_file": {"m.keras": keras(dense("keras.utils", "get_file"))},
    "exec": {"m.keras": keras(dense("builtins", "exec"))},
    "unsafe": {"m.keras": keras(layer("keras.config", "enable_unsafe_deserialization"))},
    "a pickle as a layer": {"m.keras": keras(layer("keras.layers", "TorchModuleWrapper", module="gASV"))},
    "Popen as a layer": {"m.keras": keras(layer("subprocess", "Popen"))},
    "a vocabulary's path": {"m.keras": keras(layer("keras.layers", "StringLookup", vocabulary="/etc/passwd"))},
}  # fmt: skip


@pytest.mark.parametrize("case", HIDDEN)
def test_configurations(tmp_path: Path, case: str) -> None:
    assert told(tmp_path, HIDDEN[case]) & {"danger", "warning"}


def test_parts_of_a_pipeline(tmp_path: Path) -> None:
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["diffusers", "UNet2DConditionModel"]}
    unet = {"unet/config.json": {"_class_name": "UNet2DConditionModel"}}
    unet |= {"unet/diffusion_pytorch_model.safetensors": safetensors()}  # type: ignore[dict-item]
    for more in ({"../../x": ["diffusers", "AutoencoderKL"]}, {**dict.fromkeys("abc" * 40), "z": ["os", "X"]}):
        assert told(tmp_path, unet | {"model_index.json": index | more}) & {"danger", "warning"}


def test_honest_files_beside(tmp_path: Path) -> None:
    files = {
        "m.keras": keras(dense("keras.activations", "relu"), layer("keras.layers", "StringLookup", vocabulary=["a"])),
        "m.gguf": gguf("{{ messages[0]['content'] }}"),
        "hyperparams.yaml": "a: !new:speechbrain.nnet.linear.Linear\nb: !apply:torch.manual_seed [1]\n",
        "2_Dense/config.json": {"in_features": 1, "activation_function": "torch.nn.modules.activation.Tanh"},
        "a.npy": npy("[('a', '<f4'), ('b', '<i4')]", bytes(range(8))),
        "vocab": "cat\ndog\n.\n",
        "tok.bin": bytes(range(99)) * 99,
    }
    assert told(tmp_path, files) == set()


def test_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from brolly.cli import main

    told(tmp_path, {"a/b/c/d/e/f/g/h/i/j/m.pkl": DECLARED})
    (tmp_path / os.fsdecode(b"b\xff\x1b[31m.pkl")).write_bytes(DECLARED)
    page = tmp_path.parent / f"{tmp_path.name}.html"
    for option in (["--json"], ["--sbom", "cyclonedx"], ["--sbom", "spdx"], ["--sarif"], ["--html", str(page)], []):
        assert main(["identify", str(tmp_path), *option, "--fail-on", "unsafe"]) == 3
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        if option and option[0] != "--html":
            json.loads(said.out)
    deep = [f.file for f in identify(tmp_path).findings if f.file.startswith("a/")]
    assert deep == ["a/b/c/d/e/f/g/h/i/j/m.pkl"]


PACKED = gzip.compress(bytes(2**25))


class Endless(http.server.BaseHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        self.send_response(500 if "error" in self.path else 200)
        if "packed" in self.path:
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", "200000")
        self.end_headers()
        with contextlib.suppress(OSError):
            body = PACKED if "packed" in self.path else bytes(2**16)
            for _ in range(2000):
                self.wfile.write(body)


@pytest.mark.parametrize("name", ("error.gguf", "packed.gguf"))
def test_a_server_that_never_ends(name: str) -> None:
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        tracemalloc.start()
        with pytest.raises(BrollyError):
            identify(f"http://127.0.0.1:{server.server_port}/{name}")
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        server.shutdown()
    assert peak < 2**24


@pytest.mark.parametrize("how", (("bz2", 3), ("lzma", 1), ("xz", 1), ("zlib", 3), 0))
def test_arrays_of_joblib(tmp_path: Path, how: Any) -> None:
    joblib = pytest.importorskip("joblib")
    numpy = pytest.importorskip("numpy")
    made = {str(n): numpy.arange(9000) * 0.37 for n in range(20)} | {"o": numpy.array(["x", None], object)}
    joblib.dump(made, tmp_path / "a.joblib", compress=how)
    assert told(tmp_path, {}) == set()
