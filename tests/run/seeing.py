"""A CLIP that can be had without training: it knows red, green and blue, in pictures and in words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

COLOURS = {"red": (225, 30, 30), "green": (30, 200, 40), "blue": (30, 50, 225)}
DIM, SIDE, PATCH, CONTEXT = 8, 32, 16, 32
START, END = "<|startoftext|>", "<|endoftext|>"


def write_clip(folder: Path) -> Path:
    """A folder as the hub has CLIP's: attention averages, the rest hands on, and three channels are the space."""
    from safetensors.torch import save_file

    vocabulary = write_tokenizer(folder)
    eye = torch.zeros(DIM, 3, PATCH, PATCH)
    for channel in range(3):
        eye[channel, channel] = 1 / PATCH**2
    words = torch.zeros(len(vocabulary), DIM)
    for channel, colour in enumerate(COLOURS):
        words[vocabulary[colour], channel] = 1
    state = {
        "logit_scale": torch.tensor(3.0),
        "visual_projection.weight": torch.eye(3, DIM), "text_projection.weight": torch.eye(3, DIM),
        "vision_model.embeddings.class_embedding": torch.zeros(DIM),
        "vision_model.embeddings.patch_embedding.weight": eye,
        "vision_model.embeddings.position_embedding.weight": torch.zeros((SIDE // PATCH) ** 2 + 1, DIM),
        "text_model.embeddings.token_embedding.weight": words,
        "text_model.embeddings.position_embedding.weight": torch.zeros(CONTEXT, DIM),
    }  # fmt: skip
    norms = ["vision_model.pre_layrnorm", "vision_model.post_layernorm", "text_model.final_layer_norm"]
    for tower in ("vision_model", "text_model"):
        block = f"{tower}.encoder.layers.0"
        norms += [f"{block}.layer_norm1", f"{block}.layer_norm2"]
        for name in ("q_proj", "k_proj", "v_proj", "out_proj"):
            same = torch.zeros(DIM, DIM) if name in ("q_proj", "k_proj") else torch.eye(DIM)
            state |= {f"{block}.self_attn.{name}.weight": same, f"{block}.self_attn.{name}.bias": torch.zeros(DIM)}
        for name in ("fc1", "fc2"):
            state |= {f"{block}.mlp.{name}.weight": torch.zeros(DIM, DIM), f"{block}.mlp.{name}.bias": torch.zeros(DIM)}
    for name in norms:
        state |= {f"{name}.weight": torch.ones(DIM), f"{name}.bias": torch.zeros(DIM)}
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    tower = dict(hidden_size=DIM, intermediate_size=DIM, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu")
    text = dict(vocab_size=len(vocabulary), max_position_embeddings=CONTEXT, eos_token_id=vocabulary[END])
    config = dict(
        model_type="clip", projection_dim=3, text_config=tower | text,
        vision_config=tower | dict(image_size=SIDE, patch_size=PATCH),
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    seen = dict(image_processor_type="CLIPImageProcessor", size=SIDE, crop_size=SIDE)
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return folder


def write_tokenizer(folder: Path) -> dict[str, int]:
    """Lower-cased bytes with a few words merged: reads any text. Returns the ids of its tokens."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers

    backend = Tokenizer(models.BPE())
    backend.normalizer = normalizers.Lowercase()
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(" ", "removed"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=300, special_tokens=[START, END], show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )  # fmt: skip
    backend.train_from_iterator([f"a photo of {colour}." for colour in COLOURS] * 20, trainer)
    ends = [(token, backend.token_to_id(token)) for token in (START, END)]
    backend.post_processor = processors.TemplateProcessing(f"{START} $A {END}", special_tokens=ends)
    backend.save(str(folder / "tokenizer.json"))
    roles = dict(bos_token=START, eos_token=END, pad_token=END)
    (folder / "tokenizer_config.json").write_text(json.dumps(roles))
    return backend.get_vocab()


def photo(colour: str, width: int = 48, height: int = 36, seed: int = 0) -> Any:
    """A picture of mostly one colour."""
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(seed).normal(0, 12, (height, width, 3))
    return Image.fromarray(np.clip(np.array(COLOURS[colour]) + noise, 0, 255).astype(np.uint8))


def write_photos(folder: Path, count: int) -> list[Path]:
    """photo-000-red.jpg, photo-001-green.jpg … in a folder and one within it."""
    found = []
    for i in range(count):
        colour = list(COLOURS)[i % 3]
        path = folder / ("more" if i % 4 == 3 else "") / f"photo-{i:03}-{colour}.jpg"
        path.parent.mkdir(exist_ok=True, parents=True)
        photo(colour, 40 + i % 7, 30 + i % 11, i).save(path)
        found.append(path)
    return found
