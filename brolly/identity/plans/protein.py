"""Networks of proteins: ESM-2, and ESMFold on top of it."""

from __future__ import annotations

from typing import Any

from brolly.identity.plans.counting import Given, Untold, block, linear, mlp, norm

Parts = dict[str, int]
# ESMFold as published (Lin et al. 2023, esmfold_v1), where a config leaves a number out.
TRUNK = {"num_blocks": 48, "sequence_state_dim": 1024, "pairwise_state_dim": 128, "sequence_head_width": 32,
         "pairwise_head_width": 32, "position_bins": 32}  # fmt: skip
STRUCTURE = {"sequence_dim": 384, "pairwise_dim": 128, "ipa_dim": 16, "resnet_dim": 128, "num_heads_ipa": 12,
             "num_qk_points": 4, "num_v_points": 8, "num_resnet_blocks": 2, "num_transition_layers": 1,
             "num_angles": 7}  # fmt: skip
AMINO_ACIDS, LDDT_BINS, ATOMS, BINS = 23, 50, 37, 64


def esm(c: Given) -> Parts:
    """ESM-2 with its head of contacts; its table of positions goes unused where they are rotary, and is not counted."""
    name = c.architecture
    if name == "EsmForProteinFolding" or c.config.get("is_folding_model"):
        return esmfold(c)
    if name not in ("", "EsmModel", "EsmForMaskedLM", "EsmForSequenceClassification", "EsmForTokenClassification"):
        raise Untold(name)
    dim, vocab = c.n("hidden_size"), c.n("vocab_size")
    parts = _esm(c)
    contacts = linear(c.n("num_hidden_layers") * c.n("num_attention_heads"), 1)
    if name.endswith("ForMaskedLM"):
        parts["head"] = contacts + linear(dim, dim) + norm(dim) + vocab + (0 if c.tied else vocab * dim)
    elif name.endswith("ForSequenceClassification"):
        parts["head"] = contacts + linear(dim, dim) + linear(dim, c.n_labels)
    elif name.endswith("ForTokenClassification"):
        parts["head"] = contacts + linear(dim, c.n_labels)
    else:
        parts["head"] = contacts + linear(dim, dim)
    return parts


def _esm(c: Given) -> Parts:
    dim, n = c.n("hidden_size"), c.n("num_hidden_layers")
    rotary = c.word("position_embedding_type", "absolute") == "rotary"
    rows = c.n("vocab_size") + (0 if rotary else c.n("max_position_embeddings"))
    embedding = rows * dim + (norm(dim) if c.on("emb_layer_norm_before", False) else 0)
    return {"embedding": embedding, "encoder": n * block(dim, c.n("intermediate_size")) + norm(dim)}


def esmfold(c: Given) -> Parts:
    said: Any = c.config.get("esmfold_config")
    said = said if isinstance(said, dict) else {}
    inner = said.get("trunk")
    inner = inner if isinstance(inner, dict) else {}
    last = inner.get("structure_module")
    t, s = Given(inner, TRUNK), Given(last if isinstance(last, dict) else {}, STRUCTURE)
    top = Given(said, {"lddt_head_hid_dim": 128})
    if top.on("use_esm_attn_map", False) or top.on("embed_aa", True) is False:
        raise Untold("esmfold_config")
    dim, n = c.n("hidden_size"), c.n("num_hidden_layers")
    wide, pair = t.n("sequence_state_dim"), t.n("pairwise_state_dim")
    contacts = linear(n * c.n("num_attention_heads"), 1)
    joint = n + 1 + norm(dim) + mlp(dim, wide, wide) + AMINO_ACIDS * wide
    trunk = 2 * (t.n("position_bins") + 1) * pair + t.n("num_blocks") * _fold_block(t, wide, pair)
    trunk += norm(wide) + norm(pair) + 15 * pair
    narrow, low = s.n("sequence_dim"), s.n("pairwise_dim")
    trunk += linear(wide, narrow) + linear(pair, low)
    hidden = top.n("lddt_head_hid_dim")
    heads = 2 * linear(pair, BINS) + linear(wide, AMINO_ACIDS)
    heads += norm(narrow) + linear(narrow, hidden) + linear(hidden, hidden) + linear(hidden, ATOMS * LDDT_BINS)
    encoder = _esm(c)
    return {
        "embedding": encoder["embedding"],
        "encoder": encoder["encoder"] + contacts,
        "trunk": joint + trunk,
        "structure": _structure(s, narrow, low),
        "head": heads,
    }


def _fold_block(t: Given, wide: int, pair: int) -> int:
    """One of the trunk's 48: the sequence looks at itself and at the pairs, the pairs look along triangles."""
    heads = pair // max(t.n("pairwise_head_width"), 1)
    to_pair = norm(wide) + linear(wide, pair) + linear(pair, pair)  # half of it each for product and difference
    to_sequence = norm(pair) + linear(pair, wide // max(t.n("sequence_head_width"), 1), False)
    look = linear(wide, 3 * wide, False) + 2 * linear(wide, wide)
    multiply = 6 * linear(pair, pair) + 2 * norm(pair)
    triangle = norm(pair) + linear(pair, heads, False) + 3 * linear(pair, pair, False) + 2 * linear(pair, pair)
    forward = norm(wide) + mlp(wide, 4 * wide) + norm(pair) + mlp(pair, 4 * pair)
    return norm(wide) + to_pair + to_sequence + look + 2 * multiply + 2 * triangle + forward


def _structure(s: Given, dim: int, pair: int) -> int:
    """Invariant point attention (AlphaFold 2), transitions, the frames' updates, the angles."""
    heads, inner = s.n("num_heads_ipa"), s.n("ipa_dim")
    keys, values = s.n("num_qk_points"), s.n("num_v_points")
    total = norm(dim) + norm(pair) + linear(dim, dim) + heads + 3 * linear(dim, heads * inner)
    total += linear(dim, 3 * heads * keys) + linear(dim, 3 * heads * (keys + values))
    total += linear(pair, heads) + linear(heads * (pair + inner + 4 * values), dim)
    total += norm(dim) + s.n("num_transition_layers") * 3 * linear(dim, dim) + norm(dim) + linear(dim, 6)
    width = s.n("resnet_dim")
    total += 2 * linear(dim, width) + s.n("num_resnet_blocks") * 2 * linear(width, width)
    return total + linear(width, 2 * s.n("num_angles"))
