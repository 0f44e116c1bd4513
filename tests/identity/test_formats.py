"""True counts in every format: scales, constants and what training left are no parameters, packed ones are unpacked."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from brolly.card import Header, TensorInfo
from brolly.errors import BrollyError
from brolly.identity import examine
from brolly.identity.answers import Parameters
from brolly.identity.aside import aside_of, nbits
from brolly.identity.gpai import form
from tests.identity.samples import FILES, flax

# what the samples of every format hold, counted by hand
COUNTS = {
    "model.safetensors": 36, "model.gguf": 40 * 32 + 32 + 64 * 32, "model.pt": 16, "model.bin": 16, "script.pt": 3,
    "last.ckpt": 16, "array.npy": 12, "params.npz": 14, "model.onnx": 4, "model.h5": 6, "model.keras": 6,
    "flax_model.msgpack": 4, "asr.nemo": 16, "model.zip": 36, "model.tar.gz": 36, "old.pt": 10, "model.tflite": 10,
    "frozen.pb": 6, "model.mlmodel": 48 + 4 + 160 + 6 + 2, "model.engine": None, "ggml-tiny.bin": 50 * 64 + 64 * 64,
    "stories.bin": 1080, "repository": 188, "diffusers": 292, "peft": 16, "mlx": 576, "savedmodel": 3 + 6 + 8,
    "tf-checkpoint": 3 + 6 + 8, "model.mlpackage": 24 + 7 + 3 + 15, "openvino": 6 + 3 + 2, "orbax": 15 + 5,
    "ocdbt": 12 * (8 * 16 + 16) + 100 * 8, "modelfile": 3360, "oci": 3360,
}  # fmt: skip


def counted(path: Path) -> Parameters:
    return examine(path).parameters


@pytest.mark.parametrize("sample", FILES)
def test_samples_are_counted_by_hand(tmp_path: Path, sample: str) -> None:
    FILES[sample](tmp_path / sample)
    found = counted(tmp_path / sample)
    assert found.total == COUNTS[sample] and (found.exact or found.total is None)
    assert sum(found.components.values()) == (found.total or 0)


# ONNX, written by onnx

ort = "com.microsoft"


def save_onnx(path: Path, nodes: list[Any], weights: dict[str, tuple[int, Any]]) -> Path:
    onnx = pytest.importorskip("onnx")
    h = onnx.helper
    held = [h.make_tensor(n, kind, a.shape, a.tobytes(), raw=True) for n, (kind, a) in weights.items()]
    graph = h.make_graph(nodes, "g", [], [], held)
    path.write_bytes(
        h.make_model(graph, opset_imports=[h.make_opsetid("", 21), h.make_opsetid(ort, 1)]).SerializeToString()
    )
    return path


F32, U8, I8, I32, I64, F16 = 1, 2, 3, 6, 7, 10


def floats(*shape: int) -> tuple[int, Any]:
    return F32, np.zeros(shape, dtype=np.float32)


def test_onnx_four_bit_weights_are_unpacked_and_their_scales_left_out(tmp_path: Path) -> None:
    h = pytest.importorskip("onnx").helper
    nodes = [
        h.make_node("MatMulNBits", ["x", "q_Q4", "q_scales", "q_zp"], ["y"], domain=ort, K=100, N=24, block_size=32),
        h.make_node("MatMulBnb4", ["y", "nf", "nf_absmax"], ["z"], domain=ort, K=64, N=8, block_size=64, quant_type=1),
        h.make_node("GatherBlockQuantized", ["e", "i", "e_scales"], ["w"], domain=ort, block_size=32, bits=4),
        h.make_node("Reshape", ["w", "size"], ["v"]),
        h.make_node("Constant", [], ["one"], value=h.make_tensor("", F32, [1], [1.0])),
        h.make_node("Constant", [], ["table"], value=h.make_tensor("", F32, [5], [0.0] * 5)),
    ]  # fmt: skip
    u8 = lambda *shape: (U8, np.zeros(shape, dtype=np.uint8))  # noqa: E731
    weights = {
        "q_Q4": u8(24, 4, 16), "q_scales": floats(96), "q_zp": u8(48), "nf": u8(256), "nf_absmax": floats(8),
        "e": u8(10, 16), "e_scales": floats(10), "size": (I64, np.zeros(3, dtype=np.int64)), "half": floats(),
        "norm.weight": floats(24),
    }  # fmt: skip
    found = counted(save_onnx(tmp_path / "m.onnx", nodes, weights))
    assert found.total == 24 * 100 + 64 * 8 + 10 * 32 + 24 + 5 and found.exact
    assert {w: round(share * found.total) for w, share in found.shares.items()} == {"INT4": 2720, "NF4": 512, "F32": 29}


def test_onnx_integers_are_weights_where_the_graph_takes_them_as_such(tmp_path: Path) -> None:
    h = pytest.importorskip("onnx").helper
    nodes = [
        h.make_node("DequantizeLinear", ["w_quantized", "s", "z"], ["a"]),
        h.make_node("DequantizeLinear", ["b_quantized", "bs", "bz"], ["b"]),
        h.make_node("MatMulInteger", ["x", "m_quantized", "xz", "mz"], ["c"]),
        h.make_node("Gather", ["a", "indices"], ["d"]),
    ]
    weights = {
        "w_quantized": (I8, np.zeros((4, 6), np.int8)), "s": floats(6), "z": (I8, np.zeros(6, np.int8)),
        "b_quantized": (I32, np.zeros(6, np.int32)), "bs": floats(), "bz": (I32, np.zeros((), np.int32)),
        "m_quantized": (U8, np.zeros((6, 3), np.uint8)), "mz": (U8, np.zeros((), np.uint8)),
        "indices": (I32, np.zeros(9, np.int32)), "lookup": (U8, np.zeros(256, np.uint8)),
    }  # fmt: skip
    assert counted(save_onnx(tmp_path / "m.onnx", nodes, weights)).total == 24 + 6 + 18


def test_what_a_node_says_of_its_weights_is_held_against_their_bytes() -> None:
    info = TensorInfo("w", "U8", (24, 4, 16), Path("m.onnx"), 0, 24 * 4 * 16)
    said = {"op": "MatMulNBits", "bits": 4, "K": 100, "N": 24, "block_size": 32}
    assert nbits(info, said) == (2400, "INT4", True)
    for key, value in (("K", 2**40), ("N", 25), ("block_size", 0), ("K", -4)):
        assert nbits(info, {**said, key: value}) == (3072, "INT4", False), "the bytes are believed"


def test_an_onnx_head_tied_to_its_embedding_is_counted_once(tmp_path: Path) -> None:
    h = pytest.importorskip("onnx").helper
    nodes = [
        h.make_node("Gather", ["model.embed_tokens.weight", "ids"], ["x"]),
        h.make_node("MatMul", ["x", "onnx::MatMul_77"], ["logits"]),
    ]
    weights = {
        "model.embed_tokens.weight": floats(50, 8),
        "model.norm.weight": floats(8),
        "onnx::MatMul_77": floats(8, 50),
    }
    path = save_onnx(tmp_path / "model.onnx", nodes, weights)
    assert counted(path).total == 808
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "never-heard-of", "tie_word_embeddings": True}))
    assert counted(path).total == 408
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "never-heard-of", "tie_word_embeddings": False}))
    assert counted(path).total == 808


# PyTorch's training checkpoints, written by torch


def trained() -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    model = torch.nn.Linear(3, 4)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    return model, optimizer


def checkpoints() -> dict[str, Any]:
    model, optimizer = trained()
    state, moments = model.state_dict(), optimizer.state_dict()
    doubled = {f"model.{k}": v for k, v in state.items()} | {f"model_ema.{k}": v * 1 for k, v in state.items()}
    again = OrderedDict((k, v * 0.9) for k, v in state.items())
    return {
        "lightning": {"state_dict": state, "pytorch-lightning_version": "2.4", "optimizer_states": [moments],
                      "callbacks": {"EMA": {"w": torch.ones(99)}}, "lr_schedulers": [{"base": torch.ones(3)}]},
        "plain loop": {"model": state, "optimizer": moments, "scaler": {"scale": torch.ones(1)}, "epoch": 3},
        "a score beside it": {"model": state, "optimizer": moments, "best_loss": torch.tensor(0.5)},
        "fairseq": {"model": state, "last_optimizer_state": moments, "extra_state": {"x": torch.ones(7)}},
        "rng": {"model": state, "torch_rng_state": torch.ones(50).byte(), "cuda_rng_state_all": [torch.ones(4)]},
        "ema beside": {"state_dict": state, "state_dict_ema": again, "optimizer": moments},
        "params_ema": {"params": state, "params_ema": again},
        "ema alone": {"ema": again, "optimizer": moments},
        "teacher": {"student": state, "teacher": again, "optimizer": moments},
        "ema within": {"state_dict": doubled},
        "DeepSpeed model": {"module": state, "optimizer": None, "ds_version": "0.15", "ds_config": {"zero": 1},
                            "param_shapes": [OrderedDict(weight=torch.Size([4, 3]))]},
    }  # fmt: skip


@pytest.mark.parametrize("case", checkpoints())
@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_left_in_a_checkpoint_is_no_parameter(tmp_path: Path, case: str, zipped: bool) -> None:
    torch.save(checkpoints()[case], tmp_path / "last.ckpt", _use_new_zipfile_serialization=zipped)
    found = counted(tmp_path / "last.ckpt")
    assert found.total == 16 and found.exact


def test_states_of_optimizers_alone_have_no_parameters(tmp_path: Path) -> None:
    _, optimizer = trained()
    moments = optimizer.state_dict()
    torch.save(moments, tmp_path / "optimizer.pt")
    flat = {"single_partition_of_fp32_groups": [torch.ones(16)], "base_optimizer_state": moments["state"]}
    torch.save({"optimizer_state_dict": flat, "ds_config": {}, "ds_version": "0.15"}, tmp_path / "zero_optim_states.pt")
    for name in ("optimizer.pt", "zero_optim_states.pt"):
        found = counted(tmp_path / name)
        assert found.total is None and not found.components


def test_modules_that_are_named_like_training_stay(tmp_path: Path) -> None:
    """A plain state dict: its keys are the tensors' own names, so none is a checkpoint's."""
    state = {"scheduler.weight": torch.ones(2, 3), "loss.weight": torch.ones(4), "teacher.weight": torch.ones(5)}
    torch.save(state, tmp_path / "m.pt")
    assert counted(tmp_path / "m.pt").total == 15


# TensorFlow, Keras, JAX


def test_slots_of_mesh_tensorflow_are_left_out(tmp_path: Path) -> None:
    from tests.checkpoint.test_tensorflow import FLOAT, INT64, checkpoint

    stem = "decoder/block_000/layer_000/SelfAttention/q"
    rows = {stem: (FLOAT, [8, 4], bytes(128)), f"{stem}_slot_vr": (FLOAT, [8], bytes(32)),
            f"{stem}_slot_vc": (FLOAT, [4], bytes(16)), "shared/embedding": (FLOAT, [10, 8], bytes(320)),
            "shared/embedding_slot_v": (FLOAT, [10, 8], bytes(320)), "global_step": (INT64, [], bytes(8))}  # fmt: skip
    assert counted(checkpoint(tmp_path, "model.ckpt-1000", rows)).total == 32 + 80


def test_an_optimizer_in_keras_files_is_left_out(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    with h5py.File(tmp_path / "m.h5", "w") as file:
        file.attrs["keras_version"] = "2.15.0"
        file.create_dataset("model_weights/dense/dense/kernel:0", data=np.ones((3, 2), np.float32))
        file.create_dataset("optimizer_weights/Adam/m/dense/kernel:0", data=np.ones((3, 2), np.float32))
        file.create_dataset("optimizer_weights/Adam/iter:0", data=np.int64(3))
    with h5py.File(tmp_path / "m.weights.h5", "w") as file:
        file.create_dataset("layers/dense/vars/0", data=np.ones((3, 2), np.float32))
        file.create_dataset("optimizer/vars/1", data=np.ones((3, 2), np.float32))
        file.create_dataset("layers/dropout/seed_generator/vars/0", data=np.ones(2, np.uint32))
    for name in ("m.h5", "m.weights.h5"):
        found = counted(tmp_path / name)
        assert found.total == 6 and any("optimizer" in e.rule for e in found.why)


def test_a_train_state_of_flax_is_its_parameters(tmp_path: Path) -> None:
    msgpack = pytest.importorskip("msgpack")

    def array(*shape: int) -> Any:
        raw = msgpack.packb((shape, "float32", bytes(4 * int(np.prod(shape)))), use_bin_type=True)
        return msgpack.ExtType(1, raw)

    params, moments = (
        {"dense": {"kernel": array(2, 3), "bias": array(3)}},
        {"0": {"mu": {"dense": {"kernel": array(2, 3)}}}},
    )
    state = {"step": 7, "params": params, "opt_state": moments, "batch_stats": {"norm": {"mean": array(3)}}}
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(state, use_bin_type=True))
    assert counted(tmp_path / "flax_model.msgpack").total == 9
    flax(tmp_path / "plain.msgpack")
    assert counted(tmp_path / "plain.msgpack").total == 4


# TFLite, Core ML, OpenVINO


def test_tflite_weights_in_whole_numbers_are_those_that_have_a_scale(tmp_path: Path) -> None:
    schema = pytest.importorskip("tflite")
    from tests.checkpoint.test_tflite import FULLY_CONNECTED, Writer

    class Scaled(Writer):
        """Tensors whose names end in "q" have a scale and a zero point."""

        def tensor(self, name: str, kind: int, shape: list[int], buffer: int) -> int:
            b = self.b
            quantization = 0
            if name.endswith("q"):
                schema.QuantizationParametersStartScaleVector(b, 1)
                b.PrependFloat32(0.5)
                scale = b.EndVector()
                schema.QuantizationParametersStart(b)
                schema.QuantizationParametersAddScale(b, scale)
                quantization = schema.QuantizationParametersEnd(b)
            text, sizes = b.CreateString(name), self.whole(schema.TensorStartShapeVector, shape)
            schema.TensorStart(b)
            schema.TensorAddName(b, text)
            schema.TensorAddType(b, kind)
            schema.TensorAddShape(b, sizes)
            schema.TensorAddBuffer(b, buffer)
            if quantization:
                schema.TensorAddQuantization(b, quantization)
            return int(schema.TensorEnd(b))

    kinds = schema.TensorType
    rows = [
        ("x", kinds.FLOAT32, [1, 4], 0), ("kernel q", kinds.UINT8, [2, 4], 1), ("bias q", kinds.INT32, [2], 2),
        ("size", kinds.INT32, [2], 3), ("eps", kinds.FLOAT32, [], 4), ("again q", kinds.UINT8, [2, 4], 1),
        ("y", kinds.FLOAT32, [1, 2], 0),
    ]  # fmt: skip
    buffers = [b"", bytes(8), bytes(8), bytes(8), bytes(4)]
    (tmp_path / "m.tflite").write_bytes(Scaled().model(buffers, [(rows, [0])], [(FULLY_CONNECTED, "")]))
    found = counted(tmp_path / "m.tflite")
    assert found.total == 8 + 2 and set(found.shares) == {"INT8", "INT32"}


def test_core_ml_counts_what_is_unpacked_not_its_parts() -> None:
    path = Path("m.mlpackage")
    shapes = {"idx": ("U4", (15,), 8), "lut": ("F16", (16,), 32), "q": ("I8", (6,), 6), "s": ("F16", (1,), 2),
              "bn/gamma": ("F32", (3,), 12), "bn/mean": ("F32", (3,), 12), "six/weights": ("U6", (4,), 3)}  # fmt: skip
    tensors = {n: TensorInfo(n, d, s, path, 0, size) for n, (d, s, size) in shapes.items()}
    packed = {
        "table": {"op": "constexpr_lut_to_dense", "dtype": "F16", "shape": [3, 5], "parts": ["idx", "lut"]},
        "whole": {"op": "constexpr_affine_dequantize", "dtype": "F16", "shape": [2, 3], "parts": ["first", "s"]},
        "first": {"op": "constexpr_sparse_to_dense", "dtype": "I8", "shape": [2, 3], "parts": ["q"]},
        "lying": {"op": "constexpr_lut_to_dense", "dtype": "F16", "shape": [2**40], "parts": ["bn/gamma"]},
        "six/weights": {"op": "weights", "bits": 6},
    }
    found = aside_of(Header(path, "coreml", tensors, {}, {"packed": packed})).counted
    assert {n: found[n][:2] for n in ("idx", "lut", "q", "s")} == {
        "idx": (15, "INT4"), "lut": (0, ""), "q": (6, "INT8"), "s": (0, ""),
    }  # fmt: skip
    assert found["bn/gamma"] == (3, "F32", False), "no more numbers than bits"
    assert found["bn/mean"][0] == 0 and found["six/weights"] == (4, "INT6", True)


def test_openvino_zero_points_scales_and_ranges_are_left_out(tmp_path: Path) -> None:
    from tests.checkpoint.test_openvino import const

    rows = [
        ("w", "u4", "4,6", 12), ("w/zero_point", "u4", "4,1", 2), ("w/scale", "f16", "4,1", 8), ("n", "i64", "3", 24),
        ("plain", "f32", "5", 20), ("low", "f32", "5,1", 20), ("high", "f32", "5,1", 20), ("eps", "f32", "1,1", 4),
    ]  # fmt: skip
    body, offset = "", 0
    for i, (name, kind, shape, size) in enumerate(rows):
        body += const(name, kind, shape, offset, size).replace('id="1"', f'id="{i}"', 1)
        offset += size
    body += '<layer id="50" name="fq" type="FakeQuantize" version="opset1"/>'
    edges = "".join(
        f'<edge from-layer="{a}" from-port="0" to-layer="50" to-port="{b}"/>' for a, b in ((4, 0), (5, 1), (6, 2))
    )
    xml = f'<?xml version="1.0"?><net name="net" version="11"><layers>{body}</layers><edges>{edges}</edges></net>'
    (tmp_path / "m.xml").write_text(xml)
    (tmp_path / "m.bin").write_bytes(bytes(offset))
    found = counted(tmp_path / "m.xml")
    assert found.total == 24 + 5 and found.shares == {"INT4": 24 / 29, "F32": 5 / 29}


# found by the fuzzer


@pytest.mark.parametrize("source", [".", "./", "Modelfile", "./Modelfile"])
def test_a_modelfile_that_builds_on_itself_is_refused(tmp_path: Path, source: str) -> None:
    (tmp_path / "Modelfile").write_text(f"FROM {source}\n")
    for path in (tmp_path, tmp_path / "Modelfile"):
        with pytest.raises(BrollyError, match="builds on itself"):
            examine(path)


def test_a_modelfile_of_its_folder_finds_the_weights_there(tmp_path: Path) -> None:
    FILES["model.safetensors"](tmp_path / "model.safetensors")
    (tmp_path / "Modelfile").write_text("FROM .\n")
    assert counted(tmp_path / "Modelfile").total == counted(tmp_path).total == 36


def test_a_manifest_that_names_itself_is_refused(tmp_path: Path) -> None:
    name = "0" * 64
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{name}"}]
    manifest = json.dumps({"mediaType": "application/vnd.oci.image.manifest.v1+json", "layers": layers})
    (tmp_path / "blobs" / "sha256").mkdir(parents=True)
    (tmp_path / "blobs" / "sha256" / name).write_text(manifest)
    with pytest.raises(BrollyError, match="builds on itself"):
        examine(tmp_path / "blobs" / "sha256" / name)


@pytest.mark.parametrize("root", [[], {}, None, 5])
def test_a_package_of_core_ml_names_its_model_by_a_text(tmp_path: Path, root: Any) -> None:
    (tmp_path / "m.mlpackage").mkdir()
    said = json.dumps({"itemInfoEntries": {"A": {"path": "x"}}, "rootModelIdentifier": root})
    (tmp_path / "m.mlpackage" / "Manifest.json").write_text(said)
    with pytest.raises(BrollyError, match="names no root model"):
        examine(tmp_path / "m.mlpackage")


# several graphs of one model


@pytest.mark.parametrize("names, chosen", [
    (["model.onnx", "model_q4.onnx", "model_fp16.onnx"], ["model.onnx"]),
    (["model_q4f16.onnx", "model_int8.onnx"], ["model_int8.onnx"]),
    (["decoder_model.onnx", "decoder_model_merged.onnx", "decoder_with_past_model.onnx", "encoder_model.onnx"],
     ["decoder_model_merged.onnx", "encoder_model.onnx"]),
    (["decoder_model_merged_q4.onnx", "embed_tokens_q4.onnx", "vision_encoder_q4.onnx"],
     ["decoder_model_merged_q4.onnx", "embed_tokens_q4.onnx", "vision_encoder_q4.onnx"]),
    (["model.onnx", "text_model.onnx", "vision_model.onnx"], ["model.onnx"]),
    (["text_model.onnx", "vision_model.onnx"], ["text_model.onnx", "vision_model.onnx"]),
    (["detector.onnx", "yolo.onnx"], ["detector.onnx"]),
    (["openvino_detokenizer.xml", "openvino_model.xml", "openvino_tokenizer.xml"], ["openvino_model.xml"]),
    (["openvino_decoder_model.xml", "openvino_decoder_with_past_model.xml", "openvino_encoder_model.xml"],
     ["openvino_decoder_model.xml", "openvino_encoder_model.xml"]),
])  # fmt: skip
def test_graphs_that_make_up_one_model(names: list[str], chosen: list[str]) -> None:
    from brolly.checkpoint.graphs import parts

    assert parts(names) == chosen


@pytest.mark.parametrize("under", ["", "onnx"])
def test_an_encoder_and_a_decoder_in_files_of_their_own_are_one_model(tmp_path: Path, under: str) -> None:
    h = pytest.importorskip("onnx").helper
    folder = tmp_path / "m" / under
    folder.mkdir(parents=True)
    packed = h.make_node("MatMulNBits", ["x", "w", "s"], ["y"], domain=ort, K=64, N=8, bits=4, block_size=32)
    save_onnx(folder / "encoder_model.onnx", [h.make_node("MatMul", ["x", "w"], ["y"])], {"w": floats(3, 5)})
    four = {"w": (U8, np.zeros((8, 2, 16), np.uint8)), "s": floats(16)}
    for name in ("decoder_model_merged", "decoder_with_past_model"):
        save_onnx(folder / f"{name}.onnx", [packed], four)
    (tmp_path / "m" / "config.json").write_text(json.dumps({"model_type": "never-heard-of"}))
    card = examine(tmp_path / "m")
    assert card.parameters.total == 15 + 512 and card.findings == () and not card.subject.faults
    (folder / "encoder_model.onnx").write_bytes(b"broken")
    card = examine(tmp_path / "m")
    assert card.parameters.total == 512 and not card.parameters.exact, "a part is missing"
    assert [f.file for f in card.findings] == ["encoder_model.onnx"]


def test_the_form_holds_words_where_a_config_holds_anything(tmp_path: Path) -> None:
    said = {"model_type": "llama", "architectures": [float("inf"), {"a": 1}, "LlamaForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(said))
    assert form(examine(tmp_path))["model properties"]["model architecture"]["value"] == ["LlamaForCausalLM"]


@pytest.mark.parametrize("said", [["minimax"], {"a": 1}, None, 5, float("nan")])
def test_a_type_that_is_no_word_is_none(tmp_path: Path, said: Any) -> None:
    config = {"model_type": said, "hidden_size": 64, "num_hidden_layers": 2, "architectures": ["MiniMaxM2ForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert examine(tmp_path).json()["kind"] in ("llm", None)


@pytest.mark.parametrize("case", ["plain loop", "lightning", "fairseq"])
def test_a_checkpoint_with_weights_beside_its_optimizer_is_no_optimizer(tmp_path: Path, case: str) -> None:
    torch.save(checkpoints()[case], tmp_path / "last.ckpt")
    assert "optimizer" not in examine(tmp_path / "last.ckpt").kind.flavours
    torch.save(trained()[1].state_dict(), tmp_path / "state.pt")
    assert "optimizer" in examine(tmp_path / "state.pt").kind.flavours
