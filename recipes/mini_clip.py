"""mini-clip: `python recipes/mini_clip.py train ICONS OUT [MINUTES [SHARE]]`, then `… eval ICONS MODEL`.

Pictures of 64 pixels and their captions are drawn as they are needed (mini_clip_scenes.py says what ICONS holds).
With SHARE it goes on from the weights in OUT as if that share of the minutes were over.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mini_clip_scenes import (
    COLOURS,
    SHAPES,
    SIDE,
    UNSEEN,
    Icon,
    article,
    draw,
    finish,
    ground,
    icons,
    plain,
    scene,
    tint,
)
from PIL import Image
from small_training import Clock, go_on, initialise, make_quick, save
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

import brolly
from brolly.configs import CLIPConfig, StackConfig, TextConfig, ViTConfig
from brolly.layers.transformer import Spans
from brolly.models import build

VOCAB, CONTEXT, BATCH = 2048, 32, 256
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SPLIT = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
EYE = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_attention_heads": 2}
MOUTH = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 3, "num_attention_heads": 2}


def make_tokenizer(captions: Sequence[str]) -> Tokenizer:
    """CLIP's kind: lower case, bytes, pairs merged within words, whose ends are marked."""
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    split = pre_tokenizers.Split(Regex(SPLIT), behavior="removed", invert=True)
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    normal = normalizers.Sequence([normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()])
    before = pre_tokenizers.Sequence([split, pre_tokenizers.ByteLevel(add_prefix_space=False)])
    learner.normalizer, learner.pre_tokenizer = normal, before
    learner.train_from_iterator(
        captions, trainers.BpeTrainer(vocab_size=VOCAB, end_of_word_suffix="</w>", show_progress=False)
    )
    merges = [tuple(pair) for pair in json.loads(learner.to_str())["model"]["merges"]]
    letters = [*sorted(alphabet), *(letter + "</w>" for letter in sorted(alphabet))]
    words = dict.fromkeys([*letters, *(a + b for a, b in merges)])
    kept = list(words)[: VOCAB - 2]
    known = set(kept)
    merges = [(a, b) for a, b in merges if a + b in known]
    names = [*kept, "<|startoftext|>", "<|endoftext|>"]
    whole = Tokenizer(
        models.BPE(
            {name: i for i, name in enumerate(names)}, merges, end_of_word_suffix="</w>", unk_token="<|endoftext|>",
            continuing_subword_prefix="", fuse_unk=False,
        )
    )  # fmt: skip
    whole.normalizer, whole.pre_tokenizer, whole.decoder = normal, before, decoders.ByteLevel()
    whole.add_special_tokens(names[-2:])
    whole.post_processor = processors.RobertaProcessing(
        sep=(names[-1], VOCAB - 1), cls_token=(names[-2], VOCAB - 2), trim_offsets=False, add_prefix_space=False
    )
    return whole


def config() -> CLIPConfig:
    eye, mouth = (
        StackConfig(t["hidden_size"], t["num_hidden_layers"], t["num_attention_heads"], t["intermediate_size"], 1e-5, "quick_gelu",
                    causal=causal)
        for t, causal in ((EYE, False), (MOUTH, True))
    )  # fmt: skip
    return CLIPConfig(
        embed_dim=128,
        vision=ViTConfig(eye, image_size=SIDE, patch_size=8, pre_norm=True, patch_bias=False),
        text=TextConfig(mouth, VOCAB, CONTEXT, eos_id=VOCAB - 1),
    )


def export(network: torch.nn.Module, tokenizer: Tokenizer, out: Path) -> None:
    """A folder that transformers reads too."""
    ends = {"bos_token_id": VOCAB - 2, "eos_token_id": VOCAB - 1, "pad_token_id": VOCAB - 1}
    save(out, network.state_dict(), {
        "config.json": {
            "architectures": ["CLIPModel"], "model_type": "clip", "projection_dim": 128, "torch_dtype": "bfloat16",
            "logit_scale_init_value": 2.6592,
            "text_config": {"model_type": "clip_text_model", "vocab_size": VOCAB, "max_position_embeddings": CONTEXT,
                            "hidden_act": "quick_gelu", "projection_dim": 128, **MOUTH, **ends},
            "vision_config": {"model_type": "clip_vision_model", "image_size": SIDE, "patch_size": 8,
                              "hidden_act": "quick_gelu", "projection_dim": 128, **EYE},
        },
        "preprocessor_config.json": {
            "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_resize": True, "do_center_crop": True,
            "do_rescale": True, "do_normalize": True, "size": {"shortest_edge": SIDE}, "resample": 3,
            "crop_size": {"height": SIDE, "width": SIDE}, "rescale_factor": 1 / 255, "image_mean": MEAN, "image_std": STD,
        },
        "tokenizer_config.json": {
            "tokenizer_class": "CLIPTokenizer", "model_max_length": CONTEXT, "bos_token": "<|startoftext|>",
            "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>", "unk_token": "<|endoftext|>", "do_lower_case": True,
        },
        "special_tokens_map.json": {"bos_token": "<|startoftext|>", "eos_token": "<|endoftext|>", "pad_token": "<|endoftext|>",
                                    "unk_token": "<|endoftext|>"},
    })  # fmt: skip
    tokenizer.save(str(out / "tokenizer.json"))


def pixels(images: Sequence[Image.Image]) -> Tensor:
    """(B, 3, H, W), normalised as CLIP's."""
    x = torch.from_numpy(np.stack([np.asarray(image) for image in images])).float() / 255
    return ((x - torch.tensor(MEAN)) / torch.tensor(STD)).permute(0, 3, 1, 2)


def look(network: Any, images: Tensor, n_patches: int) -> Tensor:
    """The pictures' vectors from some of their 64 patches: twice as many pictures in the same time (Li et al. 2023)."""
    eye = network.vision_model
    rows = eye.embeddings.rows(images)  # (B, 65, C)
    kept = torch.rand(len(rows), 64).argsort(1)[:, :n_patches, None] + 1
    seen = torch.cat([rows[:, :1], rows.gather(1, kept.expand(-1, -1, rows.shape[-1]))], 1)
    x = eye.encoder(eye.pre_layrnorm(seen.flatten(0, 1)), Spans([n_patches + 1] * len(rows)))
    return network.visual_projection(eye.post_layernorm(x[:: n_patches + 1]))


def train(folder: Path, out: Path, minutes: float, share: float) -> None:
    """Contrastive: each picture finds its caption among the batch's, and each caption its picture (Radford et al. 2021)."""
    torch.manual_seed(1)
    make_quick()
    known, rng = icons(folder), random.Random(1)
    tokenizer = make_tokenizer([scene(rng, known)[1] for _ in range(6000)])
    network = build(config())
    initialise(network, 6)
    network.logit_scale.data.fill_(2.6592)
    for name, parameter in network.named_parameters():
        if name.endswith("class_embedding"):
            torch.nn.init.normal_(parameter, 0, 0.02)
    if share:
        go_on(network, out)
        tokenizer = Tokenizer.from_file(str(out / "tokenizer.json"))
        rng.seed(f"after {share}")
    clock, mean = Clock(network, minutes, 2e-3, share), 0.0
    while clock.share < 1:
        kind = "shape" if rng.random() < 0.4 else ""  # among shapes alone, their colours do not give them away
        pairs = [scene(rng, known, kind) for _ in range(BATCH)]
        rows = [encoded.ids[:CONTEXT] for encoded in tokenizer.encode_batch([caption for _, caption in pairs])]
        same = torch.tensor([[a == b for b in rows] for a in rows])
        order = sorted(range(BATCH), key=lambda i: len(rows[i]))  # equal lengths side by side
        ids = torch.tensor([t for i in order for t in rows[i]])
        with torch.autocast("cpu", torch.bfloat16):
            image = look(network, pixels([pairs[i][0] for i in order]), 32 if clock.share < 0.7 else 64)
            text = network.texts(ids, Spans([len(rows[i]) for i in order]))
        same = same[order][:, order] & ~torch.eye(BATCH, dtype=torch.bool)
        logits = network.logits(image.float(), text.float()).masked_fill(
            same, -1e4
        )  # twice the same caption is no mistake
        target = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.t(), target)) / 2
        clock.step(loss)
        network.logit_scale.data.clamp_(max=4.6052)
        mean += 0.05 * (loss.item() - mean) if mean else loss.item()
        if clock.steps % 20 == 0:
            print(
                f"step {clock.steps} {clock.spent / 60:.1f} min loss {mean:.3f} scale {network.logit_scale.exp():.1f}",
                flush=True,
            )
        if clock.steps % 200 == 0:
            export(network, tokenizer, out)
    export(network, tokenizer, out)


def one_shape(colour: str, shape: str, rng: random.Random) -> Image.Image:
    """A single shape on another colour."""
    image = ground(rng, rng.choice([c for c in COLOURS if c != colour]))
    radius = rng.uniform(12, 24)
    draw(
        image,
        shape,
        tint(colour, rng),
        (32 + rng.uniform(-6, 6), 32 + rng.uniform(-6, 6)),
        radius,
        rng.uniform(-0.25, 0.25),
    )
    return finish(image, rng)


def histogram(image: Image.Image) -> np.ndarray:
    """The baseline's vector: how often each of 64 colours occurs."""
    coarse = (np.asarray(image.convert("RGB")) // 64).reshape(-1, 3) @ np.array([16, 4, 1])
    return np.sqrt(np.bincount(coarse, minlength=64) / len(coarse))


def evaluate(folder: Path, model: str) -> None:
    """Held-out pictures: pairs of colour and shape never drawn, Twemoji never shown, and retrieval among new scenes."""
    clip, known, rng = brolly.load(model), icons(folder), random.Random(12345)

    def vectors(items: Sequence[object]) -> np.ndarray:
        found = np.asarray(clip.embed(items).vectors, np.float32)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    def accuracy(images: Sequence[Image.Image], captions: Sequence[str], answers: Sequence[int], top: int = 1) -> float:
        ranks = np.argsort(-(vectors(images) @ vectors(captions).T), axis=1)[:, :top]
        return float(np.mean([a in row for a, row in zip(answers, ranks, strict=True)]))

    every = [(c, s) for c in COLOURS for s in SHAPES]
    labels = [article(f"{c} {s}") for c, s in every]
    for name, chosen in (
        ("unseen", [p for p in every if p in UNSEEN]),
        ("seen", [p for p in every if p not in UNSEEN]),
    ):
        drawn = [(one_shape(*one, rng), every.index(one)) for one in (rng.choice(chosen) for _ in range(300))]
        found = accuracy([image for image, _ in drawn], labels, [a for _, a in drawn])
        print(f"one shape, {name} pair of colour and shape, among {len(every)}: {found:.3f}")
    held: list[Icon] = [icon for icon in known if icon.unseen]
    for name, some in (("held-out", held), ("seen", [icon for icon in known if not icon.unseen][: len(held)])):
        images = [plain(icon, "twitter") for icon in some]
        everyone = [icon.name for icon in known]
        answers = [everyone.index(icon.name) for icon in some]
        top1, top5 = (accuracy(images, everyone, answers, k) for k in (1, 5))
        ours = np.stack([histogram(plain(icon, "google")) for icon in known])
        nearest = np.argmax(np.stack([histogram(image) for image in images]) @ ours.T, axis=1)
        base = np.mean([known[n].name == icon.name for n, icon in zip(nearest, some, strict=True)])
        print(
            f"{name} Twemoji among {len(known)} names: {top1:.3f} (first five {top5:.3f}); colour histograms {base:.3f}"
        )
    fresh: dict[str, Image.Image] = {}
    while len(fresh) < 500:
        image, caption = scene(rng, known)
        fresh.setdefault(caption, image)
    likeness = vectors(list(fresh.values())) @ vectors(list(fresh)).T
    for way, table in (("caption", likeness), ("picture", likeness.T)):
        print(f"the {way} first among 500 new scenes: {np.mean(np.argmax(table, axis=1) == np.arange(500)):.3f}")


if __name__ == "__main__":
    if sys.argv[1] == "train":
        times = [float(word) for word in sys.argv[4:]]
        train(Path(sys.argv[2]), Path(sys.argv[3]), *(times + [30.0, 0.0][len(times) :]))
    else:
        evaluate(Path(sys.argv[2]), sys.argv[3])
