"""Real checkpoints small enough for a test: a random Llama, and a GPT-2 that recites what it was built to say."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT = 160
START, END = "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TEXT = ["Once upon a time a fox met a hen under the old tree, and the hen said: good morning, fox!"] * 4


def tokenizer() -> Tokenizer:
    """Byte-level BPE: any text can be read, and a character beyond ASCII takes several tokens."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=320, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    backend.train_from_iterator(TEXT, trainer)
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in (START, END)])
    return backend


def write_tokenizer(folder: Path, *, template: str | None = CHATML) -> Tokenizer:
    """tokenizer.json and its settings; without a template it is a base model's."""
    folder.mkdir(parents=True, exist_ok=True)
    backend = tokenizer()
    backend.save(str(folder / "tokenizer.json"))
    settings = {"eos_token": END} | ({"chat_template": template} if template else {})
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    return backend


def write_llama(folder: Path, **changes: Any) -> Any:
    """A random Llama with its tokenizer; returns the transformers model that wrote it."""
    import transformers as T

    backend = write_tokenizer(folder)
    sizes = dict(
        vocab_size=backend.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT, initializer_range=0.2,
        bos_token_id=None, eos_token_id=backend.token_to_id(END),
    )  # fmt: skip
    torch.manual_seed(0)
    reference = T.LlamaForCausalLM(T.LlamaConfig(**(sizes | changes))).eval()
    reference.config.save_pretrained(folder)
    reference.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return reference


def write_reciter(folder: Path, says: str | Sequence[int], *, template: str | None = CHATML) -> list[int]:
    """A GPT-2 whose next token depends on the position alone: after n tokens it says token n of `says`, cyclically.

    No attention, no words: the position table is the identity, and the head's row of a token is hot where it is due.
    Returns the tokens of `says`.
    """
    from safetensors.torch import save_file

    backend = write_tokenizer(folder, template=template)
    ids = backend.encode(says).ids if isinstance(says, str) else list(says)
    size, vocab = CONTEXT, backend.get_vocab_size()
    head = torch.zeros(vocab, size)
    for position in range(size):
        head[ids[(position + 1) % len(ids)], position] = 1.0
    block = {
        "ln_1.weight": torch.ones(size), "ln_1.bias": torch.zeros(size),
        "ln_2.weight": torch.ones(size), "ln_2.bias": torch.zeros(size),
        "attn.c_attn.weight": torch.zeros(size, 3 * size), "attn.c_attn.bias": torch.zeros(3 * size),
        "attn.c_proj.weight": torch.zeros(size, size), "attn.c_proj.bias": torch.zeros(size),
        "mlp.c_fc.weight": torch.zeros(size, 4), "mlp.c_fc.bias": torch.zeros(4),
        "mlp.c_proj.weight": torch.zeros(4, size), "mlp.c_proj.bias": torch.zeros(size),
    }  # fmt: skip
    state = {f"h.0.{name}": tensor for name, tensor in block.items()} | {
        "wte.weight": torch.zeros(vocab, size), "wpe.weight": torch.eye(size), "lm_head.weight": head,
        "ln_f.weight": torch.ones(size), "ln_f.bias": torch.zeros(size),
    }  # fmt: skip
    save_file(state, folder / "model.safetensors")
    config = dict(
        model_type="gpt2", vocab_size=vocab, n_embd=size, n_layer=1, n_head=4, n_positions=size, n_inner=4,
        tie_word_embeddings=False, eos_token_id=backend.token_to_id(END),
    )  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return ids
