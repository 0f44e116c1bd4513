"""NeMo's archives: the configuration against a YAML library, the weights against PyTorch."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import torch
import yaml

from brolly.checkpoint.nemo import read_nemo, yaml_values
from brolly.errors import CheckpointError

CONFIG = """\
# a comment
sample_rate: 16000
target: nemo.collections.asr.models.EncDecCTCModelBPE
log_prediction: true
name: 'it''s' # of Nvidia
nothing: null
lr: 0.001
labels: [a, b, "c"]
tags:
- one
- 'two'
preprocessor:
  _target_: nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor
  features: 80
  dither: 1.0e-05
  pad: -1
  nested:
    deep: 1
    deeper:
    - x: 2
  after: "yes"
encoder:
    n_layers: 18
    d_model: 512
"""


def nemo(path: Path, mode: str = "w", inside: tuple[str, ...] = ("model_config.yaml", "model_weights.ckpt")) -> Path:
    weights = io.BytesIO()
    torch.save({"encoder.w": torch.ones(3, 2), "decoder.b": torch.zeros(5, dtype=torch.float16)}, weights)
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]
        for name in inside:
            raw = weights.getvalue() if name.endswith("ckpt") else CONFIG.encode()
            info = tarfile.TarInfo(f"./{name}")
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def test_configuration_and_weights_are_read(tmp_path: Path) -> None:
    header = read_nemo(nemo(tmp_path / "m.nemo"))
    assert header.format == "nemo" and header.metadata["target"] == "nemo.collections.asr.models.EncDecCTCModelBPE"
    assert header.config["encoder"] == {"n_layers": 18, "d_model": 512}
    assert {k: (t.dtype, t.shape) for k, t in header.tensors.items()} == {
        "encoder.w": ("F32", (3, 2)),
        "decoder.b": ("F16", (5,)),
    }
    info = header.tensors["encoder.w"]
    with info.file.open() as file:  # type: ignore[union-attr, call-arg]
        file.seek(info.offset)
        assert file.read(info.nbytes) == torch.ones(6).numpy().tobytes()


def test_of_a_packed_one_the_configuration_is_read(tmp_path: Path) -> None:
    header = read_nemo(nemo(tmp_path / "m.nemo", "w:gz"))
    assert (
        header.config["sample_rate"] == 16000
        and header.metadata["weights"] == "model_weights.ckpt"
        and not header.tensors
    )


def test_another_tar_is_none(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="model_config"):
        read_nemo(nemo(tmp_path / "m.nemo", inside=("model_weights.ckpt",)))


def test_plain_values_agree_with_a_yaml_library() -> None:
    ours, theirs = yaml_values(CONFIG), yaml.safe_load(CONFIG)
    assert ours.keys() == theirs.keys()
    for key, value in theirs.items():
        if key == "name":
            continue
        if isinstance(value, dict):
            plain = {k: v for k, v in value.items() if not isinstance(v, (dict, list))}
            assert {k: v for k, v in ours[key].items() if k in plain} == plain
        else:
            assert ours[key] == value


def test_text_that_is_no_yaml_is_taken_for_what_it_is() -> None:
    for text in (
        "",
        "\0",
        ":::",
        "- a\n- b",
        "a: [1, 2",
        "a:\n\tb: 1",
        "{" * 10_000,
        "a: " + "x" * 100_000,
        "a\n" * 10_000,
        "a: 1\n" * 20_000,
    ):
        assert isinstance(yaml_values(text), dict)
