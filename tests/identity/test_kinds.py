"""What published models are, from the few keys of config.json that matter; the traps; what files do not tell."""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

import pytest

from brolly.card import Header, TensorInfo
from brolly.checkpoint import read_header
from brolly.errors import CheckpointError
from brolly.identity.answers import FLAVOURS, KINDS, MODALITIES, Kind, Known
from brolly.identity.classes import HEARS, SEES
from brolly.identity.kinds import kind_of
from brolly.identity.roles import role
from brolly.identity.subject import Subject
from brolly.identity.tables import table
from tests.identity.told import GGUFS, MODELS, PIPELINES, TENSORS, arch


def folder(path: Path, config: dict[str, Any] | None = None, **others: Any) -> Path:
    """A model's folder: config.json and its neighbours; "README" is written as the card's header."""
    path.mkdir(exist_ok=True)
    if config is not None:
        (path / "config.json").write_text(json.dumps(config))
    for name, content in others.items():
        if name == "README":
            (path / "README.md").write_text(f"---\n{content}\n---\n# Model\n")
        else:
            target = path / f"{name}.json"
            target.write_text(json.dumps(content))
    return path


def kind(path: Path, name: str | None = None, known: Known | None = None) -> Kind:
    faults: list[CheckpointError] = []
    return kind_of(Subject(path, read_header(path, faults), faults, name), known)


def of_tensors(shapes: dict[str, tuple[int, ...]], config: dict[str, Any] | None = None, **more: Any) -> Kind:
    """The kind of a file of which only names and shapes are known."""
    path = Path("/nowhere/model.safetensors")
    dtype = more.pop("dtype", "F16")
    tensors = {n: TensorInfo(n, dtype, s, path, 0, 0) for n, s in shapes.items()}
    header = Header(path, more.pop("format", "safetensors"), tensors, config or {}, more.pop("metadata", {}), (path,))
    subject = Subject(path, header, [], more.pop("name", None))
    subject.files = {path.name: 0}
    return kind_of(subject, None)


def described(k: Kind) -> str:
    return (
        f"{k.family}: {k.kind} {','.join(k.modalities_in)}>{','.join(k.modalities_out)} {','.join(k.flavours)}".strip()
    )


@pytest.mark.parametrize(("name", "config", "expected"), MODELS, ids=[m[0] for m in MODELS])
def test_a_published_model_is_told_from_its_config(
    tmp_path: Path, name: str, config: dict[str, Any], expected: str
) -> None:
    told = kind(folder(tmp_path, config), name)
    assert described(told) == expected
    assert told.is_llm is (told.kind == "llm")
    assert told.why and told.sentence.startswith(("Yes", "No"))


def test_the_table_covers_all_kinds_of_models() -> None:
    kinds = {expected.partition(": ")[2].split(" ")[0] for _, _, expected in MODELS}
    assert len(MODELS) >= 80
    assert kinds >= set(KINDS) - {"image", "video"}  # those are diffusers folders, below


@pytest.mark.parametrize(("name", "pipeline", "expected"), PIPELINES, ids=[p[0] for p in PIPELINES])
def test_a_diffusers_folder_is_told_by_its_pipeline(tmp_path: Path, name: str, pipeline: str, expected: str) -> None:
    path = folder(tmp_path, model_index={"_class_name": pipeline, "_diffusers_version": "0.30.0"})
    assert described(kind(path, name)) == expected


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 768}, "Stable Diffusion: image text>image"),
        ({"_class_name": "UNet2DConditionModel", "cross_attention_dim": 2048}, "SDXL: image text>image"),
        ({"_class_name": "FluxTransformer2DModel"}, "FLUX: image text>image"),
        ({"_class_name": "WanTransformer3DModel"}, "Wan: video text>video"),
        ({"_class_name": "AutoencoderKL"}, "None: image image>image vae"),
        ({"_class_name": "AutoencoderTiny"}, "TAESD: image image>image vae"),
        ({"_class_name": "AutoencoderOobleck"}, "None: audio audio>tokens,audio codec"),
        ({"_class_name": "ControlNetModel"}, "None: image image>image controlnet"),
    ],
)
def test_a_part_of_a_pipeline_alone_is_told(tmp_path: Path, config: dict[str, Any], expected: str) -> None:
    assert described(kind(folder(tmp_path, config))) == expected


@pytest.mark.parametrize(("names", "expected"), TENSORS, ids=[t[1] + " " + t[0][0] for t in TENSORS])
def test_tensor_names_tell_where_there_is_no_config(names: list[str], expected: str) -> None:
    assert described(of_tensors({name: (8, 8) for name in names})) == expected
    assert described(of_tensors({f"module.{name}": (8, 8) for name in names})) == expected or "state." in names[0]


def test_the_width_of_the_text_encoder_tells_sdxl_from_stable_diffusion() -> None:
    attention = "down_blocks.1.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    rest = {"conv_in.weight": (320, 4, 3, 3), "up_blocks.0.resnets.0.conv1.weight": (8, 8)}
    assert of_tensors({**rest, attention: (640, 768)}).family == "Stable Diffusion"
    assert of_tensors({**rest, attention: (640, 2048)}).family == "SDXL"


@pytest.mark.parametrize(("metadata", "expected"), GGUFS, ids=[g[1] for g in GGUFS])
def test_ggufs_are_told_by_their_keys(metadata: dict[str, Any], expected: str) -> None:
    assert described(of_tensors({"x": (8, 8)}, format="gguf", metadata=metadata)) == expected


def test_a_vocabulary_alone_is_a_tokenizer(tmp_path: Path) -> None:
    gguf = of_tensors({}, format="gguf", metadata={"general.architecture": "llama", "tokenizer.ggml.tokens": ["a"]})
    assert described(gguf) == "None: other text>tokens tokenizer" and "tokenizer alone" in gguf.sentence
    alone = kind(folder(tmp_path, tokenizer={"model": {"vocab": {}}}))
    assert described(alone) == "None: other text>tokens tokenizer" and alone.is_llm is False


def test_pooling_makes_an_embedder_of_any_class(tmp_path: Path) -> None:
    path = folder(tmp_path, arch("mistral", "MistralModel"))
    (path / "modules.json").write_text(
        json.dumps(
            [{"type": "sentence_transformers.models.Transformer"}, {"type": "sentence_transformers.models.Pooling"}]
        )
    )
    assert described(kind(path)) == "Mistral: text-encoder text>embedding embedder"


def test_other_libraries_configs_are_told(tmp_path: Path) -> None:
    clip = folder(
        tmp_path / "clip", open_clip_config={"model_cfg": {"embed_dim": 512, "vision_cfg": {}, "text_cfg": {}}}
    )
    assert described(kind(clip)) == "CLIP: vision-language-embedding text,image>embedding"
    timm = folder(tmp_path / "timm", {"architecture": "vit_base_patch14_dinov2", "num_classes": 0, "num_features": 768})
    assert described(kind(timm)) == "DINOv2: vision image>embedding"
    meta = of_tensors({}, {"dim": 4096, "n_layers": 32, "n_heads": 32, "vocab_size": -1}, format="meta")
    assert described(meta) == "Llama: llm text>text"
    kokoro = folder(tmp_path / "kokoro", {"istftnet": {"a": 1}, "plbert": {"hidden_size": 768}})
    assert kind(kokoro).kind == "speech"


def test_a_chat_template_makes_it_instruct_unless_its_turns_do_not_end_the_text(tmp_path: Path) -> None:
    # Qwen/Qwen2.5-7B (base) ships the template, and ends texts with <|endoftext|>; its Instruct with <|im_end|>.
    template = "{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}"
    base = {"chat_template": template, "eos_token": "<|endoftext|>"}
    chat = {"chat_template": template, "eos_token": "<|im_end|>"}
    config = arch("qwen2", "Qwen2ForCausalLM")
    assert kind(folder(tmp_path / "base", config, tokenizer_config=base)).flavours == ()
    assert kind(folder(tmp_path / "chat", config, tokenizer_config=chat)).flavours == ("instruct",)
    thinking = {"chat_template": "{% if enable_thinking %}", "eos_token": "<|im_end|>"}
    assert kind(folder(tmp_path / "think", config, tokenizer_config=thinking)).flavours == ("instruct", "reasoning")


def test_unknown_classes_are_told_as_far_as_their_ending_goes(tmp_path: Path) -> None:
    assert described(kind(folder(tmp_path / "a", arch("zork", "ZorkForCausalLM")))) == "Zork: llm text>text"
    seeing = arch("zork", "ZorkForConditionalGeneration", vision_config={"a": 1})
    assert described(kind(folder(tmp_path / "b", seeing))) == "Zork: lmm text,image>text"
    assert kind(folder(tmp_path / "c", arch("zork", "ZorkForConditionalGeneration"))).kind is None
    assert kind(folder(tmp_path / "d", {"architectures": ["LlamaForCausalLM"]})).family == "Llama"


@pytest.mark.parametrize(
    "config",
    [{}, {"hidden_size": 768}, {"model_type": "zork"}, {"architectures": ["ZorkModel"]},
     {"model_type": 7, "architectures": 5},
     {"model_type": ["llama"], "architectures": {"a": 1}, "vision_config": "x", "quantization_config": [1]}],
)  # fmt: skip
def test_what_files_do_not_tell_is_none(tmp_path: Path, config: dict[str, Any]) -> None:
    path = folder(tmp_path, config)
    (path / "tokenizer.json").write_text("{}")
    told = kind_of(Subject(path, Header(path, "config", {}, config), [], None), None)
    assert told.kind is None and told.is_llm is None and told.family is None and told.scope is None
    assert told.relation is None and told.base_model == () and told.modalities_in == () and told.flavours == ()
    assert told.sentence.startswith("Not told")


def test_weights_of_unknown_names_tell_nothing() -> None:
    told = of_tensors({"alpha.weight": (8, 8), "beta.weight": (8, 8)})
    assert (told.kind, told.is_llm, told.scope) == (None, None, None)


def test_inputs_of_a_graph_tell_what_their_names_leave_no_doubt_of() -> None:
    def graph(inputs: list[str], outputs: list[str]) -> Kind:
        metadata = {"inputs": [{"name": n} for n in inputs], "outputs": [{"name": n} for n in outputs]}
        return of_tensors({"onnx::MatMul_1": (8, 8)}, format="onnx", metadata=metadata)

    assert graph(["input_ids", "past_key_values.0.key"], ["logits", "present.0.key"]).kind == "llm"
    assert graph(["input_ids", "attention_mask"], ["last_hidden_state"]).kind == "text-encoder"
    assert graph(["input"], ["output"]).kind is None


def test_scope_is_told_by_name_card_data_or_kind_and_never_by_weights(tmp_path: Path) -> None:
    config = arch("llama", "LlamaForCausalLM")
    alone = kind(folder(tmp_path / "a", config))
    assert alone.scope is None and "weights cannot tell" in alone.scope_why
    assert kind(folder(tmp_path / "a", config), "meta-llama/Llama-3.1-8B").scope == "foundation"
    assert kind(folder(tmp_path / "a", config), "somebody/Llama-3.1-8B").scope is None
    medical = kind(folder(tmp_path / "b", config, README="tags:\n- medical\n- text-generation"))
    assert medical.scope == "domain" and "medicine" in medical.scope_why
    data = kind(
        folder(tmp_path / "c", config, README="datasets:\n- cerebras/SlimPajama-627B\n- togethercomputer/RedPajama")
    )
    assert data.scope == "foundation"
    broad = kind(folder(tmp_path / "d", config, README="datasets:\n- HuggingFaceFW/fineweb"))
    assert broad.scope == "foundation" and "fineweb" in broad.scope_why
    assert kind(folder(tmp_path / "e", arch("dinov2", "Dinov2Model")), "microsoft/rad-dino").scope == "domain"
    assert kind(folder(tmp_path / "f", arch("bert", "BertForMaskedLM")), "dmis-lab/biobert-v1.1").scope == "domain"
    assert kind(folder(tmp_path / "g", arch("esm", "EsmForMaskedLM", vocab_size=33))).scope == "domain"
    assert kind(folder(tmp_path / "h", arch("starcoder2", "Starcoder2ForCausalLM"))).scope is None
    tuned = kind(folder(tmp_path / "i", config, README="base_model: meta-llama/Llama-3.1-8B"), "somebody/poet-8B")
    assert tuned.scope == "foundation" and tuned.relation == "finetune"


def known(name: str, **more: Any) -> Known:
    plain = {
        "family": "Llama",
        "organization": "Meta",
        "kind": "llm",
        "modalities_in": ("text",),
        "modalities_out": ("text",),
    }
    return Known(**{"name": name, **plain, **more})


def test_the_known_row_of_its_own_name_decides(tmp_path: Path) -> None:
    row = known("Llama 3.1 8B", flavours=("base",), scope="foundation", ids=("meta-llama/Llama-3.1-8B",))
    told = kind(folder(tmp_path, arch("llama", "LlamaForCausalLM")), "meta-llama/Llama-3.1-8B", row)
    assert (told.name, told.scope, told.relation, told.flavours) == ("Llama 3.1 8B", "foundation", "base", ("base",))
    # the same shape under another name: told as what it looks like, not as the row
    other = kind(folder(tmp_path, arch("llama", "LlamaForCausalLM")), "somebody/poet-8B", row)
    assert other.name == "poet-8B" and other.relation is None and "shape of Llama 3.1 8B" in other.scope_why


def test_a_reward_head_on_a_known_shape_stays_a_reward_model(tmp_path: Path) -> None:
    config = arch("llama", "LlamaForSequenceClassification", num_labels=1)
    told = kind(folder(tmp_path, config), "somebody/judge-8B", known("Llama 3.1 8B", ids=("meta-llama/Llama-3.1-8B",)))
    assert (told.kind, told.is_llm) == ("other", False) and "reward" in told.flavours


def test_a_name_alone_is_answered_from_the_row() -> None:
    row = known("GPT-4o", family="GPT-4", kind="lmm", modalities_in=("text", "image", "audio"),
                modalities_out=("text", "image", "audio"), open="closed", scope="foundation")  # fmt: skip
    told = kind_of(Subject(Path("/nowhere"), Header(Path("/nowhere"), "table", {}), [], None), row)
    assert (told.name, told.kind, told.is_llm, told.scope) == ("GPT-4o", "lmm", False, "foundation")
    assert told.sentence == (
        "Not an LLM alone: GPT-4o is a large multimodal model (LMM); it writes text and makes images and sounds, "
        "and also takes images and sounds."
    )


def test_is_it_an_llm_is_answered_in_a_sentence(tmp_path: Path) -> None:
    clip = kind(folder(tmp_path / "clip", arch("clip", "CLIPModel")))
    assert clip.sentence == (
        "No: CLIP is a vision-language embedding model; it compares images and texts, and writes none."
    )
    llama = kind(folder(tmp_path / "llama", arch("llama", "LlamaForCausalLM")))
    assert llama.sentence == "Yes: Llama is a language model (LLM); it reads text and writes text."
    gemma = kind(folder(tmp_path / "gemma", arch("gemma3", "Gemma3ForConditionalGeneration", vision_config={"a": 1})))
    assert "Not an LLM alone" in gemma.sentence and "also takes images" in gemma.sentence


def test_ggmls_older_files_are_told_by_their_layout() -> None:
    assert (
        described(of_tensors({"x": (8, 8)}, format="ggml", metadata={"variant": "whisper"}))
        == "Whisper: speech audio>text"
    )
    adapter = of_tensors({"x": (8, 8)}, format="ggml", metadata={"variant": "lora", "container": "ggla"})
    assert (adapter.kind, adapter.relation) == ("llm", "adapter")


def test_any_value_at_any_key_is_borne() -> None:
    random = Random(7)
    junk: list[Any] = [
        None,
        -1,
        0,
        2**70,
        1e308,
        True,
        "",
        "x" * 9999,
        "\x1b[31m\n",
        [],
        [[]],
        ["", 3, None],
        {},
        {"a": {"b": []}},
    ]
    words = """model_type architectures quantization_config quantization text_config id2label vocab_size auto_map moe
        speculators_config num_labels dim n_layers n_heads type output_features architecture num_classes _class_name
        num_experts _name_or_path"""
    keys = [*SEES, *HEARS, *words.split()]
    said = """general.architecture general.type inputs variant target general.name tokenizer.chat_template
        general.base_model.count"""
    for _ in range(500):
        name, config, _expected = random.choice(MODELS)
        mutated = config | {random.choice(keys): random.choice(junk) for _ in range(4)}
        form = random.choice(["safetensors", "config", "diffusers", "meta", "gguf", "onnx", "ggml", "nemo"])
        metadata = {random.choice(said.split()): random.choice(junk)}
        found = of_tensors({"x": (8, 8)}, mutated, format=form, metadata=metadata, name=name)
        assert found.kind is None or found.kind in KINDS
        assert (found.is_llm is None) == (found.kind is None) and len(found.sentence) < 1000
        assert all(len(e.value) <= 200 for e in found.why)


def test_every_row_of_the_tables_names_a_role_that_the_contract_knows() -> None:
    roles = table("architectures.json")["roles"]
    for name in roles:
        found = role(name)
        assert found.kind in KINDS and set(found.inputs + found.outputs) <= set(MODALITIES), name
        assert set(found.flavours) <= set(FLAVOURS), name
    assert all(row[1] in roles for row in table("architectures.json")["types"].values())
    assert all(row[1] in roles for row in table("pipelines.json")["pipelines"].values())
    assert all(row[1] in roles for row in table("gguf.json")["architectures"].values())
    assert all(row[1] in roles for row in table("tensor_marks.json")["marks"])
    assert all(not row[3] or row[3] in roles for row in table("lineages.json")["lineages"])
    assert all(row[2] in roles for row in table("lineages.json")["names"])
    for name in ("architectures", "pipelines", "gguf", "tensor_marks", "lineages"):
        assert table(f"{name}.json")["about"]


@pytest.mark.parametrize(("package", "file", "section"), [
    ("transformers", "architectures.json", "types"), ("diffusers", "pipelines.json", "pipelines"),
])  # fmt: skip
def test_the_generated_tables_are_what_the_script_makes(package: str, file: str, section: str) -> None:
    from importlib.metadata import PackageNotFoundError, version
    from importlib.util import module_from_spec, spec_from_file_location

    try:
        here = version(package)
    except PackageNotFoundError:
        pytest.skip(f"{package} is not installed")
    if here != (made := table(file)["about"]["from"]["version"]):
        pytest.skip(f"{package} {here} is installed, and the table was made from {made}")
    path = Path(__file__).parents[2] / "scripts" / "architectures.py"
    spec = spec_from_file_location("architectures_script", path)
    assert spec and spec.loader
    script = module_from_spec(spec)
    spec.loader.exec_module(script)
    assert table(file)[section] == (script.architectures() if section == "types" else script.pipelines())
    if section == "types":
        assert table(file)["roles"] == script.ROLES


def test_types_that_transformers_knows_are_in_the_table() -> None:
    auto = pytest.importorskip("transformers.models.auto.modeling_auto")
    types = table("architectures.json")["types"]
    for task in ("CAUSAL_LM", "IMAGE_TEXT_TO_TEXT", "MASKED_LM", "SPEECH_SEQ_2_SEQ"):
        known_types = getattr(auto, f"MODEL_FOR_{task}_MAPPING_NAMES")
        missing = [t for t in known_types if t not in types]
        assert len(missing) <= len(known_types) // 20, missing  # newer versions may know more


def test_families_that_run_are_told_by_the_name_that_runs_them() -> None:
    from brolly.families import families

    told = {row[0] for row in table("architectures.json")["types"].values()}
    told |= {row[2] for row in table("lineages.json")["lineages"]}
    assert {family.name for family in families()} <= told
