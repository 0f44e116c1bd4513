"""Checkpoints that embed, judge or hear and mean harm, or are broken: an error that says so, soon, and no numbers."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

T = pytest.importorskip("transformers")

from safetensors.torch import load_file, save_file  # noqa: E402

from brolly import load  # noqa: E402
from brolly.errors import CheckpointError, MediaError  # noqa: E402
from brolly.media.audio.whisper_tokens import load_whisper_tokens  # noqa: E402
from tests.families import text_folders  # noqa: E402
from tests.run.seeing import photo, write_clip  # noqa: E402

POOLING = ("1_Pooling", "x.Pooling", {})


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_folders.bert(tmp_path_factory.mktemp("bert"))


@pytest.fixture
def folder(base: Path, tmp_path: Path) -> Path:
    return text_folders.copied(base, tmp_path / "bert")


def tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def spoilt(state: dict[str, torch.Tensor]) -> None:
    for name in [name for name in state if name.endswith("weight")]:
        state[name] = torch.full_like(state[name], float("nan"))


def refused(folder: Path, *words: str) -> None:
    with pytest.raises(CheckpointError) as error:
        load(folder, device="cpu").embed("the dog")
    assert all(word in str(error.value) for word in words), error.value


# Text embedders ------------------------------------------------------------------------------------------------------


def test_a_list_of_modules_that_leads_nowhere_is_no_list(folder: Path) -> None:
    (folder / "modules.json").symlink_to("nowhere")
    assert load(folder, device="cpu").embed("the dog").vectors.shape == (1, 32)


def test_a_layer_that_takes_other_numbers_than_come_to_it_is_refused(folder: Path) -> None:
    text_folders.modules(folder, ("", "x.Transformer", None), POOLING, ("2_Dense", "x.Dense", None))
    text_folders.write(folder / "2_Dense/config.json", {"in_features": 31, "out_features": 4, "bias": False})
    save_file({"linear.weight": torch.zeros(4, 31)}, folder / "2_Dense/model.safetensors")
    refused(folder, "31", "32")


def test_a_pool_of_one_mode_many_times_is_refused(folder: Path) -> None:
    said = {"pooling_mode": ["mean"] * 20_000}
    text_folders.modules(folder, ("", "x.Transformer", None), ("1_Pooling", "x.Pooling", said))
    refused(folder, "pools by")


def test_more_labels_than_anyone_tells_apart_are_refused_before_they_are_counted(folder: Path) -> None:
    path = folder / "model.safetensors"
    raw = path.read_bytes()
    n = int.from_bytes(raw[:8], "little")
    header, end = json.loads(raw[8 : 8 + n]), len(raw) - 8 - n
    header["classifier.weight"] = {"dtype": "F32", "shape": [2**40, 0], "data_offsets": [end, end]}
    said = json.dumps(header).encode()
    path.write_bytes(len(said).to_bytes(8, "little") + said + raw[8 + n :])
    refused(folder, "labels apart")


def test_a_layer_of_a_high_number_makes_no_others(folder: Path) -> None:
    name = "encoder.layer.9999.attention.self.query.weight"
    tensors(folder, lambda state: state.update({name: torch.zeros(32, 32)}))
    refused(folder, "encoder.layers.9999")


# Numbers that are none -----------------------------------------------------------------------------------------------


def test_vectors_are_numbers_or_an_error(folder: Path) -> None:
    tensors(folder, spoilt)
    refused(folder, "no finite number", "float32")


def test_an_eye_of_no_numbers_says_so_of_each_picture_and_label(tmp_path: Path) -> None:
    write_clip(tmp_path)
    tensors(tmp_path, spoilt)
    model = load(tmp_path, device="cpu")
    with pytest.raises(CheckpointError, match="no finite number"):
        model.embed(photo("red"))
    with pytest.raises(CheckpointError, match="no finite number"):
        model.classify(photo("red"), ["red", "green"])


def test_a_judge_of_no_numbers_says_so(base: Path, tmp_path: Path) -> None:
    folder = text_folders.bert(tmp_path, "BertForSequenceClassification", num_labels=1)
    tensors(folder, spoilt)
    with pytest.raises(CheckpointError, match="no finite number"):
        load(folder, device="cpu").rerank("the dog", ["cat", "dog"])


# Eyes ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [{"crop_size": 4}, {"do_resize": False, "do_center_crop": False}, {"crop_size": 8192}, {"size": 10**9}]
)
def test_pictures_are_read_at_a_size_that_a_network_can_see(tmp_path: Path, said: Any) -> None:
    write_clip(tmp_path)
    path = tmp_path / "preprocessor_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | said))
    wide = photo("red", 2100, 2000) if "do_resize" in said else photo("red")
    with pytest.raises((MediaError, CheckpointError), match="pixels|expected a whole number"):
        load(tmp_path, device="cpu").embed(wide)


def test_an_eye_of_four_channels_is_told(tmp_path: Path) -> None:
    write_clip(tmp_path)
    name = "vision_model.embeddings.patch_embedding.weight"
    tensors(tmp_path, lambda state: state.update({name: torch.zeros(8, 4, 16, 16)}))
    with pytest.raises(CheckpointError, match="4 channels"):
        load(tmp_path, device="cpu")


# Whisper -------------------------------------------------------------------------------------------------------------


def whisper(folder: Path, said: Any = None, **changes: Any) -> Any:
    """A tiny one with random weights; `said` is its generation_config.json."""
    sizes = dict(
        d_model=32, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=32, decoder_ffn_dim=32, vocab_size=51865,
    )  # fmt: skip
    torch.manual_seed(0)
    T.WhisperForConditionalGeneration(T.WhisperConfig(**(sizes | changes))).save_pretrained(folder)
    (folder / "generation_config.json").write_text(json.dumps(said or {}))
    return folder


SECOND = torch.zeros(16_000).numpy()


def silent(folder: Path, word: str, **options: Any) -> None:
    with pytest.raises(CheckpointError, match=word):
        load(folder, device="cpu").transcribe(SECOND, language="en", **options)


@pytest.mark.parametrize("options", [{"temperature": 0.0, "beam_size": 1}, {"temperature": 0.4}, {"beam_size": 2}])
def test_a_whisper_that_may_write_nothing_writes_nothing(tmp_path: Path, options: Any) -> None:
    silent(whisper(tmp_path, {"suppress_tokens": list(range(51865))}), "write nothing", **options)


def test_a_whisper_of_no_numbers_writes_nothing(tmp_path: Path) -> None:
    whisper(tmp_path)
    tensors(tmp_path, spoilt)
    silent(tmp_path, "write nothing")


@pytest.mark.parametrize("changes", [{"max_source_positions": 10}, {"max_target_positions": 2}])
def test_a_whisper_too_small_for_half_a_minute_is_told(tmp_path: Path, changes: Any) -> None:
    silent(whisper(tmp_path, **changes), "half a minute")


def test_heads_that_are_named_often_are_looked_at_once(tmp_path: Path) -> None:
    assert load(whisper(tmp_path, {"alignment_heads": [[0, 1]] * 50_000}), device="cpu").ear.heads == ((0, 1),)


def test_languages_have_codes(tmp_path: Path) -> None:
    said = {"<|en|>": 7, "<|\x1b[31m|>": 5, f"<|{'q' * 9999}|>": 6, "<|yue|>": 9, "<|zh-Hant|>": 8}
    header = load(whisper(tmp_path), device="cpu").card.header
    assert load_whisper_tokens(header, 51865, {"lang_to_id": said}).languages == {"en": 7, "zh-Hant": 8, "yue": 9}
