"""The language model that clients are tried with: `python -m tests.clients.checkpoint FOLDER` writes it.

A random Llama with a context of 32,768 and a template that knows tools (as Hermes and Qwen write them). It understands
nothing. Behind one token in eight it wants to end what it writes (an answer, or a string where that is not allowed), so
that answers and arguments are short, greedy ones too.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch
import transformers as T
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

CONTEXT = 32_768
SPECIAL = ("<|im_start|>", "<|im_end|>", "<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>")
ALWAYS = {"}": 1.0, "]": 1.0, "Ġ": -3.0, "Ċ": -3.0, "ĉ": -3.0}  # how much more a token is wanted
LAST = {"<|im_end|>": 9.0, '"': 8.0, "}": 4.0, "]": 4.0}  # and behind one in eight, digits and calls
TEMPLATE = """\
{%- macro text(content) -%}
{%- if content is string -%}{{ content }}{%- else -%}{%- for part in content or [] -%}{{ part.text }}{%- endfor -%}\
{%- endif -%}
{%- endmacro -%}
{%- if tools -%}
<|im_start|>system
{% if messages[0].role == 'system' %}{{ text(messages[0].content) }}

{% endif -%}
You may call these functions:
<tools>
{% for tool in tools %}{{ tool | tojson }}
{% endfor -%}
</tools>
For each call write an object with its name and arguments between these marks:
<tool_call>
{"name": NAME, "arguments": OBJECT}
</tool_call><|im_end|>
{% endif -%}
{%- for m in messages -%}
{%- if m.role == 'tool' -%}
<|im_start|>user
<tool_response>
{{ text(m.content) }}
</tool_response><|im_end|>
{% elif m.role == 'system' and tools and loop.first -%}
{%- else -%}
<|im_start|>{{ m.role }}
{{ text(m.content) }}
{%- for call in m.tool_calls or [] %}
<tool_call>
{"name": {{ call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson }}}
</tool_call>
{%- endfor %}<|im_end|>
{% endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""


def tokenizer(texts: list[str]) -> Tokenizer:
    """Byte-level BPE of 2,048 tokens, trained on the texts."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        texts, trainers.BpeTrainer(vocab_size=2048 - len(SPECIAL), show_progress=False, initial_alphabet=alphabet)
    )
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in SPECIAL[:2]])
    backend.add_tokens([AddedToken(text, special=False, normalized=False) for text in SPECIAL[2:]])
    return backend


def network(backend: Tokenizer) -> Any:
    """A random Llama. Two channels pass from embedding to head: a constant, and whether a token is a last one."""
    end = backend.token_to_id("<|im_end|>")
    config = T.LlamaConfig(
        vocab_size=backend.get_vocab_size(), hidden_size=64, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=CONTEXT, initializer_range=0.1,
        bos_token_id=None, eos_token_id=end, tie_word_embeddings=False,
    )  # fmt: skip
    torch.manual_seed(0)
    model = T.LlamaForCausalLM(config).eval()
    last = torch.rand(backend.get_vocab_size()) < 1 / 8
    for token, text in enumerate(map(backend.id_to_token, range(len(last)))):
        if text.isdecimal() or text in (*SPECIAL, "Ċ", '"'):
            last[token] = text.isdecimal() or text == "</tool_call>"
    with torch.no_grad():
        model.model.embed_tokens.weight.normal_()
        model.model.embed_tokens.weight[:, 0] = 1.0
        model.model.embed_tokens.weight[:, 1] = last.float()
        for layer in model.model.layers:
            for matrix in (layer.self_attn.o_proj, layer.mlp.down_proj):
                matrix.weight[:2] = 0.0
        for channel, wanted in enumerate((ALWAYS, LAST)):
            model.lm_head.weight[:, channel] = 0.0
            for text, bias in wanted.items():
                model.lm_head.weight[backend.token_to_id(text), channel] = bias
    return model


def write(folder: Path) -> None:
    """The whole checkpoint, as a repository of the hub has it."""
    docs = sorted((Path(__file__).resolve().parents[2] / "docs").glob("*.md"))
    backend = tokenizer([path.read_text() for path in docs])
    folder.mkdir(parents=True, exist_ok=True)
    network(backend).save_pretrained(folder)
    backend.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<|im_end|>",
        "model_max_length": CONTEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": TEMPLATE,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))


if __name__ == "__main__":
    write(Path(sys.argv[1]))
