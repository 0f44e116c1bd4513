"""A small clean model of every format, a file or a folder: no findings, its parameters counted; where fuzz begins."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly.checkpoint import write_safetensors
from tests.identity.hollow import gguf_header

ROWS = [("model.embed_tokens.weight", "F32", (8, 4), bytes(128)), ("model.norm.weight", "F32", (4,), bytes(16))]


def state() -> dict[str, torch.Tensor]:
    return {"encoder.weight": torch.ones(4, 3), "encoder.bias": torch.zeros(4)}


def safetensors(path: Path) -> None:
    write_safetensors(path, ROWS, {"format": "pt"})


def gguf(path: Path) -> None:
    tensors = {
        "token_embd.weight": ((40, 32), 0),
        "output_norm.weight": ((32,), 0),
        "blk.0.ffn_up.weight": ((64, 32), 8),
    }
    pairs = {
        "general.architecture": "llama", "general.name": "tiny", "llama.block_count": 1, "llama.context_length": 64,
        "llama.embedding_length": 32, "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.tokens": [f"t{i}" for i in range(40)], "tokenizer.ggml.merges": ["a b", "b c"],
        "tokenizer.chat_template": "{{ messages[0]['content'] }}",
    }  # fmt: skip
    head, size = gguf_header(
        pairs, tensors, {"token_embd.weight": 5120, "output_norm.weight": 128, "blk.0.ffn_up.weight": 2176}
    )
    path.write_bytes(head + bytes(size - len(head)))


def torch_zip(path: Path) -> None:
    torch.save(state(), path)


def torch_legacy(path: Path) -> None:
    torch.save(state(), path, _use_new_zipfile_serialization=False)


def torch_script(path: Path) -> None:
    class Twice(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.ones(3))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return 2 * x * self.weight

    torch.jit.trace(Twice(), torch.ones(3)).save(str(path))


def lightning(path: Path) -> None:
    from collections import OrderedDict

    saved = {
        "epoch": 3, "global_step": 100, "pytorch-lightning_version": "2.4.0", "state_dict": OrderedDict(state()),
        "loops": {"fit_loop": {"state_dict": {}}}, "callbacks": {}, "lr_schedulers": [],
        "optimizer_states": [{"state": {0: {"exp_avg": torch.zeros(4, 3)}}, "param_groups": [{"lr": 1e-3}]}],
        "hyper_parameters": {"dim": 4, "name": "small"},
    }  # fmt: skip
    torch.save(saved, path)


def npy(path: Path) -> None:
    np.save(path, np.ones((3, 4), dtype=np.float32))


def npz(path: Path) -> None:
    np.savez(path, **{"alphafold/alphafold_iteration/evoformer//weights": np.ones((3, 4)), "b": np.zeros(2)})


def onnx(path: Path) -> None:
    library = pytest.importorskip("onnx")
    h = library.helper
    weight = h.make_tensor("w", library.TensorProto.FLOAT, [2, 2], np.ones(4, dtype=np.float32).tobytes(), raw=True)
    ends = [h.make_tensor_value_info(n, library.TensorProto.FLOAT, [2, 2]) for n in ("x", "y")]
    graph = h.make_graph([h.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    path.write_bytes(h.make_model(graph).SerializeToString())


def keras_h5(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(path, "w") as file:
        layers = [{"class_name": "Dense", "config": {"name": "dense", "units": 2}}]
        file.attrs["model_config"] = json.dumps({"class_name": "Sequential", "config": {"layers": layers}})
        file.attrs["keras_version"] = "2.15.0"
        group = file.create_group("model_weights/dense/dense")
        group.create_dataset("kernel:0", data=np.ones((3, 2), dtype=np.float32))


def keras_v3(path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    inside = io.BytesIO()
    with h5py.File(inside, "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.ones((3, 2), dtype=np.float32))
    layers = [{"module": "keras.layers", "class_name": "Dense", "config": {"units": 2}, "registered_name": None}]
    config = {"module": "keras", "class_name": "Sequential", "config": {"name": "s", "layers": layers}}
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "3.5.0", "date_saved": "2025-01-01@00:00:00"}))
        archive.writestr("config.json", json.dumps(config))
        archive.writestr("model.weights.h5", inside.getvalue())


def flax(path: Path) -> None:
    msgpack = pytest.importorskip("msgpack")
    array = msgpack.ExtType(1, msgpack.packb(((2, 2), "float32", bytes(16)), use_bin_type=True))
    path.write_bytes(msgpack.packb({"params": {"dense": {"kernel": array}}}, use_bin_type=True))


def nemo(path: Path) -> None:
    weights = io.BytesIO()
    torch.save(state(), weights)
    with tarfile.open(path, "w") as archive:
        for name, data in (("model_config.yaml", b"target: nemo.ASR\n"), ("model_weights.ckpt", weights.getvalue())):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))


def zipped(path: Path) -> None:
    folder = path.parent / "zipped"
    folder.mkdir()
    safetensors(folder / "model.safetensors")
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(folder / "model.safetensors", "model.safetensors")
        archive.writestr("config.json", json.dumps({"model_type": "llama", "hidden_size": 4}))


def tarred(path: Path) -> None:
    folder = path.parent / "tarred"
    folder.mkdir()
    safetensors(folder / "model.safetensors")
    with tarfile.open(path, "w:gz") as archive:
        archive.add(folder / "model.safetensors", "model/model.safetensors")


CONFIG = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 4, "num_hidden_layers": 1,
    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 2, "intermediate_size": 8, "vocab_size": 8,
    "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "rope_theta": 1e4, "tie_word_embeddings": True,
    "torch_dtype": "float32",
}  # fmt: skip
LAYER = {
    "self_attn.q_proj": (4, 4), "self_attn.k_proj": (2, 4), "self_attn.v_proj": (2, 4), "self_attn.o_proj": (4, 4),
    "mlp.gate_proj": (8, 4), "mlp.up_proj": (8, 4), "mlp.down_proj": (4, 8), "input_layernorm": (4,),
    "post_attention_layernorm": (4,),
}  # fmt: skip
SHAPES = {name: shape for name, _, shape, _ in ROWS} | {
    f"model.layers.0.{name}.weight": shape for name, shape in LAYER.items()
}
README = """---
license: apache-2.0
base_model: org/base
pipeline_tag: text-generation
datasets: [org/one]
tags:
- text
- "quoted"
---
# A model
Trained on 3 trillion tokens with 2.5e22 FLOP.
"""


def as_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))


def zeros(path: Path, shapes: dict[str, tuple[int, ...]], dtype: str = "F32", width: int = 4) -> None:
    write_safetensors(path, [(n, dtype, s, bytes(width * prod(s))) for n, s in shapes.items()], {"format": "pt"})


def repository(path: Path) -> None:
    """As people publish them: two shards and their index, settings, tokenizer, card, licence."""
    path.mkdir()
    names = list(SHAPES)
    halves = {f"model-0000{i}-of-00002.safetensors": names[i - 1 :: 2] for i in (1, 2)}
    for file, part in halves.items():
        zeros(path / file, {n: SHAPES[n] for n in part})
    size = 4 * sum(map(prod, SHAPES.values()))
    where = {n: file for file, part in halves.items() for n in part}
    as_json(path / "model.safetensors.index.json", {"metadata": {"total_size": size}, "weight_map": where})
    as_json(path / "config.json", CONFIG)
    as_json(path / "generation_config.json", {"bos_token_id": 1, "eos_token_id": [2, 3]})
    template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    settings = {"chat_template": template, "model_max_length": 16, "tokenizer_class": "LlamaTokenizer"}
    as_json(path / "tokenizer_config.json", settings)
    vocabulary = {"model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}, "added_tokens": []}
    as_json(path / "tokenizer.json", vocabulary)
    (path / "README.md").write_text(README)
    (path / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004\n")


def diffusers(path: Path) -> None:
    unet = {"_class_name": "UNet2DConditionModel", "sample_size": 8, "in_channels": 4, "cross_attention_dim": 4}
    (path / "unet").mkdir(parents=True)
    zeros(path / "unet" / "diffusion_pytorch_model.safetensors", {"conv_in.weight": (4, 4, 3, 3), "conv_in.bias": (4,)})
    as_json(path / "unet" / "config.json", unet)
    (path / "vae").mkdir()
    zeros(path / "vae" / "diffusion_pytorch_model.safetensors", {"decoder.conv_in.weight": (4, 4, 3, 3)})
    as_json(path / "vae" / "config.json", {"_class_name": "AutoencoderKL", "latent_channels": 4})
    (path / "scheduler").mkdir()
    as_json(path / "scheduler" / "scheduler_config.json", {"_class_name": "DDIMScheduler"})
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0"}
    parts = {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    as_json(path / "model_index.json", index | parts | {"scheduler": ["diffusers", "DDIMScheduler"]})


def peft(path: Path) -> None:
    path.mkdir()
    stem = "base_model.model.model.layers.0.self_attn.q_proj"
    zeros(path / "adapter_model.safetensors", {f"{stem}.lora_A.weight": (2, 4), f"{stem}.lora_B.weight": (4, 2)})
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "base_model_name_or_path": "org/base"}
    as_json(path / "adapter_config.json", config | {"target_modules": ["q_proj"], "task_type": "CAUSAL_LM"})
    (path / "README.md").write_text("---\nbase_model: org/base\nlibrary_name: peft\nlicense: mit\n---\n")


def mlx(path: Path) -> None:
    """Four bits a number, in groups of 32: 8 × 64 numbers, and a norm."""
    path.mkdir()
    stem = "model.embed_tokens"
    rows: list[Any] = [(f"{stem}.weight", "U32", (8, 8), bytes(256)), ("model.norm.weight", "F16", (64,), bytes(128))]
    rows += [(f"{stem}.{part}", "F16", (8, 2), bytes(32)) for part in ("scales", "biases")]
    write_safetensors(path / "model.safetensors", rows, {"format": "mlx"})
    as_json(path / "config.json", {"model_type": "mlx_test", "quantization": {"group_size": 32, "bits": 4}})


def savedmodel(path: Path) -> None:
    from tests.checkpoint import test_tensorflow as writers

    writers.saved_model(path, writers.graph(writers.node("v", "VarHandleOp"), writers.node("m", "MatMul")))
    writers.checkpoint(path / "variables", "variables", writers.TENSORS)


def tf_checkpoint(path: Path) -> None:
    from tests.checkpoint import test_tensorflow as writers

    writers.checkpoint(path, "model.ckpt-7", writers.TENSORS | writers.TEXT, compress=True)
    (path / "checkpoint").write_text('model_checkpoint_path: "model.ckpt-7"\n')


def frozen(path: Path) -> None:
    from tests.checkpoint import test_tensorflow as writers

    weight = writers.tensor(writers.FLOAT, [2, 3], bytes(24))
    path.write_bytes(writers.graph(writers.node("w", "Const", weight), writers.node("y", "MatMul")))


def tflite(path: Path) -> None:
    from tests.checkpoint import test_tflite as writers

    writers.dense(path)


def mlmodel(path: Path) -> None:
    from tests.checkpoint import test_coreml as writers

    model = writers.network()
    del model.neuralNetworkClassifier.layers[-1]  # a custom layer, which is a finding
    path.write_bytes(model.SerializeToString())


def mlpackage(path: Path) -> None:
    from tests.checkpoint import test_coreml as writers

    writers.program(path)


def openvino(path: Path) -> None:
    from tests.checkpoint import test_openvino as writers

    path.mkdir()
    writers.write(path)


def tensorrt(path: Path) -> None:
    from tests.checkpoint.test_tensorrt import PLAN

    path.write_bytes(PLAN)


def orbax(path: Path) -> None:
    from tests.checkpoint import test_orbax as writers

    path.mkdir()
    (path / "_METADATA").write_text(writers.tree())
    writers.zarr(path, "params.dense.kernel", "<f4", [3, 5])
    writers.zarr(path, "params.dense.bias", "bfloat16", [5])


def ocdbt(path: Path) -> None:
    from tests.checkpoint import test_orbax as writers

    writers.unpacked("orbax.zip", path)


def whisper(path: Path) -> None:
    from tests.checkpoint import test_ggml as writers

    writers.write(
        path, "whisper quantised", {"encoder.positional_embedding": ((50, 64), 1), "decoder.w": ((64, 64), 2)}
    )


def llama2c(path: Path) -> None:
    from tests.checkpoint.files import write_llama2c

    write_llama2c(path)


def modelfile(path: Path) -> None:
    path.mkdir()
    gguf(path / "tiny.gguf")
    (path / "Modelfile").write_text('FROM ./tiny.gguf\nPARAMETER temperature 0.5\nSYSTEM """Be kind."""\nLICENSE MIT\n')


def oci(path: Path) -> None:
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)

    def blob(raw: bytes) -> str:
        digest = hashlib.sha256(raw).hexdigest()
        (blobs / digest).write_bytes(raw)
        return f"sha256:{digest}"

    gguf(path / "tiny.gguf")
    texts = {"license": b"MIT License", "model": (path / "tiny.gguf").read_bytes()}
    (path / "tiny.gguf").unlink()
    layers = [{"mediaType": f"application/vnd.ollama.image.{k}", "digest": blob(raw)} for k, raw in texts.items()]
    manifest = {"schemaVersion": 2, "config": {"digest": blob(b'{"model_family": "llama"}')}, "layers": layers}
    manifest["mediaType"] = "application/vnd.oci.image.manifest.v1+json"
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')
    as_json(path / "index.json", {"schemaVersion": 2, "manifests": [{"digest": blob(json.dumps(manifest).encode())}]})


def torch_tar(path: Path) -> None:
    from tests.checkpoint.test_torch_tolerant import old_tar

    old_tar(path)


FILES: dict[str, Callable[[Path], Any]] = {
    "model.safetensors": safetensors, "model.gguf": gguf, "model.pt": torch_zip, "model.bin": torch_legacy,
    "script.pt": torch_script, "last.ckpt": lightning, "array.npy": npy, "params.npz": npz, "model.onnx": onnx,
    "model.h5": keras_h5, "model.keras": keras_v3, "flax_model.msgpack": flax, "asr.nemo": nemo, "model.zip": zipped,
    "model.tar.gz": tarred, "old.pt": torch_tar, "model.tflite": tflite, "frozen.pb": frozen, "model.mlmodel": mlmodel,
    "model.engine": tensorrt, "ggml-tiny.bin": whisper, "stories.bin": llama2c, "repository": repository,
    "diffusers": diffusers, "peft": peft, "mlx": mlx, "savedmodel": savedmodel, "tf-checkpoint": tf_checkpoint,
    "model.mlpackage": mlpackage, "openvino": openvino, "orbax": orbax, "ocdbt": ocdbt, "modelfile": modelfile,
    "oci": oci,
}  # fmt: skip
OPAQUE = ("model.engine",)  # named; what it holds, no file tells


def write_all(folder: Path) -> list[Path]:
    """Every sample, file or folder, in a folder of its own; without those whose library is missing."""
    found = []
    for name, make in FILES.items():
        path = folder / name.replace(".", "-") / name
        path.parent.mkdir(parents=True)
        try:
            make(path)
        except pytest.skip.Exception:
            continue
        found.append(path)
    return found
