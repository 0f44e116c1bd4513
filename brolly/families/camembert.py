"""CamemBERT (Martin et al. 2019): RoBERTa's network for French."""

from __future__ import annotations

from brolly.card import Family, Header
from brolly.families import bert, encoders, roberta


def match(header: Header) -> bool:
    return encoders.is_hugging_face(header, ("camembert",), bert.QUERY)


FAMILY = Family("CamemBERT", match, roberta.config, roberta.names, ("embed", "rerank", "classify"))
