"""LoRA against peft's own, alone and mixed in one pass; and folders that are refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from brolly.engine.adapters import FEW, Adapter, LowRank, applied
from brolly.engine.cache import Causal
from brolly.engine.pages import BLOCK, Pages, Stretch
from brolly.errors import CheckpointError, NotFound
from brolly.fill import fill_adapter
from brolly.loader import load
from tests.check_family import loaded
from tests.families import layouts
from tests.kernels.test_decoder import VOCABULARY, llama
from tests.run import checkpoints

IDS = [5, 17, 260, 3, 99, 41, 7, 7, 120, 300]
LLAMA = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "llama": {
        "queries and values": {"r": 4, "lora_alpha": 8, "target_modules": ["q_proj", "v_proj"]},
        "everything, by patterns": {
            "r": 3, "lora_alpha": 5, "target_modules": LLAMA,
            "rank_pattern": {"q_proj": 7, r"layers\.1\.mlp\.up_proj": 2, "^model.layers.0.self_attn.v_proj": 1},
            "alpha_pattern": {"down_proj": 11, r"model.layers.\d+.self_attn.o_proj": 1},
        },
        "rank-stabilised, by a regex": {
            "r": 8, "lora_alpha": 6, "use_rslora": True, "target_modules": r".*\.(self_attn\.k_proj|mlp\.gate_proj)",
        },
        "DoRA": {"r": 4, "lora_alpha": 6, "use_dora": True, "target_modules": ["q_proj", "o_proj", "down_proj"]},
    },
    "gpt2": {
        "joined queries": {"r": 4, "lora_alpha": 8, "target_modules": ["c_attn"], "fan_in_fan_out": True},
        "everything": {
            "r": 2, "lora_alpha": 7, "target_modules": ["c_attn", "c_proj", "c_fc"], "fan_in_fan_out": True,
            "rank_pattern": {"mlp.c_proj": 5}, "alpha_pattern": {"attn.c_proj": 3},
        },
        "rank-stabilised": {"r": 6, "lora_alpha": 9, "target_modules": ["c_fc"], "use_rslora": True},
        "DoRA": {"r": 3, "lora_alpha": 6, "use_dora": True, "target_modules": ["c_attn", "mlp.c_proj"]},
    },
}  # fmt: skip
CASES = [(base, kind) for base, kinds in KINDS.items() for kind in kinds]


def write_gpt2(folder: Path) -> Any:
    """A random GPT-2 of several layers, and the transformers model that wrote it."""
    import transformers as T

    backend = checkpoints.write_tokenizer(folder)
    config = T.GPT2Config(
        vocab_size=backend.get_vocab_size(), n_embd=64, n_layer=2, n_head=4, n_positions=checkpoints.CONTEXT,
        initializer_range=0.2, bos_token_id=None, eos_token_id=backend.token_to_id(checkpoints.END),
    )  # fmt: skip
    torch.manual_seed(1)
    reference = T.GPT2LMHeadModel(config).eval()
    reference.save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)
    return reference


def write_adapter(base: Path, folder: Path, seed: int = 0, **settings: Any) -> Any:
    """A random LoRA of a written base, in `folder`; returns peft's model of it."""
    import peft
    import transformers as T

    reference = T.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found = peft.get_peft_model(reference, peft.LoraConfig(task_type="CAUSAL_LM", **settings)).eval()
    torch.manual_seed(seed)
    for name, parameter in found.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.3)
    found.save_pretrained(folder)
    return found


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("bases")
    checkpoints.write_llama(folder / "llama")
    write_gpt2(folder / "gpt2")
    return {name: folder / name for name in KINDS}


@pytest.fixture(scope="module")
def models(bases: dict[str, Path]) -> Iterator[dict[str, Any]]:
    """Each base in float32, with its adapters by name."""
    found = {name: load(path, device="cpu", dtype="float32") for name, path in bases.items()}
    yield found
    for model in found.values():
        model.close()


@pytest.fixture(scope="module")
def references(bases: dict[str, Path], models: dict[str, Any]) -> dict[tuple[str, str], Any]:
    """peft's model of each adapter, all of them added to ours too."""
    made = {}
    for i, (base, kind) in enumerate(CASES):
        folder = bases[base].parent / f"{base} {kind}"
        made[base, kind] = write_adapter(bases[base], folder, i, **KINDS[base][kind])
        models[base].add_adapter(kind, folder)
    return made


def logits(model: Any, adapter: Adapter | None, ids: list[int]) -> torch.Tensor:
    """(T, V), by torch and with nothing kept."""
    network, places = model.network, torch.arange(len(ids))[None]
    with torch.inference_mode(), applied([(adapter, slice(None))] if adapter else []):
        return network.logits(network(torch.tensor([ids]), places, Causal(network.config)))[0]


@pytest.mark.parametrize(("base", "kind"), CASES)
def test_logits_and_greedy_tokens_equal_pefts(base: str, kind: str, models: Any, references: Any) -> None:
    model, reference = models[base], references[base, kind]
    with torch.inference_mode():
        expected = reference(torch.tensor([IDS])).logits[0]
        greedy = reference.generate(
            input_ids=torch.tensor([IDS]), max_new_tokens=24, do_sample=False, eos_token_id=None, pad_token_id=0
        )[0, len(IDS) :].tolist()
    torch.testing.assert_close(logits(model, model.adapter(kind), IDS), expected, atol=1e-4, rtol=1e-4)
    assert (logits(model, None, IDS) - expected).abs().max() > 0.1, "it changes something"
    likely = expected.log_softmax(-1)[:-1].gather(-1, torch.tensor(IDS)[1:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(model.score(IDS, adapter=kind).logprobs[1:]), likely, atol=1e-4, rtol=1e-4)
    job = model.prepare(IDS, adapter=kind, max_tokens=24, temperature=0, ignore_eos=True)
    assert [token for piece in model._alone(job) for token in piece.tokens] == greedy


@pytest.mark.parametrize("base", KINDS)
def test_several_adapters_and_none_in_one_batch_are_each_as_alone(base: str, models: Any, references: Any) -> None:
    from brolly.engine.engine import write_all

    model = models[base]
    options = {"max_tokens": 20, "temperature": 0, "ignore_eos": True}
    prompts = [[(i * 37 + j * 11) % 300 for j in range(3 + 9 * (i % 5))] for i in range(12)]
    jobs = [
        model.prepare(prompt, adapter=[None, *KINDS[base]][i % 5], **options) for i, prompt in enumerate(prompts)
    ]  # fmt: skip
    together = write_all(model.engine, jobs)
    for job, pieces in zip(jobs, together, strict=True):
        alone = [token for piece in model._alone(job) for token in piece.tokens]
        assert [token for piece in pieces for token in piece.tokens] == alone, job.adapter
    assert len({tuple(t for p in pieces for t in p.tokens) for pieces in together}) == len(jobs)


def test_the_same_prompt_by_several_adapters_shares_no_keys(models: Any, references: Any) -> None:
    from brolly.engine.engine import write_all

    model, prompt = models["llama"], [(7 * i) % 300 for i in range(3 * BLOCK)]
    for _ in range(2):  # the second time, its keys are kept
        found = []
        for adapter in (None, *KINDS["llama"]):
            job = model.prepare(prompt, adapter=adapter, max_tokens=8, temperature=0, ignore_eos=True)
            (pieces,) = write_all(model.engine, [job])
            alone = [token for piece in model._alone(job) for token in piece.tokens]
            assert [token for piece in pieces for token in piece.tokens] == alone
            found.append(pieces[-1].usage.cached_tokens)
    assert min(found) >= 2 * BLOCK


def low_ranks(network: nn.Module, seed: int, rank: int = 4) -> Adapter:
    draw = torch.Generator().manual_seed(seed)
    dtype = next(network.parameters()).dtype
    return Adapter(
        network,
        {
            name: LowRank(
                torch.randn(rank, module.in_features, generator=draw).to(dtype) * 0.2,
                torch.randn(rank, module.out_features, generator=draw).to(dtype) * 0.2,
            )
            for name, module in network.named_modules()
            if isinstance(module, nn.Linear) and name != "lm_head"
        },
    )


def test_a_sequence_may_take_either_path_at_each_step() -> None:
    """Torch reads what the kernel wrote, and the other way; an adapter that adds nothing decides which one it is."""
    network = llama().to(torch.bfloat16)
    pages = Pages(network, 16)
    if isinstance(pages.fused, str):
        pytest.skip(f"no kernel for batches here: {pages.fused}")
    none = Adapter(network, {})
    text = [(13 * i) % VOCABULARY for i in range(80)]
    with torch.inference_mode():
        whole = network.logits(network(torch.tensor([text]), torch.arange(80)[None], Causal(network.config)))[0].float()
    start, blocks = 0, [3, 9, 1]
    for i, n in enumerate((30, 5, 1, 1, 1, 20, 1, 1, 7, 1, 1, 1, 10)):
        row = pages.forward([Stretch(text[start : start + n], start, blocks, True, none if i % 2 else None)])[0]
        start += n
        torch.testing.assert_close(row, whole[start - 1], atol=0.15, rtol=0.05)
    assert start == 80


def test_rows_without_an_adapter_keep_their_bits_beside_others() -> None:
    network = llama().to(torch.bfloat16)
    pages = Pages(network, 16)
    if isinstance(pages.fused, str):
        pytest.skip(f"no kernel for batches here: {pages.fused}")
    text = [(13 * i) % VOCABULARY for i in range(40)]
    one, other = low_ranks(network, 1), low_ranks(network, 2)
    (alone,) = pages.forward([Stretch(text, 0, [0, 1])])
    beside = [Stretch(text, 0, [2, 3], True, one), Stretch(text, 0, [4, 5]), Stretch(text, 0, [6, 7], False, other)]
    first, plain, last = pages.forward([*beside, Stretch(text[:9], 0, [8], True, other)])
    assert torch.equal(plain, alone) and pages.likeliest[1] == int(alone.argmax())
    assert (first - alone).abs().max() > 0.1 and list(pages.likeliest) == [
        int(r.argmax()) for r in (first, plain, last)
    ]
    (again,) = pages.forward([Stretch(text[:9], 0, [9], True, other)])
    torch.testing.assert_close(last, again, atol=0.1, rtol=0.05)


def test_what_is_applied_is_applied_in_one_thread_alone() -> None:
    from concurrent.futures import ThreadPoolExecutor

    network = llama()
    adapter = low_ranks(network, 3)
    ids, places = torch.tensor([IDS[:4]]) % VOCABULARY, torch.arange(4)[None]

    def compute() -> torch.Tensor:
        with torch.inference_mode():
            return network(ids, places, Causal(network.config))

    before = compute()
    with ThreadPoolExecutor(1) as pool, applied([(adapter, slice(None))]):
        assert torch.equal(pool.submit(compute).result(), before)
        assert not torch.allclose(compute(), before)
    assert torch.equal(compute(), before)


def test_a_mixed_pass_keeps_to_the_slices() -> None:
    """Short stretches share two products, long ones have their own."""
    network = llama()
    draw = torch.Generator().manual_seed(6)
    x = torch.randn(1, 3 * FEW, network.config.dim, generator=draw)
    name = "model.layers.0.self_attn.q_proj"
    module = network.get_submodule(name)
    parts = [
        (low_ranks(network, 4), slice(2, 5)), (low_ranks(network, 5, rank=9), slice(5, 11)),
        (low_ranks(network, 6, rank=1), slice(12, 12 + FEW + 1)), (low_ranks(network, 7), slice(40, 41)),
    ]  # fmt: skip
    with torch.inference_mode():
        expected = module(x)
        for adapter, where in parts:
            a, b, _ = adapter.updates[name]
            expected[:, where] += x[:, where] @ a.T @ b
        with applied(parts):
            torch.testing.assert_close(module(x), expected)


def test_an_adapter_that_overflows_spoils_its_own_rows_alone() -> None:
    network = llama()
    well, ill = low_ranks(network, 8), low_ranks(network, 9)
    for update in ill.updates.values():
        update.a.fill_(3e38)
    x, module = torch.ones(1, 4, network.config.dim), network.get_submodule("model.layers.0.self_attn.q_proj")
    with torch.inference_mode():
        with applied([(well, slice(0, 2))]):
            alone = module(x)[:, :2]
        with applied([(well, slice(0, 2)), (ill, slice(2, 4))]):
            both = module(x)
    torch.testing.assert_close(both[:, :2], alone)
    assert not both[:, 2:].isfinite().any()


def test_the_command_line_takes_an_adapter(
    models: Any, references: Any, bases: dict[str, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    from brolly.cli import main
    from brolly.tasks.chat import Conversation

    model, folder = models["llama"], models["llama"].adapters[kind := "queries and values"]
    words = ["--temperature", "0", "--max-tokens", "9", "--device", "cpu", "--dtype", "float32"]
    assert main(["run", str(bases["llama"]), "a fox", "--adapter", str(folder), *words]) == 0
    assert capsys.readouterr().out == model.generate("a fox", adapter=kind, temperature=0, max_tokens=9).text + "\n"
    assert main(["run", str(bases["llama"]), "a fox", "--adapter", "./nowhere"]) == 2
    assert "./nowhere does not exist" in capsys.readouterr().err
    said: list[str] = []
    talk = Conversation(model, {"max_tokens": 9}, None, said.append, adapter=kind)
    talk.command("/set temperature 0")
    talk.answer("Hello")
    asked = [{"role": "user", "content": "Hello"}]
    assert "".join(said) == model.chat(asked, adapter=kind, temperature=0, max_tokens=9).text + "\n"


# Layouts of the base, and of the adapter's file ----------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["meta", "mistral", "gguf"])
def test_a_base_in_another_layout_takes_hugging_faces_names(
    layout: str, models: Any, references: Any, tmp_path: Path
) -> None:
    reference = references["llama", kind := "everything, by patterns"]
    plain, folder = plain_of(reference.get_base_model()), models["llama"].adapters[kind]
    sizes = dict(dim=64, n_layers=2, n_heads=4, n_kv_heads=2, vocab_size=plain.config.vocab_size, norm_eps=1e-6)
    if layout == "meta":
        layouts.write_meta(path := tmp_path / "meta", plain, sizes | {"multiple_of": 32}, 16, 2, True)
    elif layout == "mistral":
        layouts.write_mistral(path := tmp_path / "m", plain, sizes | {"head_dim": 16, "hidden_dim": 96}, 16)
    else:
        pytest.importorskip("gguf")
        layouts.write_gguf(path := tmp_path / "model.gguf", plain, "llama", 16)
    card, network = loaded(path, {"mistral": "Mistral"}.get(layout, "Llama"))
    adapter = fill_adapter(folder, card, network)
    with torch.inference_mode(), applied([(adapter, slice(None))]):
        hidden = network(torch.tensor([IDS]), torch.arange(len(IDS))[None], Causal(network.config))
        found, expected = network.logits(hidden)[0], reference(torch.tensor([IDS])).logits[0]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)


def plain_of(wrapped: Any) -> Any:
    """A peft model's base as it was before."""
    import transformers as T

    plain = T.LlamaForCausalLM(wrapped.config).eval()
    state = {k.replace(".base_layer", ""): v for k, v in wrapped.state_dict().items() if "lora_" not in k}
    plain.load_state_dict(state)
    return plain


def test_torchs_own_file_is_read_as_well(bases: Any, models: Any, references: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    kind = "queries and values"
    source = bases["llama"].parent / f"llama {kind}"
    shutil.copy(source / "adapter_config.json", tmp_path)
    tensors = load_file(source / "adapter_model.safetensors")
    torch.save(
        {name.replace(".weight", ".default.weight"): t for name, t in tensors.items()}, tmp_path / "adapter_model.bin"
    )
    model = models["llama"]
    found = model.add_adapter("pickled", tmp_path)
    assert torch.equal(logits(model, found, IDS), logits(model, model.adapter(kind), IDS))
    model.remove_adapter("pickled")
    with pytest.raises(NotFound, match="there is no adapter 'pickled'"):
        model.prepare(IDS, adapter="pickled")


# Refused -------------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any], dict[str, Any]], Any]
Q0 = "base_model.model.model.layers.0.self_attn.q_proj"
HOSTILE: dict[str, tuple[Change, str]] = {
    "another kind": (lambda c, t: c.update(peft_type="IA3"), "peft_type is 'IA3'; LoRA alone"),
    "DoRA": (lambda c, t: c.update(use_dora=True), "lacks 'model.layers.0.self_attn.q_proj.lora_magnitude_vector'"),
    "whole modules": (lambda c, t: c.update(modules_to_save=["lm_head"]), "modules_to_save asks for whole modules"),
    "biases": (lambda c, t: c.update(bias="all"), "bias is 'all'"),
    "a changed base": (lambda c, t: c.update(init_lora_weights="pissa_niter_4"), "base that was changed"),
    "one is not True": (lambda c, t: c.update(init_lora_weights=1), "init_lora_weights is 1"),
    "no rank": (lambda c, t: c.update(r="4"), "the rank of .* is '4'; expected 1 to"),
    "a rank below 1": (lambda c, t: c.update(r=0), "is 0; expected 1 to"),
    "an absurd rank": (lambda c, t: c.update(rank_pattern={"q_proj": 10**9}), "is 1000000000; expected 1 to"),
    "another rank": (lambda c, t: c.update(r=5), r"lora_A \[4, 64\].*at rank 5 expected \(5, 64\) and \(64, 5\)"),
    "no alpha": (lambda c, t: c.update(lora_alpha=None), "alpha of .* is None"),
    "alpha without end": (lambda c, t: c.update(lora_alpha=float("inf")), "Infinity|inf"),
    "a slow pattern": (lambda c, t: c.update(alpha_pattern={"(a+)+b": 1}), "too many repetitions"),
    "a long way": (lambda c, t: c.update(rank_pattern={".*.*.*.*x": 1}), "too many repetitions"),
    "a broken pattern": (lambda c, t: c.update(rank_pattern={"(": 1}), r"pattern '\(' is not read"),
    "patterns in a list": (lambda c, t: c.update(alpha_pattern=["q"]), "alpha_pattern is .*; expected an object"),
    "targets of no sort": (lambda c, t: c.update(target_modules={"q": 1}), "expected some names"),
    "a tensor of no use": (lambda c, t: t.update({"extra.weight": torch.zeros(2)}), "holds 'extra.weight', for which"),
    "an untold module": (lambda c, t: c.update(target_modules=["v_proj"]), f"holds '{Q0}.lora_A.weight'.* no use"),
    "magnitudes": (lambda c, t: t.update({f"{Q0}.lora_magnitude_vector": torch.ones(64)}), "magnitude_vector'"),
    "one half": (lambda c, t: t.pop(f"{Q0}.lora_B.weight"), "lacks 'model.layers.0.self_attn.q_proj.lora_B.weight'"),
    "nothing": (lambda c, t: t.clear(), "lacks all tensors|holds no|no tensors"),
    "twice": (lambda c, t: t.update({f"{Q0}.lora_A.x.weight": torch.zeros(4, 64)}), "no use"),
    "integers": (
        lambda c, t: t.update({f"{Q0}.lora_A.weight": torch.ones(4, 64, dtype=torch.int32)}),
        "is I32; expected one of",
    ),
    "no number": (lambda c, t: t[f"{Q0}.lora_B.weight"].fill_(torch.nan), "is not finite"),
    "a layer too many": (
        lambda c, t: t.update({k.replace("layers.0", "layers.7"): v.clone() for k, v in t.items() if ".0." in k}),
        "changes 'model.layers.7.self_attn.q_proj', which is no linear layer",
    ),
    "the head": (
        lambda c, t: (
            c["target_modules"].append("lm_head"),
            t.update({f"base_model.model.lm_head.lora_{h}.weight": t[f"{Q0}.lora_{h}.weight"].clone() for h in "AB"}),
        ),
        "changes 'lm_head', which is no linear layer within the blocks",
    ),
    "a name twice": (
        lambda c, t: t.update({k.replace("model.model.", "model."): v.clone() for k, v in t.items()}),
        "two of its modules are 'model.layers.0.self_attn.q_proj'",
    ),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_what_is_no_plain_lora_of_this_base_is_refused(case: str, models: Any, references: Any, tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    source = models["llama"].adapters["queries and values"]
    config, tensors = json.loads((source / "adapter_config.json").read_text()), {}
    tensors |= load_file(source / "adapter_model.safetensors")
    change, said = HOSTILE[case]
    change(config, tensors)
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    save_file(tensors, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=said):
        models["llama"].add_adapter("hostile", tmp_path)
    assert "hostile" not in models["llama"].adapters


def test_patterns_times_modules_are_bounded(models: Any, references: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from brolly.families import peft

    monkeypatch.setattr(peft, "MOST_MATCHES", 20)  # 3 patterns for 14 modules
    model = models["llama"]
    with pytest.raises(CheckpointError, match="rank_pattern has 3 patterns; expected a few"):
        model.add_adapter("hostile", model.adapters["everything, by patterns"])
    monkeypatch.setattr(peft, "MOST_MATCHES", 0)
    with pytest.raises(CheckpointError, match="target_modules is .*; expected some names"):
        model.add_adapter("hostile", model.adapters["queries and values"])


def test_another_models_adapter_is_told_with_both_shapes(models: Any, references: Any, tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"changes 'transformer.h.0.attn.c_attn', which is no linear layer .*Llama"
    ):
        models["llama"].add_adapter("x", models["gpt2"].adapters["joined queries"])
    checkpoints.write_llama(tmp_path / "wide", hidden_size=96)
    wide = load(tmp_path / "wide", device="cpu", dtype="float32")
    said = r"q_proj' has lora_A \[4, 64\] and lora_B \[64, 4\]; for .*wide.*\(4, 96\) and \(96, 4\)"
    with pytest.raises(CheckpointError, match=said):
        wide.generate("x", adapter=models["llama"].adapters["queries and values"])


def test_what_is_no_folder_of_pefts_is_refused(models: Any, tmp_path: Path, shared: Path) -> None:
    model = models["llama"]
    with pytest.raises(NotFound, match="there is no adapter 'nowhere'"):
        model.generate("x", adapter="nowhere")
    with pytest.raises(NotFound, match="has no adapter_config.json; expected a folder"):
        model.generate("x", adapter=tmp_path)
    for name in ("x" * 4000, "~nobody-of-that-name/x", "\0"):
        with pytest.raises(NotFound, match="there is no adapter"):
            model.generate("x", adapter=name)
        with pytest.raises(NotFound, match="does not exist; expected a folder"):
            model.add_adapter("x", name)
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(NotFound, match="none of adapter_model.safetensors"):
        model.generate("x", adapter=tmp_path)
    picture = shared / "data" / "lora" / "lora_disney.safetensors"
    with pytest.raises(CheckpointError, match="an adapter to Stable Diffusion, which .* A LoRA of a Llama is a folder"):
        model.generate("x", adapter=picture)
    shutil.copy(picture, tmp_path / "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match="holds '<s1>', .*has no use"):
        model.generate("x", adapter=tmp_path)
