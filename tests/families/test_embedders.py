"""Encoders of texts in every layout, against transformers and sentence-transformers on the same weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from brolly import load
from brolly.cli import main
from brolly.configs import PoolConfig
from brolly.errors import CheckpointError, ContextTooLong, OptionError, UnsupportedTask
from brolly.identity import examine
from brolly.layers.transformer import Spans
from brolly.media.text import load_tokenizer
from brolly.tasks.rerank import BEFORE, BEHIND
from tests.check_family import loaded
from tests.families.test_language import noisy
from tests.families.text_folders import TEXTS as TEXT_SAMPLES
from tests.families.text_folders import bert, copied, gguf_file, modules, qwen3, vocabulary, write

T = pytest.importorskip("transformers")
S = pytest.importorskip("sentence_transformers")
M = pytest.importorskip("sentence_transformers.base.modules")
Pooling = pytest.importorskip("sentence_transformers.sentence_transformer.modules").Pooling

SMALL = dict(vocab_size=99, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4)
LONG = SMALL | dict(max_position_embeddings=40)
TEXTS = [[5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21], [9, 2], [11, 12, 13, 14], [3, 4, 3, 4]]
NETWORKS = {
    "BERT": ("Bert", LONG),
    "RoBERTa": ("Roberta", LONG | dict(pad_token_id=1)),
    "XLM-RoBERTa": ("XLMRoberta", LONG | dict(type_vocab_size=1)),
    "CamemBERT": ("Camembert", LONG | dict(type_vocab_size=1)),
    "MPNet": ("MPNet", LONG),
    "DistilBERT": (
        "DistilBert", dict(vocab_size=99, dim=32, hidden_dim=48, n_layers=3, n_heads=4, max_position_embeddings=40)
    ),
    "ModernBERT": ("ModernBert", LONG | dict(local_attention=8, pad_token_id=0)),
    "Nomic Embed": ("NomicBert", LONG),
    "GTE": ("Gte", LONG),
}  # fmt: skip


def reference(family: str, kind: str = "Model", **changes):
    """transformers' network of a family, every parameter moved."""
    name, config = NETWORKS[family]
    torch.manual_seed(0)
    config = getattr(T, f"{name}Config")(**(config | changes))
    return noisy(getattr(T, f"{name}{kind}")(config))


def row(texts: list[list[int]]) -> tuple[torch.Tensor, Spans]:
    return torch.tensor([i for text in texts for i in text]), Spans([len(text) for text in texts])


def hidden(model, texts: list[list[int]] = TEXTS) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([model(torch.tensor([text])).last_hidden_state[0] for text in texts])


def check_texts(folder: Path, family: str, expected: torch.Tensor):
    """The folder is one of this family, says that it embeds, and its hidden states are these. Returns the network."""
    network = loaded(folder, family)[1]
    told = examine(folder)
    assert (told.kind.family, told.verbs) == (family, ("embed",)), (told.kind, told.verbs_why)
    with torch.inference_mode():
        assert (network(*row(TEXTS)) - expected).abs().max() < 1e-4
    return network


def rewritten(folder: Path, change) -> None:
    """The folder's tensors under other names: `change(name)` gives the new one, or None to leave it out."""
    tensors = load_file(folder / "model.safetensors")
    renamed = {new: tensor for name, tensor in tensors.items() if (new := change(name))}
    save_file(renamed, folder / "model.safetensors", {"format": "pt"})


@pytest.mark.parametrize("family", NETWORKS)
def test_network_equals_transformers(tmp_path: Path, family: str) -> None:
    model = reference(family)
    model.save_pretrained(tmp_path)
    check_texts(tmp_path, family, hidden(model))


@pytest.mark.parametrize("family", NETWORKS)
def test_masked_language_model_embeds_without_its_head(tmp_path: Path, family: str) -> None:
    model = reference(family, "ForMaskedLM")
    model.save_pretrained(tmp_path)
    check_texts(tmp_path, family, hidden(model.base_model))


@pytest.mark.parametrize("family", NETWORKS)
def test_judge_of_pairs_equals_transformers(tmp_path: Path, family: str) -> None:
    model = reference(family, "ForSequenceClassification", num_labels=1)
    model.save_pretrained(tmp_path)
    network = loaded(tmp_path, family)[1]
    assert examine(tmp_path).verbs == ("rerank",)
    types = [[0] * 3 + [1] * (len(text) - 3) if len(text) > 3 else [0] * len(text) for text in TEXTS]
    named = network.config.n_types > 1
    with torch.inference_mode():
        more = [dict(token_type_ids=torch.tensor([t])) if named else {} for t in types]
        expected = torch.cat([model(torch.tensor([i]), **m).logits for i, m in zip(TEXTS, more, strict=True)])
        ids, spans = row(TEXTS)
        found = network.scores(ids, spans, torch.tensor([t for text in types for t in text]) if named else None)
    assert (found - expected).abs().max() < 1e-4


# Layouts --------------------------------------------------------------------------------------------------------------


def test_tensorflows_names_in_a_torch_file_are_read(tmp_path: Path) -> None:
    model = reference("BERT", "ForMaskedLM")
    model.save_pretrained(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
    for new, name in old.items():
        tensors = {key.replace(new, name): tensor for key, tensor in tensors.items()}
    (tmp_path / "model.safetensors").unlink()
    torch.save({**tensors, "bert.embeddings.position_ids": torch.arange(40)[None]}, tmp_path / "pytorch_model.bin")
    check_texts(tmp_path, "BERT", hidden(model.bert))


def test_nomics_own_config_is_read(tmp_path: Path) -> None:
    model = reference("Nomic Embed", rope_parameters={"rope_type": "default", "rope_theta": 500.0})
    model.save_pretrained(tmp_path)
    write(
        tmp_path / "config.json",
        dict(model_type="nomic_bert", n_embd=32, n_head=4, n_layer=3, n_inner=48, n_positions=64, vocab_size=99,
             rotary_emb_base=500.0, rotary_emb_fraction=1.0, rotary_scaling_factor=None, prenorm=False,
             activation_function="swiglu", layer_norm_epsilon=1e-12),
    )  # fmt: skip
    assert check_texts(tmp_path, "Nomic Embed", hidden(model)).config.context == 64


def test_alibabas_own_config_is_read(tmp_path: Path) -> None:
    factor = 4.0 ** (2 / 8)  # of heads of eight channels
    turns = {"rope_type": "linear", "factor": factor, "rope_theta": 2000.0 * 4}
    model = reference("GTE", rope_parameters=turns, type_vocab_size=0)
    model.save_pretrained(tmp_path)
    rewritten(tmp_path, lambda name: f"new.{name}")
    said = json.loads((tmp_path / "config.json").read_text())
    said |= dict(model_type="new", rope_theta=2000.0, rope_scaling={"type": "ntk", "factor": 4.0})
    write(tmp_path / "config.json", {key: value for key, value in said.items() if key != "rope_parameters"})
    check_texts(tmp_path, "GTE", hidden(model))


def test_the_first_modernberts_config_is_read(tmp_path: Path) -> None:
    thetas = {"full_attention": 3000.0, "sliding_attention": 700.0}
    model = reference(
        "ModernBERT", num_hidden_layers=4, global_attn_every_n_layers=2,
        rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
    )  # fmt: skip
    model.save_pretrained(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())
    said |= dict(global_attn_every_n_layers=2, global_rope_theta=3000.0, local_rope_theta=700.0)
    new = ("layer_types", "rope_parameters")
    write(tmp_path / "config.json", {key: value for key, value in said.items() if key not in new})
    check_texts(tmp_path, "ModernBERT", hidden(model))


@pytest.mark.parametrize(
    ("family", "arch", "pooling", "theta"),
    [("BERT", "bert", "cls", None), ("BERT", "bert", "mean", None), ("Nomic Embed", "nomic-bert", "mean", 1000.0)],
)
def test_gguf_of_an_encoder(tmp_path: Path, family: str, arch: str, pooling: str, theta: float | None) -> None:
    model = reference(family)
    model.save_pretrained(tmp_path)
    tensors, modes = load_file(tmp_path / "model.safetensors"), ("", "mean", "cls", "lasttoken")
    (tmp_path / "only").mkdir()
    path = gguf_file(tmp_path / "only" / "model.gguf", tensors, arch, modes.index(pooling), theta)
    assert check_texts(path, family, hidden(model)).config.pool == PoolConfig((pooling,))
    ids = load_tokenizer(vocabulary(tmp_path / "words")).encode_many(TEXT_SAMPLES[:3])
    assert load(path).tokenizer.encode_many(TEXT_SAMPLES[:3]) == ids


@pytest.mark.parametrize(
    "changes",
    [{"num_attention_heads": 5}, {"hidden_act": "mish"}, {"layer_norm_eps": "small"}, {"num_attention_heads": None}],
)
def test_a_config_that_does_not_fit_is_told(tmp_path: Path, changes: dict) -> None:
    bert(tmp_path)
    write(tmp_path / "config.json", json.loads((tmp_path / "config.json").read_text()) | changes)
    with pytest.raises(CheckpointError, match=r"heads|mish|small"):
        load(tmp_path)


# sentence-transformers ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT with its tokenizer, and nothing that says how to pool."""
    return bert(tmp_path_factory.mktemp("bert"))


def close(theirs: Any, mine: Any) -> None:
    assert np.shape(theirs) == np.shape(mine)
    assert np.abs(np.asarray(theirs) - np.asarray(mine)).max() < 1e-5


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
@pytest.mark.parametrize(
    "pooling", ["cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken", ("cls", "mean")]
)
def test_folder_embeds_as_sentence_transformers_does(plain: Path, tmp_path: Path, pooling: Any) -> None:
    several = not isinstance(pooling, str)
    theirs = S.SentenceTransformer(
        modules=[
            M.Transformer(str(plain), max_seq_length=20),
            Pooling(32, pooling),
            M.Dense(64 if several else 32, 16, activation_function=torch.nn.GELU() if several else torch.nn.Tanh()),
            *([M.Normalize()] if pooling in ("mean", "cls") else []),
        ],
        prompts={"query": "query: ", "passage": "the "}, default_prompt_name="passage" if several else None,
    )  # fmt: skip
    theirs.save(str(tmp_path))
    model = load(tmp_path)
    assert (model.network.config.context, model.card.kind.kind) == (20, "text-encoder")
    close(theirs.encode(TEXT_SAMPLES), model.embed(TEXT_SAMPLES).vectors)
    close(theirs.encode_query(TEXT_SAMPLES), model.embed(TEXT_SAMPLES, role="query", batch_size=2).vectors)
    close(theirs.encode_document(TEXT_SAMPLES), model.embed(TEXT_SAMPLES, role="document").vectors)
    with pytest.raises(OptionError, match="knows no role 'poem'.*passage"):
        model.embed("the", role="poem")


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_folder_of_the_first_versions_embeds_as_ever(plain: Path, tmp_path: Path) -> None:
    """The network in a folder of its own, vocab.txt alone, pickled weights, a flag for each way to pool."""
    inner = vocabulary(tmp_path / "0_Transformer")
    write(inner / "config.json", json.loads((plain / "config.json").read_text()))
    tensors = load_file(plain / "model.safetensors")
    torch.save(tensors, inner / "pytorch_model.bin")
    write(inner / "sentence_bert_config.json", {"max_seq_length": 16, "do_lower_case": True})
    write(inner / "tokenizer_config.json", {"do_lower_case": False, "model_max_length": 512})
    said = {"word_embedding_dimension": 32, "pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True,
            "pooling_mode_max_tokens": True}  # fmt: skip
    modules(
        tmp_path, ("0_Transformer", "sentence_transformers.models.Transformer", None),
        ("1_Pooling", "sentence_transformers.models.Pooling", said),
    )  # fmt: skip
    theirs = S.SentenceTransformer(str(tmp_path), device="cpu")
    model = load(tmp_path)
    assert model.network.config.pool == PoolConfig(("max", "mean"), (), normalize=False)
    close(theirs.encode(TEXT_SAMPLES), model.embed(TEXT_SAMPLES).vectors)


def test_pooling_that_leaves_prompts_out_is_told(plain: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(plain, tmp_path / "model"))
    said = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True, "include_prompt": False}
    modules(folder, ("", "sentence_transformers.models.Transformer", None), ("1_Pooling", "models.Pooling", said))
    load(folder)  # without prompts it is the same
    write(folder / "config_sentence_transformers.json", {"prompts": {"query": "Find: "}})
    with pytest.raises(CheckpointError, match="without the tokens of its prompts"):
        load(folder)


def test_folder_without_modules_pools_the_mean_and_normalises(plain: Path) -> None:
    theirs = S.SentenceTransformer(str(plain), device="cpu").encode(TEXT_SAMPLES[:3], normalize_embeddings=True)
    close(theirs, load(plain).embed(TEXT_SAMPLES[:3]).vectors)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([("", "Transformer", None), ("1_LSTM", "models.LSTM", {})], "lists a 'LSTM'"),
        ([("", "Transformer", None), ("", "Normalize", None)], "pools nowhere"),
        ([("", "Transformer", None), ("1", "Pooling", {"pooling_mode": "sum"})], "pools by"),
        ([("", "Transformer", None), ("../up", "Pooling", None)], "no list of up to"),
        ([("", "Transformer", None), ("1", "Pooling", None), ("2", "Dense", {"in_features": 8})], "2 lacks its weight"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_run_are_told(plain: Path, tmp_path: Path, rows: list, message: str) -> None:
    folder = modules(copied(plain, tmp_path / "model"), *rows)
    with pytest.raises(CheckpointError, match=message):
        load(folder)


# Rerankers ------------------------------------------------------------------------------------------------------------

DOCUMENTS = ["cat", "The Cat, dogging: é!", "", "a " * 60, "dog"]


def scored(model: Any, query: str) -> list[float]:
    found = {one.index: one.score for one in model.rerank(query, DOCUMENTS, batch_size=2)}
    assert list(found.values()) == sorted(found.values(), reverse=True)
    return [found[i] for i in range(len(DOCUMENTS))]


@pytest.mark.filterwarnings("ignore:.*its end was cut")
@pytest.mark.parametrize("act", [torch.nn.Sigmoid(), torch.nn.Identity()])
def test_cross_encoder_scores_as_sentence_transformers_does(tmp_path: Path, act: Any) -> None:
    bert(tmp_path / "bert", "BertForSequenceClassification", num_labels=1)
    theirs = S.CrossEncoder(str(tmp_path / "bert"), activation_fn=act, device="cpu")
    theirs.save(str(tmp_path / "judge"))
    model = load(tmp_path / "judge")
    assert (model.card.verbs, model.card.kind.flavours) == (("rerank",), ("reranker",))
    for query in ("the dog", "the dog " * 12, "b " * 50):
        close(theirs.predict([(query, document) for document in DOCUMENTS]), scored(model, query))
    with pytest.raises(ContextTooLong, match="longer than the 40 tokens"):
        model.rerank("the", DOCUMENTS, truncate=False)
    with pytest.raises(OptionError, match="takes no instruction"):
        model.rerank("the", DOCUMENTS, instruction="find cats")
    with pytest.raises(UnsupportedTask, match="cannot embed"):
        model.embed("the")
    assert [one.document for one in model.rerank("the", DOCUMENTS, top=2)] and model.rerank("the", []) == []


@pytest.mark.parametrize("family", ["BERT", "ModernBERT", "DistilBERT"])
def test_classifiers_of_tokens_are_told_and_not_run(tmp_path: Path, family: str) -> None:
    reference(family, "ForTokenClassification", num_labels=3).save_pretrained(tmp_path)
    told = examine(tmp_path)
    assert told.verbs == () and "3 labels of each token" in told.verbs_why


@pytest.mark.parametrize("family", ["BERT", "RoBERTa", "MPNet", "DistilBERT", "ModernBERT"])
def test_classifier_of_texts_equals_transformers(tmp_path: Path, family: str) -> None:
    model = reference(family, "ForSequenceClassification", num_labels=3)
    model.save_pretrained(tmp_path)
    ids = [[5, 6, 7, 8], [9, 10], [11, 12, 13]]
    with torch.inference_mode():
        theirs = torch.cat([model(torch.tensor([row])).logits for row in ids])
    found = load(tmp_path, dtype="float32")
    assert found.card.verbs == ("classify",) and found.network.config.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
    with torch.inference_mode():
        mine = found.network.scores(*row(ids))
    assert (mine - theirs).abs().max() < 1e-4


@pytest.mark.parametrize("problem", [None, "multi_label_classification"])
def test_texts_are_labelled(tmp_path: Path, problem: str | None, capsys: pytest.CaptureFixture[str]) -> None:
    labels = {0: "cats", 1: "dogs", 2: "others"}
    bert(tmp_path, "BertForSequenceClassification", num_labels=3, id2label=labels, problem_type=problem)
    model = load(tmp_path, dtype="float32")
    theirs = T.pipeline("text-classification", str(tmp_path), device="cpu", top_k=None)
    texts = ["the dog", "cat", "a b c: the dogging!"]
    for text, mine in zip(texts, model.classify(texts), strict=True):
        told = {one["label"]: one["score"] for one in theirs([text])[0]}
        assert max(abs(told[name] - p) for name, p in zip(mine.labels, mine.probabilities, strict=True)) < 1e-4
        assert mine.label == max(told, key=lambda name: told[name]) and len(mine.labels) == 3
    assert model.classify("the dog", top=1).labels == (model.classify("the dog").label,)
    for given, message in ((Path("x.png"), "labels texts; a"), ("x", "give it none")):
        with pytest.raises(OptionError, match=message):
            model.classify(given, ["a"] if given == "x" else None)
    (tmp_path / "note.txt").write_text("cat")
    assert main(["classify", str(tmp_path), "the dog", str(tmp_path / "note.txt"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)["data"]
    assert [row["input"] for row in said] == ["the dog", str(tmp_path / "note.txt")]
    assert said[1]["labels"][0]["label"] == model.classify("cat").label


def test_documents_are_ranked_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = bert(tmp_path / "judge", "BertForSequenceClassification", num_labels=1)
    (tmp_path / "more.txt").write_text("a cat\n\na dog\n")
    (tmp_path / "one.txt").write_text("the\ncat")
    given = ["the dog", "cat", str(tmp_path / "one.txt"), "--file", str(tmp_path / "more.txt")]
    assert main(["rerank", str(folder), *given, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    expected = load(folder).rerank("the dog", ["cat", "the\ncat", "a cat", "a dog"])
    assert [(row["index"], row["score"]) for row in said["data"]] == [(one.index, one.score) for one in expected]
    assert main(["rerank", str(folder), *given, "--top", "1"]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 1
    assert main(["rerank", str(folder), "the dog"]) == 2 and "no document" in capsys.readouterr().err


# Late interaction -----------------------------------------------------------------------------------------------------


def same_tokens(folder: Path) -> Any:
    """Queries and documents of a folder as sentence-transformers embeds them, token by token."""
    theirs, model = S.MultiVectorEncoder(str(folder), device="cpu"), load(folder)
    assert (model.card.verbs, model.card.kind.flavours) == (("embed", "rerank"), ("embedder",))
    for role, encode in (("query", theirs.encode_query), ("document", theirs.encode_document)):
        for one, other in zip(encode(TEXT_SAMPLES), model.embed(TEXT_SAMPLES, role=role).vectors, strict=True):
            close(one, other)
    pairs = theirs.similarity(theirs.encode_query(TEXT_SAMPLES[:2]), theirs.encode_document(TEXT_SAMPLES[2:4]))
    mine = model.similarity(model.embed(TEXT_SAMPLES[:2], role="query"), TEXT_SAMPLES[2:4])
    assert np.abs(pairs.numpy() - mine).max() < 1e-4
    ranked = model.rerank(TEXT_SAMPLES[1], TEXT_SAMPLES[2:4])
    assert [one.score for one in ranked] == pytest.approx(sorted(pairs[1].tolist(), reverse=True), abs=1e-4)
    return model.network.config.pool.late


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_late_interaction_equals_sentence_transformers_own_folder(plain: Path, tmp_path: Path) -> None:
    model = S.MultiVectorEncoder(str(plain), device="cpu")
    model[0].query_expansion = {"strategy": "min", "attend": True, "length": 8}
    model[0].document_length = 12
    model.save(str(tmp_path))
    late = same_tokens(tmp_path)
    assert (late.expand, late.attend, late.document_length) == (8, True, 12)


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_late_interaction_equals_pylates_folder(plain: Path, tmp_path: Path) -> None:
    """A query's masks are seen by nobody, its marker is a token of the vocabulary, and documents skip some words."""
    modules(
        copied(plain, tmp_path),
        ("", "sentence_transformers.models.Transformer", None),
        ("1_Dense", "pylate.models.Dense.Dense", {"in_features": 32, "out_features": 24, "bias": False,
                                                  "activation_function": "torch.nn.modules.linear.Identity"}),
        prompts={}, default_prompt_name=None, similarity_fn_name="MaxSim", query_prefix="query ", query_length=14,
        document_prefix="[D] ", document_length=18, attend_to_expansion_tokens=False, skiplist_words=[".", "!", "%"],
    )  # fmt: skip
    save_file({"linear.weight": torch.randn(24, 32)}, tmp_path / "1_Dense" / "model.safetensors")
    late = same_tokens(tmp_path)
    assert (late.query_length, late.expand, late.document_length) == (14, 14, 18)


@pytest.mark.filterwarnings("ignore:.*Its end was cut")
def test_late_interaction_equals_stanfords_folder(plain: Path, tmp_path: Path) -> None:
    folder = copied(plain, tmp_path)
    tensors = {f"bert.{name}": tensor for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file({**tensors, "linear.weight": torch.randn(24, 32)}, folder / "model.safetensors", {"format": "pt"})
    said = json.loads((folder / "config.json").read_text())
    write(folder / "config.json", said | {"architectures": ["HF_ColBERT"]})
    write(folder / "artifact.metadata", {"query_maxlen": 16, "doc_maxlen": 20, "query_token_id": "dog",
                                         "doc_token_id": "cat", "mask_punctuation": True})  # fmt: skip
    assert "!" in same_tokens(folder).skip


# Qwen3 ----------------------------------------------------------------------------------------------------------------


def test_qwen3_embedding_equals_sentence_transformers(tmp_path: Path) -> None:
    folder = modules(
        qwen3(tmp_path), ("", "sentence_transformers.models.Transformer", None),
        ("1_Pooling", "sentence_transformers.models.Pooling",
         {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": False, "pooling_mode_lasttoken": True}),
        ("2_Normalize", "sentence_transformers.models.Normalize", None),
        prompts={"query": "Instruct: find\nQuery:", "document": ""},
    )  # fmt: skip
    rewritten(folder, lambda name: name.removeprefix("model."))  # as it is published, without a head
    theirs, model = S.SentenceTransformer(str(folder), device="cpu"), load(folder)
    assert (model.card.verbs, model.card.kind.family) == (("embed",), "Qwen3")
    close(theirs.encode(TEXT_SAMPLES), model.embed(TEXT_SAMPLES).vectors)
    close(theirs.encode_query(TEXT_SAMPLES), model.embed(TEXT_SAMPLES, role="query").vectors)


@pytest.mark.parametrize("tied", [True, False])
def test_qwen3_reranker_asks_and_hears_yes_or_no(tmp_path: Path, tied: bool) -> None:
    folder = qwen3(tmp_path / "Qwen3-Reranker-tiny", tied)
    theirs, tokenizer = T.Qwen3ForCausalLM.from_pretrained(folder), T.AutoTokenizer.from_pretrained(folder)
    model = load(folder)
    assert (model.card.verbs, model.card.kind.family) == (("rerank",), "Qwen3")
    task, expected = "find cats", []
    for document in DOCUMENTS:
        text = f"{BEFORE}<Instruct>: {task}\n<Query>: the dog\n<Document>: {document}{BEHIND}"
        ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        with torch.inference_mode():
            last = theirs(**{k: v for k, v in ids.items() if k != "token_type_ids"}).logits[0, -1]
        expected.append(float(last[[tokenizer.convert_tokens_to_ids(w) for w in ("no", "yes")]].softmax(0)[1]))
    found = {one.index: one.score for one in model.rerank("the dog", DOCUMENTS, instruction=task)}
    close(expected, [found[i] for i in range(len(DOCUMENTS))])
    scores = modules(folder, ("", "Transformer", None), ("1", "LogitScore", {"true_token_id": 5, "false_token_id": 6}))
    assert load(scores).network.config.words == (5, 6)
