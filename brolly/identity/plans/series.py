"""Networks of time series and of actions."""

from __future__ import annotations

from brolly.identity.plans.counting import Given, Untold, attention, linear, mlp, norm

Parts = dict[str, int]


def timesfm(c: Given) -> Parts:
    """TimesFM 2.0: patches of a series in, patches of its future with their quantiles out."""
    name = c.architecture
    if name not in ("", "TimesFmModel", "TimesFmModelForPrediction"):
        raise Untold(name)
    dim, patch, hidden = c.n("hidden_size"), c.n("patch_length"), c.n("intermediate_size")
    inner, head = c.n("num_attention_heads") * c.n("head_dim"), c.n("head_dim")
    layer = attention(dim, inner) + head + mlp(dim, hidden) + norm(dim) + dim

    def residual(n_in: int, width: int, n_out: int) -> int:
        return mlp(n_in, width, n_out) + linear(n_in, n_out)

    decoder = residual(2 * patch, hidden, dim) + c.n("freq_size") * dim + c.n("num_hidden_layers") * layer
    parts = {"decoder": decoder}
    if name.endswith("ForPrediction"):
        out = c.n("horizon_length") * (1 + len(c.get("quantiles") or ()))
        parts["head"] = residual(dim, hidden, out)
    return parts


def decision_transformer(c: Given) -> Parts:
    if c.architecture not in ("", "DecisionTransformerModel"):
        raise Untold(c.architecture)
    dim, state, act = c.n("hidden_size"), c.n("state_dim"), c.n("act_dim")
    layer = attention(dim) + mlp(dim, c.n("n_inner", default=4 * dim)) + 2 * norm(dim)
    decoder = (c.n("vocab_size") + c.n("n_positions")) * dim + c.n("n_layer") * layer + norm(dim)
    embedding = c.n("max_ep_len") * dim + linear(1, dim) + linear(state, dim) + linear(act, dim) + norm(dim)
    head = linear(dim, state) + linear(dim, act) + linear(dim, 1)
    return {"decoder": decoder, "embedding": embedding, "head": head}
