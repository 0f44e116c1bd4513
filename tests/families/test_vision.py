"""CLIP, SigLIP, DINOv2 and plain vision transformers in every layout, against transformers on the same weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from math import prod
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly import load, models
from brolly.card import Header, TensorInfo
from brolly.checkpoint import read_header
from brolly.errors import BrollyError, CheckpointError, UnsupportedTask
from brolly.families import recognise
from brolly.fill import places
from brolly.identity import examine
from brolly.layers.transformer import Spans
from tests.check_family import check_encoder, loaded
from tests.families import vision_layouts as layouts
from tests.families.test_language import noisy

T = pytest.importorskip("transformers")

BOTH = ("embed", "classify")
EYE = dict(
    hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4, image_size=32, patch_size=8
)
WORDS = dict(
    vocab_size=99, hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
    max_position_embeddings=12,
)  # fmt: skip
ENDS = dict(eos_token_id=98, bos_token_id=97, pad_token_id=98)
TEXTS = [[97, 5, 6, 7, 98], [97, 9, 98], [97, 11, 12, 13, 98]]
FULL = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 1], [9, 8, 7, 1, 1, 1, 1, 1, 1, 1, 1, 1]]


def pictures(side: int = 32, count: int = 3) -> torch.Tensor:
    return torch.randn(count, 3, side, side, generator=torch.Generator().manual_seed(3))


def clip(act: str = "quick_gelu", text: dict | None = None, vision: dict | None = None):
    torch.manual_seed(0)
    return noisy(
        T.CLIPModel(
            T.CLIPConfig(
                text_config=WORDS | ENDS | dict(hidden_act=act) | (text or {}),
                vision_config=EYE | dict(hidden_act=act) | (vision or {}),
                projection_dim=24,
            )
        )
    )


def expected(model, texts=TEXTS, pixels=None) -> dict[str, torch.Tensor]:
    """Vectors and logits of a transformers' pair of towers; short texts are filled up with their last id."""
    longest = max(map(len, texts))
    ids = torch.tensor([text + text[-1:] * (longest - len(text)) for text in texts])
    pixels = pictures() if pixels is None else pixels
    with torch.inference_mode():
        found = model(input_ids=ids, pixel_values=pixels)
        images, words = model.get_image_features(pixel_values=pixels), model.get_text_features(input_ids=ids)
    return dict(images=images.pooler_output, texts=words.pooler_output, logits=found.logits_per_image)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_clip_equals_transformers(tmp_path: Path, act: str) -> None:
    model = clip(act)
    model.save_pretrained(tmp_path)
    network = check_encoder(tmp_path, "CLIP", BOTH, expected(model), pictures(), TEXTS)
    assert network.config.context == 12 and network.config.vision.image_size == 32


def test_clip_of_the_first_configs_ends_at_the_highest_id(tmp_path: Path) -> None:
    model = clip(text=dict(eos_token_id=2))
    model.save_pretrained(tmp_path)
    network = check_encoder(tmp_path, "CLIP", BOTH, expected(model), pictures(), TEXTS)
    assert network.config.text.pool == "highest"


def test_clip_pictures_of_any_shape_equal_transformers(tmp_path: Path) -> None:
    model = clip()
    model.save_pretrained(tmp_path)
    _, network = loaded(tmp_path, "CLIP")
    mixed = [torch.randn(3, 48, 24), torch.randn(3, 32, 32), torch.randn(3, 16, 67)]
    with torch.inference_mode():
        theirs = [model.get_image_features(p[None], interpolate_pos_encoding=True).pooler_output for p in mixed]
        assert (network.images(mixed) - torch.cat(theirs)).abs().max() < 1e-4


@pytest.mark.parametrize("prefixed", [True, False])
@pytest.mark.parametrize("projected", [True, False])
def test_clip_towers_alone(tmp_path: Path, prefixed: bool, projected: bool) -> None:
    """transformers 5 writes a bare tower's names without the tower's, and the hub has them with it."""
    config = clip().config
    vision = (T.CLIPVisionModelWithProjection if projected else T.CLIPVisionModel)(config.vision_config)
    text = (T.CLIPTextModelWithProjection if projected else T.CLIPTextModel)(config.text_config)
    for model, name in ((vision, "vision_model."), (text, "text_model.")):
        folder = tmp_path / name
        noisy(model).save_pretrained(folder)
        rename(folder / "model.safetensors", name if prefixed else "", name)
        with torch.inference_mode():
            if model is vision:
                out = model(pictures())
                told = {"images": out.image_embeds if projected else out.pooler_output}
                check_encoder(folder, "CLIP", ("embed",), told, pictures())
            else:
                ids = [TEXTS[0], TEXTS[2]]
                out = model(torch.tensor(ids))
                told = {"texts": out.text_embeds if projected else out.pooler_output}
                check_encoder(folder, "CLIP", ("embed",), told, texts=ids)


def rename(path: Path, prefix: str, tower: str) -> None:
    """The tower's tensors under `prefix` instead of their own."""
    tensors = load_file(path)
    held = {n: t for n, t in tensors.items() if n.endswith("_projection.weight")}
    rest = {prefix + n.removeprefix(tower): t for n, t in tensors.items() if n not in held}
    save_file(held | rest, path, metadata={"format": "pt"})


def siglip(vocab_size: int = 99):
    torch.manual_seed(0)
    config = T.SiglipConfig(text_config=WORDS | dict(vocab_size=vocab_size, projection_size=64), vision_config=EYE)
    return noisy(T.SiglipModel(config))


@pytest.mark.parametrize(("family", "vocab_size"), [("SigLIP", 99), ("SigLIP 2", 256000)])
def test_siglip_equals_transformers(tmp_path: Path, family: str, vocab_size: int) -> None:
    model = siglip(vocab_size)
    model.save_pretrained(tmp_path)
    network = check_encoder(tmp_path, family, BOTH, expected(model, FULL), pictures(), FULL)
    assert network.config.text.padded and network.config.sigmoid
    logits = torch.tensor([[0.0, 2.0]])
    assert torch.equal(network.probabilities(logits), logits.sigmoid())


def test_siglip_tower_alone(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = noisy(T.SiglipVisionModel(T.SiglipVisionConfig(**EYE)))
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        told = {"images": model(pictures()).pooler_output}
    check_encoder(tmp_path, "SigLIP", ("embed",), told, pictures())


def test_naflex_pictures_of_any_shape_in_one_row(tmp_path: Path) -> None:
    torch.manual_seed(0)
    eye = {k: v for k, v in EYE.items() if k != "image_size"} | dict(num_patches=16)
    words = WORDS | dict(projection_size=64)
    model = noisy(T.Siglip2Model(T.Siglip2Config(text_config=words, vision_config=eye)))
    model.save_pretrained(tmp_path)
    mixed = [torch.randn(3, 8 * h, 8 * w) for h, w in ((2, 7), (4, 4), (1, 9), (5, 3))]
    longest = 16
    patches, mask, shapes = torch.zeros(4, longest, 192), torch.zeros(4, longest), []
    for i, p in enumerate(mixed):
        h, w = p.shape[1] // 8, p.shape[2] // 8
        flat = p.reshape(3, h, 8, w, 8).permute(1, 3, 2, 4, 0).reshape(h * w, -1)  # pixels with channels last
        patches[i, : h * w], mask[i, : h * w] = flat, 1
        shapes.append((h, w))
    with torch.inference_mode():
        theirs = model(
            input_ids=torch.tensor(FULL), pixel_values=patches, pixel_attention_mask=mask,
            spatial_shapes=torch.tensor(shapes),
        )  # fmt: skip
        _, network = loaded(tmp_path, "SigLIP 2")
        ours = network.images(mixed)
        words = network.texts(torch.tensor(FULL).flatten(), Spans([12, 12]))
        assert (torch.nn.functional.normalize(ours, dim=-1) - theirs.image_embeds).abs().max() < 1e-4
        assert (network.logits(ours, words) - theirs.logits_per_image).abs().max() < 1e-4


REGISTERS = dict(num_register_tokens=3)


def dino(kind: str, registers: bool, **changes):
    torch.manual_seed(0)
    sizes = dict(hidden_size=48, num_hidden_layers=2, num_attention_heads=3, image_size=56, patch_size=14)
    name = "Dinov2WithRegisters" if registers else "Dinov2"
    config = getattr(T, f"{name}Config")(**sizes | (REGISTERS if registers else {}) | changes)
    return noisy(getattr(T, name + kind)(config))


@pytest.mark.parametrize("swiglu", [False, True])
@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("side", [56, 42, 89])
def test_dinov2_equals_transformers(tmp_path: Path, registers: bool, swiglu: bool, side: int) -> None:
    model = dino("Model", registers, use_swiglu_ffn=swiglu)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        told = {"images": model(pictures(side)).pooler_output}
    check_encoder(tmp_path, "DINOv2", ("embed",), told, pictures(side))


@pytest.mark.parametrize("registers", [False, True])
def test_dinov2_with_a_classifier(tmp_path: Path, registers: bool) -> None:
    named = {0: "cat", 1: "dog", 2: "truck"}
    model = dino("ForImageClassification", registers, id2label=named)
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        told = {"classes": model(pictures(56)).logits}
    network = check_encoder(tmp_path, "DINOv2", BOTH, told, pictures(56))
    assert network.config.labels == ("cat", "dog", "truck")


@pytest.mark.parametrize("registers", [False, True])
@pytest.mark.parametrize("swiglu", [False, True])
def test_dinov2_in_facebook_s_names(tmp_path: Path, registers: bool, swiglu: bool) -> None:
    model = dino("Model", registers, hidden_size=128, num_attention_heads=2, use_swiglu_ffn=swiglu)
    model.save_pretrained(tmp_path / "saved")
    path = tmp_path / "dinov2_vits14_pretrain.pth"
    torch.save(layouts.facebook(load_file(tmp_path / "saved" / "model.safetensors")), path)
    with torch.inference_mode():
        told = {"images": model(pictures(42)).pooler_output}
    check_encoder(path, "DINOv2", ("embed",), told, pictures(42))


def test_vit_with_a_classifier(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = T.ViTConfig(**EYE, id2label={0: "cat", 1: "dog", 2: "truck"})
    model = noisy(T.ViTForImageClassification(config))
    model.save_pretrained(tmp_path)
    with torch.inference_mode():
        hidden = model.vit(pictures()).last_hidden_state[:, 0]
        told = {"images": hidden, "classes": model(pictures()).logits}
    check_encoder(tmp_path, "ViT", BOTH, told, pictures())


def tall(act: str = "quick_gelu"):
    """A CLIP whose heads have 64 channels each, as OpenAI's all have."""
    words, eye = dict(hidden_size=64, num_attention_heads=1), dict(hidden_size=128, num_attention_heads=2)
    return clip(act, words | dict(eos_token_id=2), eye)


def saved(model, folder: Path) -> dict[str, torch.Tensor]:
    model.save_pretrained(folder)
    return load_file(folder / "model.safetensors")


def test_openai_s_torchscript_is_read_and_not_run(tmp_path: Path) -> None:
    model = tall()
    state = layouts.openai(saved(model, tmp_path / "saved"))
    numbers = dict(input_resolution=32, context_length=12, vocab_size=99)
    script = layouts.program(state | {k: torch.tensor(float(v)) for k, v in numbers.items()})
    path = tmp_path / "ViT-B-32.pt"
    torch.jit.save(script, path)
    check_encoder(path, "CLIP", BOTH, expected(model), pictures(), TEXTS)


def test_openai_s_torchscript_in_half_precision(tmp_path: Path) -> None:
    model = tall()
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(p.half().float())
    state = {n: t.half() for n, t in layouts.openai(saved(model, tmp_path / "saved")).items()}
    torch.jit.save(layouts.program(state), tmp_path / "ViT-B-32.pt")
    check_encoder(tmp_path / "ViT-B-32.pt", "CLIP", BOTH, expected(model), pictures(), TEXTS)


OPEN = dict(
    embed_dim=24,
    vision_cfg=dict(image_size=32, layers=2, width=128, patch_size=8, mlp_ratio=0.75),
    text_cfg=dict(context_length=12, vocab_size=99, width=64, heads=1, layers=2),
)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
@pytest.mark.parametrize("beside", [False, True])
def test_open_clip_s_files(tmp_path: Path, act: str, name: str, beside: bool) -> None:
    """Alone in a folder, or beside a config.json of transformers' layout, as LAION publishes them."""
    model = tall(act)
    state = layouts.openai(saved(model, tmp_path))
    (tmp_path / "model.safetensors").unlink()
    if not beside:
        (tmp_path / "config.json").unlink()
    config = OPEN | ({"quick_gelu": True} if act == "quick_gelu" else {})
    (tmp_path / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=config, preprocess_cfg={})))
    save_file(state, tmp_path / name) if name.endswith("s") else torch.save(state, tmp_path / name)
    check_encoder(tmp_path, "CLIP", BOTH, expected(model), pictures(), TEXTS)
    check_encoder(tmp_path / name, "CLIP", BOTH, expected(model), pictures(), TEXTS)


def test_open_clip_without_its_config_cannot_tell_its_activation(tmp_path: Path) -> None:
    save_file(layouts.openai(saved(tall(), tmp_path / "saved")), tmp_path / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"open_clip_config\.json"):
        loaded(tmp_path, "CLIP")


def test_a_clip_with_a_resnet_is_told(tmp_path: Path) -> None:
    state = layouts.openai(saved(tall(), tmp_path / "saved"))
    rest = {n: t for n, t in state.items() if not n.startswith("visual.")} | {
        "visual.layer1.0.conv1.weight": torch.ones(2)
    }
    torch.jit.save(layouts.program(rest), tmp_path / "RN50.pt")
    with pytest.raises(CheckpointError, match="ResNet"):
        loaded(tmp_path / "RN50.pt", "CLIP")


def test_open_clip_s_other_towers_are_told_by_name(tmp_path: Path) -> None:
    config = OPEN | dict(vision_cfg=OPEN["vision_cfg"] | dict(attentional_pool=True))
    save_file(layouts.openai(saved(tall(), tmp_path / "saved")), tmp_path / "open_clip_model.safetensors")
    (tmp_path / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=config)))
    with pytest.raises(CheckpointError, match="attentional_pool"):
        loaded(tmp_path, "CLIP")


REFERENCES = Path(__file__).parents[2] / ".venv" / "references"  # open_clip, timm and torchvision, apart from the rest
PUBLISHED = {
    "clip": ("CLIP", BOTH),
    "clip-quick-scaled": ("CLIP", BOTH),
    "siglip": ("SigLIP", BOTH),
    "vit_base_patch16_clip_quickgelu_224": ("CLIP", ("embed",)),
    "vit_base_patch16_clip_224.laion2b": ("CLIP", ("embed",)),
    "vit_base_patch16_clip_224.laion2b_ft_in1k": ("CLIP", BOTH),
    "vit_base_patch16_siglip_224": ("SigLIP", ("embed",)),
    "vit_small_patch14_dinov2": ("DINOv2", ("embed",)),
    "vit_small_patch14_reg4_dinov2": ("DINOv2", ("embed",)),
    "vit_giant_patch14_reg4_dinov2": ("DINOv2", ("embed",)),
    "vit_small_patch16_224": ("ViT", BOTH),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Networks of open_clip and timm as they save them, and what they make of pixels and ids."""
    if not REFERENCES.is_dir():
        pytest.skip(f"open_clip and timm are not in {REFERENCES}")
    folder = tmp_path_factory.mktemp("published")
    script = Path(__file__).with_name("open_clip_reference.py")
    environment = os.environ | {"PYTHONPATH": str(REFERENCES)}
    subprocess.run([sys.executable, str(script), str(folder)], env=environment, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize("name", PUBLISHED)
def test_open_clip_s_and_timm_s_own_files(published: Path, name: str) -> None:
    told = load_file(published / name / "expected.st")
    pixels, ids = told.pop("pixels"), told.pop("ids", torch.empty(0)).tolist()
    if name.startswith("clip"):
        ids = [row[: row.index(98) + 1] for row in ids]
    check_encoder(published / name, *PUBLISHED[name], told, pixels, ids)


def test_published_sizes_fit_and_have_their_heads(published: Path) -> None:
    for name, told in json.loads((published / "published.json").read_text()).items():
        shapes = {n: tuple(shape) for n, shape in told["shapes"].items()}
        tensors = {n: TensorInfo(n, "F32", shape, published, 0, 4 * prod(shape)) for n, shape in shapes.items()}
        card = recognise(Header(published / name, "safetensors", tensors, {"model_cfg": told["config"]}))
        with torch.device("meta"):
            places(card, dict(models.build(card.config).named_parameters()))
        vision, text = card.config.vision.stack, card.config.text.stack
        assert [vision.n_heads, text.n_heads] == told["heads"] and vision.norm_eps == told["eps"], name


def test_open_clip_s_siglip_2_is_told_by_gemma_s_vocabulary(tmp_path: Path) -> None:
    text = dict(vocab_size=256000, width=64)
    (tmp_path / "open_clip_config.json").write_text(
        json.dumps(dict(model_cfg=dict(embed_dim=64, init_logit_bias=-10, vision_cfg={}, text_cfg=text)))
    )
    assert examine(tmp_path).kind.family == "SigLIP 2"


def test_a_text_tower_cannot_classify(tmp_path: Path) -> None:
    torch.manual_seed(0)
    T.CLIPTextModelWithProjection(clip().config.text_config).save_pretrained(tmp_path)
    with pytest.raises(UnsupportedTask, match=r"is a CLIP \(embed\); it cannot classify"):
        load(tmp_path)._require("classify")


ODD = ((), (0,), (7, 5), (2, 3, 4, 5, 6))


def test_odd_shapes_are_told(tmp_path: Path) -> None:
    """Whatever shape one tensor claims, reading ends well or with a sentence."""
    folders = {"clip": clip(), "siglip": siglip(), "dinov2": dino("Model", True, use_swiglu_ffn=True)}
    for name, model in folders.items():
        model.save_pretrained(tmp_path / name)
    save_file(layouts.facebook(load_file(tmp_path / "dinov2" / "model.safetensors")), tmp_path / "facebook.safetensors")
    (tmp_path / "open").mkdir()
    save_file(layouts.openai(saved(tall(), tmp_path / "tall")), tmp_path / "open" / "open_clip_model.safetensors")
    (tmp_path / "open" / "open_clip_config.json").write_text(json.dumps(dict(model_cfg=OPEN)))
    n_refused = 0
    for path in (*(tmp_path / name for name in folders), tmp_path / "facebook.safetensors", tmp_path / "open"):
        header = read_header(path)
        for name, info in header.tensors.items():
            for shape in ODD:
                odd = header._replace(tensors={**header.tensors, name: info._replace(shape=shape)})
                try:
                    card = recognise(odd)
                    with torch.device("meta"):
                        network = models.build(card.config)
                    places(card, dict(network.named_parameters()))
                except BrollyError as error:
                    assert str(path) in str(error) or "unknown" in str(error).lower()
                    n_refused += 1
    assert n_refused > 50
