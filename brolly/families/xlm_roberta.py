"""XLM-RoBERTa (Conneau et al. 2019), below BGE-M3, multilingual E5 and many rerankers: RoBERTa's network."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import bert, encoders, roberta


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("xlm-roberta",), bert.QUERY)


FAMILY = Family("XLM-RoBERTa", match, roberta.config, roberta.names, ("embed", "rerank", "classify"))
