"""Whisper in every layout, against transformers' and openai-whisper's own networks on the same float32 weights."""

from __future__ import annotations

import base64
import gzip
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly import models
from brolly.card import Header, TensorInfo
from brolly.checkpoint import Mapped, read_header
from brolly.engine.cache import Causal
from brolly.engine.listen import Listener
from brolly.errors import BrollyError, CheckpointError, UnknownModel
from brolly.families import recognise
from brolly.families.whisper import HEADS, alignment_heads
from brolly.fill import fill, places
from tests.check_family import check_speech_model, loaded
from tests.families import speech_layouts as layouts
from tests.families.test_language import noisy

T = pytest.importorskip("transformers")

WORDS = [bytes([i]) for i in range(256)]
SMALL = dict(
    vocab_size=200, d_model=64, encoder_layers=2, decoder_layers=3, encoder_attention_heads=4,
    decoder_attention_heads=2, encoder_ffn_dim=256, decoder_ffn_dim=256, num_mel_bins=80, max_source_positions=40,
    max_target_positions=32, pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=3,
)  # fmt: skip


def whisper(**changes):
    torch.manual_seed(0)
    return noisy(T.WhisperForConditionalGeneration(T.WhisperConfig(**(SMALL | changes))))


def check(path: Path, reference):
    """Against transformers' network."""
    encoder = reference.get_encoder()
    kind = T.modeling_outputs.BaseModelOutput

    @torch.inference_mode()
    def write(audio, ids):
        return reference(encoder_outputs=kind(last_hidden_state=audio), decoder_input_ids=ids).logits

    with torch.inference_mode():
        return check_speech_model(path, lambda mels: encoder(mels).last_hidden_state, write)


def check_openai(path: Path, reference):
    """Against openai-whisper's network with the weights of transformers'."""
    theirs = pytest.importorskip("whisper")
    network = theirs.model.Whisper(theirs.model.ModelDimensions(**layouts.dims(reference.config))).eval()
    network.load_state_dict(layouts.openai_names(reference))
    with torch.inference_mode():
        check_speech_model(path, network.encoder, lambda audio, ids: network.decoder(ids, audio))
    return network


@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(num_mel_bins=128, vocab_size=201),
        dict(encoder_layers=4, decoder_layers=1),
        dict(encoder_ffn_dim=96, decoder_ffn_dim=80),
        dict(activation_function="relu"),
    ],
    ids=["as published", "large-v3's", "distilled", "of other widths", "with another activation"],
)
def test_saved_by_transformers(tmp_path: Path, changes: dict) -> None:
    reference = whisper(**changes)
    reference.save_pretrained(tmp_path)
    check(tmp_path, reference)


def test_a_head_that_is_saved_though_it_is_tied(tmp_path: Path) -> None:
    reference = whisper()
    reference.save_pretrained(tmp_path)
    state = load_file(tmp_path / "model.safetensors")
    state["proj_out.weight"] = state["model.decoder.embed_tokens.weight"].clone()
    save_file(state, tmp_path / "model.safetensors")
    check(tmp_path, reference)


def test_a_head_of_its_own(tmp_path: Path) -> None:
    reference = whisper(tie_word_embeddings=False)
    reference.save_pretrained(tmp_path)
    assert "proj_out.weight" in load_file(tmp_path / "model.safetensors")
    check(tmp_path, reference)


def test_the_network_saved_without_its_head(tmp_path: Path) -> None:
    reference = whisper()
    reference.model.save_pretrained(tmp_path)
    assert "encoder.conv1.weight" in load_file(tmp_path / "model.safetensors")
    check(tmp_path, reference)


def test_half_precision_and_pytorch_bin(tmp_path: Path) -> None:
    half = whisper().half()
    half.config.save_pretrained(tmp_path)
    torch.save(half.state_dict(), tmp_path / "pytorch_model.bin")
    check(tmp_path, half.float())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_openai_s_checkpoints(tmp_path: Path, dtype: torch.dtype) -> None:
    reference = whisper().to(dtype).float()
    layouts.write_openai(tmp_path / "tiny.pt", reference, dtype)
    check_openai(tmp_path / "tiny.pt", reference)
    check(tmp_path, reference)


@pytest.mark.parametrize("half", [True, False])
def test_whisper_cpp_s_files(tmp_path: Path, half: bool) -> None:
    reference = whisper(num_mel_bins=128)
    if half:
        with torch.no_grad():
            for name, parameter in reference.named_parameters():
                if parameter.dim() > 1 and "embed_positions" not in name:
                    parameter.copy_(parameter.half().float())
    layouts.write_ggml(tmp_path / "ggml-tiny.bin", reference, WORDS, half)
    check_openai(tmp_path / "ggml-tiny.bin", reference)
    check(tmp_path / "ggml-tiny.bin", reference)


def test_where_heads_look_equals_both_references(tmp_path: Path) -> None:
    theirs = pytest.importorskip("whisper")
    reference = whisper()
    reference.save_pretrained(tmp_path)
    eager = T.WhisperForConditionalGeneration.from_pretrained(tmp_path, attn_implementation="eager").eval()
    _, network = loaded(tmp_path, "Whisper")
    listener = Listener(network)
    mels, ids = torch.randn(2, 80, 80), torch.randint(200, (2, 7))
    heads = [(0, 1), (2, 0), (2, 1)]
    hidden, scores = listener.align(listener.hear(mels), ids, heads)
    with torch.inference_mode():
        seen = eager(input_features=mels, decoder_input_ids=ids, output_attentions=True)
        for i, (layer, head) in enumerate(heads):
            assert (scores[:, i].softmax(-1) - seen.cross_attentions[layer][:, head]).abs().max() < 1e-5
        assert (listener.logits(hidden) - seen.logits).abs().max() < 1e-4

        openai = theirs.model.Whisper(theirs.model.ModelDimensions(**layouts.dims(reference.config))).eval()
        openai.load_state_dict(layouts.openai_names(reference))
        found = []
        for block in openai.decoder.blocks:
            block.cross_attn.register_forward_hook(lambda _, inside, out: found.append(out[-1]))
        with theirs.model.disable_sdpa():
            openai(mels, ids)
    for i, (layer, head) in enumerate(heads):
        assert (scores[:, i] - found[layer][:, head]).abs().max() < 1e-4


def test_a_long_text_grows_the_cache(tmp_path: Path) -> None:
    reference = whisper(max_target_positions=160)
    reference.save_pretrained(tmp_path)
    _, network = loaded(tmp_path, "Whisper")
    listener = Listener(network)
    heard, ids = listener.hear(torch.randn(1, 80, 80)), torch.randint(200, (1, 150))
    writing = listener.begin(heard, ids[0, :2].tolist(), rows=2)
    with torch.inference_mode():
        expected = network.logits(network.decode(ids, torch.arange(150)[None], Causal(network.config), heard.cross))
    for i in range(2, 150):
        writing.reorder([1, 0])
        logits = writing.step(ids[:, i].expand(2))
        assert (logits - expected[0, i]).abs().max() < 1e-4


def test_heads_that_tell_time_are_said_or_published_or_the_last_half(tmp_path: Path) -> None:
    whisper(decoder_layers=4).save_pretrained(tmp_path)
    config = recognise(read_header(tmp_path)).config
    assert alignment_heads(config, {}) == ((2, 0), (2, 1), (3, 0), (3, 1))
    assert alignment_heads(config, {"alignment_heads": [[1, 1], [3, 0]]}) == ((1, 1), (3, 0))
    for wrong in ([[4, 0]], [[0, 2]], [[0]], ["00"], [[True, 0]]):
        with pytest.raises(CheckpointError, match="alignment_heads"):
            alignment_heads(config, {"alignment_heads": wrong})


def test_published_heads_are_openai_s() -> None:
    theirs = pytest.importorskip("whisper")
    kinds = {"tiny": (4, 6), "base": (6, 8), "small": (12, 12), "medium": (24, 16), "large": (32, 20)}
    names = {(*shape, 51864): f"{name}.en" for name, shape in kinds.items() if name != "large"}
    names |= {(*shape, 51865): name for name, shape in kinds.items()}
    names |= {(32, 20, 51865): "large-v2", (32, 20, 51866): "large-v3", (4, 20, 51866): "turbo"}
    assert names.keys() == HEADS.keys()
    for shape, name in names.items():
        dump = gzip.decompress(base64.b85decode(theirs._ALIGNMENT_HEADS[name]))
        found = [tuple(map(int, pair.split("."))) for pair in HEADS[shape].split()]
        assert found == [divmod(i, shape[1]) for i, chosen in enumerate(dump) if chosen]


@pytest.mark.parametrize("key", ["n_text_layer", "n_text_state", "n_audio_head", "n_mels"])
@pytest.mark.parametrize("value", [None, 0, -3, 2**40, "64", 7])
def test_dims_that_do_not_fit_are_told(tmp_path: Path, key: str, value: object) -> None:
    layouts.write_openai(tmp_path / "tiny.pt", whisper())
    saved = torch.load(tmp_path / "tiny.pt")
    saved["dims"][key] = value
    torch.save(saved, tmp_path / "tiny.pt")
    header = read_header(tmp_path / "tiny.pt")
    with pytest.raises(BrollyError):
        fill(recognise(header), Mapped(header), torch.device("cpu"), torch.float32)


def test_configs_that_do_not_fit_are_told(tmp_path: Path) -> None:
    whisper().save_pretrained(tmp_path)
    plain = json.loads((tmp_path / "config.json").read_text())
    for change in (
        dict(activation_function="mish"),
        dict(d_model=63),
        dict(decoder_attention_heads=3),
        dict(decoder_layers=2),
        dict(vocab_size=3),
    ):
        (tmp_path / "config.json").write_text(json.dumps(plain | change))
        header = read_header(tmp_path)
        with pytest.raises(BrollyError):
            fill(recognise(header), Mapped(header), torch.device("cpu"), torch.float32)


def test_quantised_and_other_ggml_files_are_told(tmp_path: Path) -> None:
    path = Path("ggml-tiny.bin")
    config = layouts.dims(whisper().config)
    row = TensorInfo("decoder.token_embedding.weight", "Q5_0", (200, 64), path, 0, 8800)
    with pytest.raises(CheckpointError, match="Q5_0"):
        recognise(Header(path, "ggml", {row.name: row}, config, {"variant": "whisper"}))
    row = TensorInfo("tok_embeddings.weight", "F16", (200, 64), path, 0, 25600)
    with pytest.raises(UnknownModel, match="a llama model in ggml's old format"):
        recognise(Header(path, "ggml", {row.name: row}, {"n_vocab": 200}, {"variant": "llama"}))


PUBLISHED = {  # width, layers of the encoder and the decoder, heads, mel bands, tokens
    "tiny.en": (384, 4, 4, 6, 80, 51864),
    "base": (512, 6, 6, 8, 80, 51865),
    "large-v3": (1280, 32, 32, 20, 128, 51866),
    "large-v3-turbo": (1280, 32, 4, 20, 128, 51866),
    "distil-large-v3": (1280, 32, 2, 20, 128, 51866),
}


@pytest.mark.parametrize("form", ["safetensors", "torch"])
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_shapes_are_filled_to_the_last_name(name: str, form: str) -> None:
    dim, n_encoder, n_decoder, n_heads, n_mels, n_vocab = PUBLISHED[name]
    config = T.WhisperConfig(
        d_model=dim, encoder_layers=n_encoder, decoder_layers=n_decoder, encoder_attention_heads=n_heads,
        decoder_attention_heads=n_heads, encoder_ffn_dim=4 * dim, decoder_ffn_dim=4 * dim, num_mel_bins=n_mels,
        vocab_size=n_vocab,
    )  # fmt: skip
    with torch.device("meta"):
        reference = T.WhisperForConditionalGeneration(config)
    state = reference.state_dict() if form == "safetensors" else layouts.openai_names(reference)
    path = Path("model")
    tensors = {key: TensorInfo(key, "F16", tuple(t.shape), path, 0, 2 * t.numel()) for key, t in state.items()}
    said = {"values": {"dims": layouts.dims(config)}} if form == "torch" else {}
    card = recognise(Header(path, form, tensors, config.to_dict() if form == "safetensors" else {}, said))
    with torch.device("meta"):
        network = models.build(card.config)
    found = places(card, dict(network.named_parameters()))
    assert {key: info.shape for key, (info, _) in found.items()} == {
        key: tuple(p.shape) for key, p in network.named_parameters()
    }
    assert sum(p.numel() for p in network.parameters()) == sum(p.numel() for p in reference.parameters())
