"""A classifier on an encoder that has none: the network's config with one, and what transformers calls its parts."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from brolly.card import Recognised, TensorInfo
from brolly.checkpoint.names import rename
from brolly.configs import HeadConfig, ImageEncoderConfig, PoolConfig, TextEncoderConfig
from brolly.errors import CheckpointError

POOLER = {"dense": "pooler.dense", "out": "classifier"}
DENSE_OUT = {"dense": "classifier.dense", "out": "classifier.out_proj"}


class Layout(NamedTuple):
    """How transformers lays out a kind's classifier: its class, what stands before the body's names, and its layers."""

    architecture: str
    lead: str
    layers: Mapping[str, str]  # ours within `head` → theirs
    act: str = "tanh"
    norm: bool = False


LAYOUTS = {
    "bert": Layout("BertForSequenceClassification", "bert.", POOLER),
    "roberta": Layout("RobertaForSequenceClassification", "roberta.", DENSE_OUT),
    "xlm-roberta": Layout("XLMRobertaForSequenceClassification", "roberta.", DENSE_OUT),
    "camembert": Layout("CamembertForSequenceClassification", "roberta.", DENSE_OUT),
    "mpnet": Layout("MPNetForSequenceClassification", "mpnet.", DENSE_OUT),
    "distilbert": Layout(
        "DistilBertForSequenceClassification", "distilbert.", {"dense": "pre_classifier", "out": "classifier"}, "relu"
    ),
    "modernbert": Layout(
        "ModernBertForSequenceClassification", "model.",
        {"dense": "head.dense", "norm": "head.norm", "out": "classifier"}, "gelu", True,
    ),
    "vit": Layout("ViTForImageClassification", "vit.", {}),
    "dinov2": Layout("Dinov2ForImageClassification", "dinov2.", {}),
    "dinov2_with_registers": Layout(
        "Dinov2WithRegistersForImageClassification", "dinov2_with_registers.", {}
    ),
}  # fmt: skip


class Headed(NamedTuple):
    """A base with a classifier on it: what is computed, and its names there."""

    base: Recognised  # with the new config
    architecture: str
    lead: str  # before the body's names, where the base's file has none
    names: Mapping[str, str]  # the head's parameters by ours → transformers'
    modules: tuple[str, ...]  # PEFT's modules_to_save
    labels: tuple[str, ...]

    def theirs(self, name: str) -> str:
        """A body's tensor as the class with the classifier calls it."""
        return name if name.startswith(self.lead) else self.lead + name

    @property
    def config(self) -> dict[str, Any]:
        """What config.json says of it."""
        numbered = {str(i): label for i, label in enumerate(self.labels)}
        return {
            "architectures": [self.architecture], "id2label": numbered,
            "label2id": {label: int(i) for i, label in numbered.items()}, "problem_type": "single_label_classification",
        }  # fmt: skip


def with_head(base: Recognised, labels: Sequence[str]) -> Headed:
    """A classifier of these labels on an encoder of pictures or texts. Raises CheckpointError."""
    said, config = base.header.config, base.config
    kind = said.get("model_type")
    layout = LAYOUTS.get(kind) if isinstance(kind, str) else None
    if layout is None or not isinstance(config, (ImageEncoderConfig, TextEncoderConfig)):
        raise CheckpointError(
            f"{base.header.path} is a {base.family.name} in {base.header.format}'s layout ({kind!r:.40}), on which no "
            f"classifier is put here; expected one of {', '.join(LAYOUTS)} in Hugging Face's."
        )
    labels = tuple(labels)
    if isinstance(config, ImageEncoderConfig):
        names = {f"classifier.{part}": f"classifier.{part}" for part in ("weight", "bias")}
        found: Any = config._replace(labels=labels)
        return Headed(base._replace(config=found), layout.architecture, layout.lead, names, ("classifier",), labels)
    biased = not layout.norm or said.get("classifier_bias", False) is True
    head = HeadConfig(
        labels, said.get("classifier_pooling", "cls") if layout.norm else "cls", layout.act, biased, layout.norm,
        layout.norm and said.get("norm_bias", False) is True, sigmoid=False,
    )  # fmt: skip
    names = {}
    for ours, theirs in layout.layers.items():
        at = f"{layout.lead}{theirs}" if theirs.startswith("pooler") else theirs
        bias = {"dense": biased, "norm": head.norm_bias, "out": True}[ours]
        names |= {f"head.{ours}.{part}": f"{at}.{part}" for part in ("weight", "bias")[: 1 + bias]}
    modules = tuple(dict.fromkeys(theirs.partition(".")[0] for theirs in layout.layers.values()))
    found = config._replace(head=head, pool=PoolConfig())
    return Headed(base._replace(config=found), layout.architecture, layout.lead, names, modules, labels)


def begun(base: Recognised) -> dict[str, TensorInfo]:
    """What a base's file already has of such a head: BERT's pooler, what ModernBERT was pre-trained with."""
    tensors = base.header.tensors
    some = next(iter(tensors.values()))
    table = base.family.names(base.header._replace(tensors={**tensors, "classifier.weight": some}))
    found = {target: tensors[name] for name, (targets, _) in rename(tensors, table).items() for target in targets}
    return {name: info for name, info in found.items() if re.fullmatch(r"head\.(dense|norm)\.(weight|bias)", name)}
