"""LoRA's steps against peft and transformers, in float32; and its files, read by both."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from brolly.errors import CheckpointError, OptionError
from brolly.families.peft import peft_name
from brolly.fill import fill_adapter
from brolly.loader import load
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.layout import write_adapter
from brolly.train.tuning.lora import LoraLinear, put_back, put_in, switched_off, take_out
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.verbs import Lora, TuneOptions
from tests.train.tuning.bases import WRITE

KINDS = {
    "LoRA": Lora(rank=4, alpha=6),
    "rsLoRA": Lora(rank=4, alpha=6, rslora=True),
    "DoRA": Lora(rank=3, alpha=6, dora=True),
}
CASES = [
    ("llama", "LoRA"),
    ("llama", "DoRA"),
    ("tied llama", "rsLoRA"),
    ("qwen2", "LoRA"),
    ("gpt2", "rsLoRA"),
    ("gpt2", "DoRA"),
]
IDS = [[5, 17, 260, 3, 99, 41, 7], [7, 120, 300, 8, 9, 10, 11, 12, 13]]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("peft")
    folder = tmp_path_factory.mktemp("bases")
    for name, write in WRITE.items():
        write(folder / name)
    return {name: folder / name for name in WRITE}


def theirs(base: Path, lora: Lora, network: Any, card: Any) -> Any:
    """peft's model of a base, with the first numbers of ours."""
    import peft
    import transformers as T

    layers = {name: m for name, m in network.named_modules() if isinstance(m, LoraLinear)}
    settings = peft.LoraConfig(
        task_type="CAUSAL_LM", r=lora.rank, lora_alpha=lora.alpha, use_rslora=lora.rslora, use_dora=lora.dora,
        target_modules=sorted({name.rpartition(".")[2] for name in layers}), fan_in_fan_out="gpt2" in base.name,
    )  # fmt: skip
    model = peft.get_peft_model(T.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32), settings).train()
    for name, layer in layers.items():
        other = model.get_submodule(f"base_model.model.{peft_name(card, name)}")
        other.lora_A["default"].weight.data.copy_(layer.lora_A.data)
        other.lora_B["default"].weight.data.copy_(layer.lora_B.data)
    return model


def pairs(network: Any, model: Any, card: Any) -> list[tuple[str, Any, Any]]:
    """Each parameter that is learnt, ours and peft's."""
    found = []
    for name, layer in network.named_modules():
        if isinstance(layer, LoraLinear):
            other = model.get_submodule(f"base_model.model.{peft_name(card, name)}")
            found.append((f"{name} A", layer.lora_A, other.lora_A["default"].weight))
            found.append((f"{name} B", layer.lora_B, other.lora_B["default"].weight))
            if layer.magnitude is not None:
                found.append((f"{name} m", layer.magnitude, other.lora_magnitude_vector["default"].weight))
    return found


@pytest.mark.parametrize("base, kind", CASES)
def test_ten_steps_equal_pefts(bases: dict[str, Path], base: str, kind: str) -> None:
    """Loss, every gradient and the weights after ten steps of AdamW; two sequences in a row against a padded batch."""
    student = load(bases[base], device="cpu", dtype="float32", fused=False)
    card, lora = student.card.recognised, KINDS[kind]
    torch.manual_seed(3)
    put_in(student.network, lora)
    for name, parameter in student.network.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.05)  # from zero, A would have no gradient at first
    model = theirs(bases[base], lora, student.network, card)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0  # GPT-2's own, of pre-training
    both = pairs(student.network, model, card)
    objective = NextToken(student, TuneOptions())
    examples = [Tokens(ids, [False, False, *[True] * (len(ids) - 2)]) for ids in IDS]
    width = max(map(len, IDS))
    ids = torch.tensor([one + [0] * (width - len(one)) for one in IDS])
    mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in IDS])
    labels = torch.tensor([[-100, -100, *one[2:], *[-100] * (width - len(one))] for one in IDS])
    mine = torch.optim.AdamW([p for _, p, _ in both], lr=1e-3, weight_decay=0.01)
    other = torch.optim.AdamW([p for _, _, p in both], lr=1e-3, weight_decay=0.01)
    student.network.train()
    for step in range(10):
        loss = objective.backward([examples], sum(map(objective.weight, examples)))
        expected = model(input_ids=ids, attention_mask=mask, labels=labels).loss
        expected.backward()
        assert abs(float(loss) - float(expected)) < 2e-5 * float(expected), step
        for name, p, q in both:
            scale = float(q.grad.abs().max()) + 1e-6
            assert float((p.grad - q.grad).abs().max()) < 1e-3 * scale if step else 2e-4 * scale, (step, name)
        for optimizer in (mine, other):
            optimizer.step()
            optimizer.zero_grad()
    for name, p, q in both:
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-4, msg=name)


@pytest.mark.parametrize("base, kind", CASES)
def test_what_we_write_peft_loads_and_we_too(bases: dict[str, Path], base: str, kind: str, tmp_path: Path) -> None:
    """The same logits from peft, from our hooks, and from layers to be trained further."""
    import peft
    import transformers as T

    student = load(bases[base], device="cpu", dtype="float32", fused=False)
    card = student.card.recognised
    put_in(student.network, KINDS[kind])
    torch.manual_seed(4)
    for name, parameter in student.network.named_parameters():
        if name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.2)
        if name.endswith("magnitude"):
            parameter.data *= 1.1
    ids = torch.tensor([IDS[1]])
    logits = student.network.logits(student.network(ids, torch.arange(9)[None], causal(student)))
    write_adapter(tmp_path / "a", card, "the base", KINDS[kind], student.network, "next-token")
    reference = T.AutoModelForCausalLM.from_pretrained(bases[base], dtype=torch.float32)
    found = peft.PeftModel.from_pretrained(reference, tmp_path / "a").eval()
    assert set(peft.get_peft_model_state_dict(found)) == set(tensors(tmp_path / "a"))
    torch.testing.assert_close(found(ids).logits, logits, rtol=1e-4, atol=1e-4)

    again = load(bases[base], device="cpu", dtype="float32", fused=False)
    lora, _ = put_back(again.network, tmp_path / "a", card, Lora())
    assert (lora.rank, lora.rslora, lora.dora) == (KINDS[kind].rank, KINDS[kind].rslora, KINDS[kind].dora)
    assert lora.scale == pytest.approx(KINDS[kind].scale)
    same = again.network.logits(again.network(ids, torch.arange(9)[None], causal(again)))
    torch.testing.assert_close(same, logits, rtol=1e-5, atol=1e-5)
    take_out(again.network)
    assert fill_adapter(tmp_path / "a", card, again.network).updates


def tensors(folder: Path) -> dict[str, Any]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def causal(model: Any) -> Any:
    from brolly.engine.cache import Causal

    return Causal(model.network.config)


def test_what_peft_writes_is_tuned_further_at_its_own_ranks(bases: dict[str, Path], tmp_path: Path) -> None:
    from tests.engine.test_adapters import write_adapter as write_theirs

    write_theirs(
        bases["llama"], tmp_path / "p", r=3, lora_alpha=5, target_modules=["q_proj", "down_proj"],
        rank_pattern={"q_proj": 7}, alpha_pattern={"down_proj": 11},
    )  # fmt: skip
    student = load(bases["llama"], device="cpu", dtype="float32", fused=False)
    lora, layers = put_back(student.network, tmp_path / "p", student.card.recognised, Lora(dropout=0.25))
    ranks = {name.rpartition(".")[2]: (len(m.lora_A), m.scale, m.dropout) for name, m in layers.items()}
    assert ranks == {"q_proj": (7, 5 / 7, 0.25), "down_proj": (3, 11 / 3, 0.25)}
    write_adapter(tmp_path / "again", student.card.recognised, "b", lora, student.network, "next-token")
    before, after = tensors(tmp_path / "p"), tensors(tmp_path / "again")
    assert before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    settings = json.loads((tmp_path / "again" / "adapter_config.json").read_text())
    assert settings["target_modules"] == ["down_proj", "q_proj"]


def test_layers_are_chosen_by_the_ends_of_their_names(bases: dict[str, Path]) -> None:
    network = load(bases["llama"], device="cpu", dtype="float32", fused=False).network
    assert set(put_in(network, Lora(targets=("mlp.up_proj", "q_proj")))) == {
        f"model.layers.{i}.{name}" for i in range(2) for name in ("mlp.up_proj", "self_attn.q_proj")
    }
    with pytest.raises(OptionError, match=r"no layer's name ends with 'p_proj'; there are .*q_proj"):
        put_in(load(bases["llama"], device="cpu", fused=False).network, Lora(targets=("p_proj",)))


def test_layers_switched_off_give_the_base_alone(bases: dict[str, Path]) -> None:
    student = load(bases["gpt2"], device="cpu", dtype="float32", fused=False)
    ids = torch.tensor([IDS[0]])
    before = student.network(ids, torch.arange(7)[None], causal(student))
    for layer in put_in(student.network, Lora(rank=2)).values():
        torch.nn.init.normal_(layer.lora_B)
    changed = student.network(ids, torch.arange(7)[None], causal(student))
    assert not torch.allclose(before, changed, atol=1e-2)
    with switched_off(student.network):
        assert torch.equal(student.network(ids, torch.arange(7)[None], causal(student)), before)


def test_an_adapter_of_other_numbers_is_refused_by_both_names(bases: dict[str, Path], tmp_path: Path) -> None:
    """Two models of one shape: the shapes fit, and the adapter would only spoil what it writes."""
    from tests.run.checkpoints import write_llama

    student = load(bases["llama"], device="cpu", dtype="float32", fused=False)
    put_in(student.network, Lora(rank=2))
    write_adapter(tmp_path / "a", student.card.recognised, "org/base", Lora(rank=2), student.network, "next-token")
    other = write_llama(tmp_path / "other")
    with torch.no_grad():
        other.model.layers[0].mlp.up_proj.weight.mul_(1.5)
    other.save_pretrained(tmp_path / "other")
    model = load(tmp_path / "other", device="cpu", dtype="float32")
    with pytest.raises(CheckpointError, match=r"was made for 'org/base'.*other"):
        model.generate("fox", adapter=tmp_path / "a")
    model.close()
