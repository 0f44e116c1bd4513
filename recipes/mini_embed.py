"""mini-embed: `python recipes/mini_embed.py train CORPUS WORDNET OUT [MINUTES [SHARE]]`, then `… eval CORPUS WORDNET MODEL`.

Pairs of texts (mini_embed_pairs.py) find each other among a batch of one kind. Words begin where their neighbours put
them: as singular vectors of how often they stand together (Levy and Goldberg 2014). With SHARE it goes on from the weights in OUT
as if that share of the minutes were over.
"""

from __future__ import annotations

import random
import re
import sys
from collections import Counter, defaultdict
from collections.abc import Sequence
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from mini_embed_pairs import WORD, Pair, alike, event, pairs, said
from scipy.sparse import coo_array, csr_array
from small_training import Clock, go_on, initialise, make_quick, save
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from torch import Tensor

import brolly
from brolly.configs import StackConfig, TextEncoderConfig
from brolly.layers.transformer import Spans
from brolly.models import build

VOCAB, DIM, LAYERS, HEADS, POSITIONS = 8192, 192, 3, 3, 256
CUT, BATCH = 40, 256  # tokens of a text in training, pairs of a step
SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
WEIGHTS = {"definition": 5, "example": 2, "synonym": 1, "tale": 2.5, "sum": 0.6, "talk": 0.3, "book": 2, "event": 1}


def make_tokenizer(texts: Sequence[str]) -> Tokenizer:
    """BERT's: lower case, words cut into known pieces."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    teacher = trainers.WordPieceTrainer(vocab_size=VOCAB, special_tokens=list(SPECIAL), show_progress=False)
    tokenizer.train_from_iterator(texts, teacher)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return tokenizer


def neighbours(rows: Sequence[Sequence[int]], window: int = 5) -> Tensor:
    """A vector a token: singular vectors of its positive mutual information with what stands around it."""
    from sklearn.utils.extmath import randomized_svd

    ids = np.concatenate([np.array([*row, *[-1] * window]) for row in rows])
    counts = csr_array((VOCAB, VOCAB), dtype=np.float32)
    for step in range(1, window + 1):
        a, b = ids[:-step], ids[step:]
        real = (a >= 0) & (b >= 0)
        ones = np.ones(int(real.sum()), np.float32)
        counts = counts + csr_array(coo_array((ones, (a[real], b[real])), (VOCAB, VOCAB)))
    both = (counts + counts.T).tocoo()
    total, often = both.sum(), both.sum(0)
    context = often**0.75 / (often**0.75).sum()
    values = np.log(np.maximum(both.data, 1e-9) / (often[both.coords[0]] * context[both.coords[1]]) * 1.0)
    positive = csr_array(coo_array((np.maximum(values, 0), both.coords), (VOCAB, VOCAB)))
    u, s, _ = randomized_svd(positive, DIM, n_iter=2, random_state=1)
    found = u * np.sqrt(s)
    print(f"{total:.3g} neighbours", flush=True)
    return torch.from_numpy(found / (found.std() + 1e-9) * 0.05).float()


def config() -> TextEncoderConfig:
    blocks = StackConfig(DIM, LAYERS, HEADS, 4 * DIM, 1e-12, "gelu", post_norm=True)
    return TextEncoderConfig(blocks, VOCAB, POSITIONS, n_positions=POSITIONS, n_types=2)


def hugging_face(name: str) -> str:
    """A parameter's name there."""
    for ours, theirs in (
        ("embeddings.word.", "embeddings.word_embeddings."), ("embeddings.position.", "embeddings.position_embeddings."),
        ("embeddings.token_type.", "embeddings.token_type_embeddings."), ("embeddings.norm.", "embeddings.LayerNorm."),
        ("encoder.layers.", "encoder.layer."), ("layer_norm1", "attention.output.LayerNorm"),
        ("layer_norm2", "output.LayerNorm"), ("self_attn.q_proj", "attention.self.query"),
        ("self_attn.k_proj", "attention.self.key"), ("self_attn.v_proj", "attention.self.value"),
        ("self_attn.out_proj", "attention.output.dense"), ("mlp.fc1", "intermediate.dense"), ("mlp.fc2", "output.dense"),
    ):  # fmt: skip
        name = name.replace(ours, theirs)
    return name


def export(network: torch.nn.Module, tokenizer: Tokenizer, out: Path) -> None:
    """A folder that sentence-transformers reads too."""
    at = "sentence_transformers.models"
    tensors = {hugging_face(name): tensor for name, tensor in network.state_dict().items()}
    save(out, tensors, {
        "config.json": {
            "architectures": ["BertModel"], "model_type": "bert", "torch_dtype": "bfloat16", "vocab_size": VOCAB,
            "hidden_size": DIM, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS, "intermediate_size": 4 * DIM,
            "hidden_act": "gelu", "max_position_embeddings": POSITIONS, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
            "pad_token_id": 0, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
        },
        "modules.json": [
            {"idx": 0, "name": "0", "path": "", "type": f"{at}.Transformer"},
            {"idx": 1, "name": "1", "path": "1_Pooling", "type": f"{at}.Pooling"},
            {"idx": 2, "name": "2", "path": "2_Normalize", "type": f"{at}.Normalize"},
        ],
        "1_Pooling/config.json": {"word_embedding_dimension": DIM, "pooling_mode_cls_token": False,
                                  "pooling_mode_mean_tokens": True, "pooling_mode_max_tokens": False},
        "sentence_bert_config.json": {"max_seq_length": POSITIONS, "do_lower_case": False},
        "config_sentence_transformers.json": {"similarity_fn_name": "cosine"},
        "tokenizer_config.json": {
            "tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": POSITIONS, "unk_token": "[UNK]",
            "pad_token": "[PAD]", "cls_token": "[CLS]", "sep_token": "[SEP]", "mask_token": "[MASK]",
        },
    })  # fmt: skip
    tokenizer.save(str(out / "tokenizer.json"))


def train(corpus: Path, folder: Path, out: Path, minutes: float, share: float) -> None:
    """Each text finds its partner among those of the batch."""
    torch.manual_seed(1)
    make_quick()
    found, paragraphs = pairs(corpus, folder)
    rng, found = random.Random(1), [p for p in found if not p.held]
    tokenizer = make_tokenizer([t for p in found for t in (p.first, p.second)])
    network: Any = build(config())
    initialise(network, LAYERS)
    near = [f"{p.first} {p.second}" for p in found if p.kind != "book"] + rng.sample(paragraphs, 25_000)
    if share:
        go_on(network, out, hugging_face)
        rng.seed(f"after {share}")
    else:
        rows = [encoded.ids for encoded in tokenizer.encode_batch(near, add_special_tokens=False)]
        network.embeddings.word.weight.data = neighbours(rows)
    kinds: dict[str, list[Pair]] = defaultdict(list)
    for pair in found:
        kinds[pair.kind].append(pair)
    clock, mean = Clock(network, minutes, 1.5e-3, share), 0.0
    while clock.share < 1:
        kind = rng.choices(list(WEIGHTS), list(WEIGHTS.values()))[0]
        some = rng.sample(kinds[kind], BATCH)
        texts = [p.first for p in some] + [p.second for p in some]
        rows = [[*e.ids[: CUT - 1], 3] if len(e.ids) > CUT else e.ids for e in tokenizer.encode_batch(texts)]
        order = sorted(range(2 * BATCH), key=lambda i: len(rows[i]))
        ids = torch.tensor([t for i in order for t in rows[i]])
        with torch.autocast("cpu", torch.bfloat16):
            vectors = network.texts(ids, Spans([len(rows[i]) for i in order]))
        vectors = F.normalize(vectors.float(), dim=-1)[torch.tensor(order).argsort()]
        twice = torch.tensor([[a.first == b.first or a.second == b.second for b in some] for a in some])
        logits = 20 * vectors[:BATCH] @ vectors[BATCH:].t()
        logits = logits.masked_fill(twice & ~torch.eye(BATCH, dtype=torch.bool), -1e4)
        goal = torch.arange(BATCH)
        loss = (F.cross_entropy(logits, goal) + F.cross_entropy(logits.t(), goal)) / 2
        clock.step(loss)
        mean += 0.02 * (loss.item() - mean) if mean else loss.item()
        if clock.steps % 50 == 0:
            print(f"step {clock.steps} {clock.spent / 60:.1f} min loss {mean:.3f}", flush=True)
        if clock.steps % 200 == 0:
            export(network, tokenizer, out)
    export(network, tokenizer, out)


def bm25(queries: Sequence[str], texts: Sequence[str], k: float = 1.2, b: float = 0.75) -> np.ndarray:
    """The baseline: words in common, rare ones counting more (Robertson and Zaragoza 2009)."""
    bags = [Counter(WORD.findall(t.lower())) for t in texts]
    seen = Counter(word for bag in bags for word in bag)
    mean = sum(map(Counter.total, bags)) / len(bags)
    out = np.zeros((len(queries), len(texts)))
    for q, query in enumerate(queries):
        for word in set(WORD.findall(query.lower())) & seen.keys():
            rare = log(1 + (len(bags) - seen[word] + 0.5) / (seen[word] + 0.5))
            for t, bag in enumerate(bags):
                if bag[word]:
                    out[q, t] += rare * bag[word] * (k + 1) / (bag[word] + k * (1 - b + b * bag.total() / mean))
    return out


def evaluate(corpus: Path, folder: Path, model: str) -> None:
    """Held-out pairs found among the others of their kind, and graded likeness of events."""
    from scipy.stats import spearmanr

    embedder, rng = brolly.load(model), random.Random(4)
    every = [p for p in pairs(corpus, folder)[0] if p.held]

    def cosines(queries: Sequence[str], texts: Sequence[str]) -> np.ndarray:
        a, b = (np.asarray(embedder.embed(list(some)).vectors, np.float32) for some in (queries, texts))
        norm = np.linalg.norm
        return (a / norm(a, axis=1, keepdims=True)) @ (b / norm(b, axis=1, keepdims=True)).T

    for kind, ask in (("tale", "second"), ("definition", "first"), ("synonym", "second"), ("book", "second")):
        chosen = {getattr(p, ask): p for p in every if p.kind == kind and (kind != "tale" or p.first.endswith("?"))}
        other = "first" if ask == "second" else "second"
        some = list({getattr(p, other): p for p in chosen.values()}.values())[:500]
        texts, queries = [getattr(p, ask) for p in some], [getattr(p, other) for p in some]
        line = []
        for name, table in (("mini-embed", cosines(queries, texts)), ("BM25", bm25(queries, texts))):
            ties = np.random.default_rng(0).random(table.shape) * 1e-6
            ranks = (-(table + ties)).argsort(1).argsort(1)[np.arange(len(some)), np.arange(len(some))]
            line.append(f"{name} first {np.mean(ranks == 0):.3f}, in ten {np.mean(ranks < 10):.3f}")
        print(f"{kind}, among {len(some)}: {'; '.join(line)}")
    first, second, shared = [], [], []
    for _ in range(600):
        one = event(rng)
        n = rng.randint(0, 4)
        keep = rng.sample(range(4), n)
        other_event = tuple(one[i] if i in keep else part for i, part in enumerate(event(rng)))
        first.append(said(one, rng))
        second.append(said(other_event, rng))  # type: ignore[arg-type]
        shared.append(alike(one, other_event))
    ours = [float(cosines([a], [b])[0, 0]) for a, b in zip(first, second, strict=True)]
    bags = [
        (set(re.findall(r"\w+", a.lower())), set(re.findall(r"\w+", b.lower())))
        for a, b in zip(first, second, strict=True)
    ]
    overlap = [len(a & b) / len(a | b) for a, b in bags]
    print(
        f"events, rank correlation with shared parts: mini-embed {spearmanr(ours, shared)[0]:.3f}, words in common {spearmanr(overlap, shared)[0]:.3f}"
    )


if __name__ == "__main__":
    where = Path(sys.argv[2]), Path(sys.argv[3])
    if sys.argv[1] == "train":
        times = [float(word) for word in sys.argv[5:]]
        train(*where, Path(sys.argv[4]), *(times + [30.0, 0.0][len(times) :]))
    else:
        evaluate(*where, sys.argv[4])
