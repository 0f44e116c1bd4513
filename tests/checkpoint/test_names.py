"""The rename machine: the first row that matches a whole name wins; a row without a target drops the tensor."""

from __future__ import annotations

from brolly.card import Rename
from brolly.checkpoint.names import rename, sources

TABLE = [
    Rename(r"rope\.freqs", None),
    Rename(r"layers\.(\d+)\.attention\.w([qk])\.weight", r"blocks.\1.\2.weight", "rope"),
    Rename(r"layers\.(\d+)\.(.*)", r"blocks.\1.\2"),
    Rename(r"layers\.0\.norm", "never: the row above is first"),
]


def test_rows_apply_in_order_to_whole_names() -> None:
    names = ["rope.freqs", "rope.freqs.more", "layers.3.attention.wq.weight", "layers.0.norm", "a.layers.0.norm"]
    assert rename(names, TABLE) == {
        "rope.freqs": ((), ""),
        "rope.freqs.more": (("rope.freqs.more",), ""),
        "layers.3.attention.wq.weight": (("blocks.3.q.weight",), "rope"),
        "layers.0.norm": (("blocks.0.norm",), ""),
        "a.layers.0.norm": (("a.layers.0.norm",), ""),
    }


def test_sources_is_the_way_back_without_what_was_dropped() -> None:
    assert sources(["rope.freqs", "layers.1.wo", "head"], TABLE) == {"blocks.1.wo": "layers.1.wo", "head": "head"}
    assert sources(["a", "b"], []) == {"a": "a", "b": "b"}


def test_a_joined_tensor_has_several_targets() -> None:
    table = [Rename(r"(h\.\d+)\.qkv", (r"\1.q", r"\1.k", r"\1.v"))]
    assert rename(["h.2.qkv"], table) == {"h.2.qkv": (("h.2.q", "h.2.k", "h.2.v"), "")}
    assert sources(["h.2.qkv"], table) == {"h.2.q": "h.2.qkv", "h.2.k": "h.2.qkv", "h.2.v": "h.2.qkv"}
