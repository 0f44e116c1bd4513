"""A Llama that reads texts and writes none: Qwen3-Embedding and Qwen3-Reranker (Zhang et al. 2025).

N tokens of all texts one behind the other, B texts, C dim, H heads, D head_dim, V vocabulary.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from brolly.configs import LlamaTextsConfig
from brolly.layers.linear import Linear
from brolly.layers.pool import Pool, pooled
from brolly.layers.transformer import Spans
from brolly.models.llama import Decoder


class LlamaTexts(nn.Module):
    """Embeds where its config has a pool; judges by the logits of the next word where it has none."""

    def __init__(self, config: LlamaTextsConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config.llama)
        if config.pool:
            self.pool = Pool(config.pool)
        elif not config.llama.tied_head:
            self.lm_head = Linear(config.llama.dim, config.llama.vocab_size, bias=False)

    def forward(self, ids: Tensor, spans: Spans) -> Tensor:
        """Hidden states after the last norm: (N,) → (N, C)."""
        return self.model(ids[None], spans.positions[None], InARow(spans, self.config.llama.windows))[0]

    def texts(self, ids: Tensor, spans: Spans) -> Tensor | tuple[Tensor, ...]:
        """Each text's vector, of whatever length: (N,) → (B, E)."""
        return self.pool(self(ids, spans), spans)

    def next_words(self, ids: Tensor, spans: Spans) -> Tensor:
        """Logits of what follows each text: (N,) → (B, V)."""
        head = self.model.embed_tokens if self.config.llama.tied_head else self.lm_head
        return F.linear(pooled(self(ids, spans), spans, ("lasttoken",)), head.weight)


class InARow:
    """Attention over texts one behind the other, each to itself; nothing is kept."""

    def __init__(self, spans: Spans, windows: tuple[int | None, ...]) -> None:
        self.spans, self.windows = spans, windows

    def attend(self, layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        longest, window = max(self.spans.lengths), self.windows[layer]
        assert window is None or window >= longest, "families refuse windows shorter than the context"
        rows = (t[0].transpose(0, 1) for t in (q, k, v))  # (N, H, D)
        return self.spans.attend(*rows, causal=True).transpose(0, 1)[None]
