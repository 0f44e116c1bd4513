"""A base in 4 bits: LoRA beside it as peft has it over bitsandbytes' numbers; its files, read by both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import brolly
from brolly.cli import main
from brolly.engine.cache import Causal
from brolly.errors import OptionError
from brolly.layers.quantized import NF4Linear
from brolly.loader import load
from brolly.train.tuning import merge, tune
from brolly.train.tuning.examples import Tokens
from brolly.train.tuning.four_bits import load_packed
from brolly.train.tuning.lora import put_in
from brolly.train.tuning.merge import rounding
from brolly.train.tuning.objectives.next_token import NextToken
from brolly.train.tuning.quick import quicken
from brolly.verbs import Lora, TuneOptions
from tests.train.tuning.bases import WRITE, facts, write_rows
from tests.train.tuning.test_lora import IDS, pairs, theirs
from tests.train.tuning.test_recompute import KINDS

# bitsandbytes' layers on a CPU repack weights wrongly whose rows are no whole runs of 64: 128, not 96
BASES = {"llama": lambda folder: WRITE["llama"](folder, intermediate_size=128), "gpt2": WRITE["gpt2"]}


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("bases")
    for name in BASES:
        BASES[name](folder / name)
    return {name: folder / name for name in BASES}


@pytest.fixture(scope="module")
def packed(bases: dict[str, Path]) -> dict[str, Path]:
    """The same bases in bitsandbytes' files, as we write them."""
    return {name: merge(base, out=base.with_name(f"{name} in 4 bits"), bits=4) for name, base in bases.items()}


def logits(model: Any) -> torch.Tensor:
    ids = torch.tensor([IDS[1]])
    with torch.no_grad():
        found: torch.Tensor = model.network.logits(
            model.network(ids, torch.arange(ids.shape[1])[None], Causal(model.network.config))
        )
    return found.detach()


def in_bits(network: Any) -> int:
    return sum(isinstance(m, NF4Linear) for m in network.modules())


@pytest.mark.parametrize("name", BASES)
def test_a_packed_file_is_what_bitsandbytes_makes_and_transformers_loads(
    bases: dict[str, Path], packed: dict[str, Path], name: str
) -> None:
    """Its numbers in transformers, those that transformers packs itself, and ours: all equal."""
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed")
    import transformers as T

    ours = load(packed[name], device="cpu", dtype="float32", fused=False)
    assert in_bits(ours.network) == in_bits(load_packed(bases[name], device="cpu").network) > 7
    expected = logits(ours)
    torch.testing.assert_close(logits(load_packed(bases[name], device="cpu")), expected)
    asked = T.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    for folder, given in ((packed[name], {}), (bases[name], {"quantization_config": asked})):
        network = T.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, **given)
        network = network.dequantize().float().eval()  # its own product on a CPU rounds magnitudes to bfloat16
        with torch.no_grad():
            found = network(torch.tensor([IDS[1]])).logits
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=2e-3)


@pytest.mark.parametrize("name", BASES)
def test_steps_beside_4_bits_equal_pefts_over_the_same_numbers(
    bases: dict[str, Path], packed: dict[str, Path], name: str, tmp_path: Path
) -> None:
    """Losses, gradients and weights of five steps; peft's base is the packed one unpacked."""
    pytest.importorskip("peft")
    whole = merge(packed[name], out=tmp_path / bases[name].name, dtype="float32")
    student = load_packed(bases[name], device="cpu", dtype="float32")
    lora, card = Lora(rank=4, alpha=6), student.card.recognised
    put_in(student.network, lora)
    for parameter_name, parameter in student.network.named_parameters():
        if parameter_name.endswith("lora_B"):
            torch.nn.init.normal_(parameter, std=0.05)
    model = theirs(whole, lora, student.network, card)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    both = pairs(student.network, model, card)
    assert len(both) == 2 * in_bits(student.network)
    objective = NextToken(student, TuneOptions())
    example = Tokens(IDS[1], [False, *[True] * (len(IDS[1]) - 1)])
    ids = torch.tensor([IDS[1]])
    mine = torch.optim.AdamW([p for _, p, _ in both], lr=1e-3)
    other = torch.optim.AdamW([p for _, _, p in both], lr=1e-3)
    for _ in range(5):
        loss = objective.backward([[example]], objective.weight(example))
        expected = model(input_ids=ids, labels=ids).loss
        expected.backward()
        assert abs(loss.item() - expected.item()) < 2e-5 * expected.item()
        for told, p, q in both:
            assert float((p.grad - q.grad).abs().max()) < 1e-3 * float(q.grad.abs().max()) + 1e-6, told
        for optimizer in (mine, other):
            optimizer.step()
            optimizer.zero_grad()
    for told, p, q in both:
        torch.testing.assert_close(p, q, rtol=1e-3, atol=2e-4, msg=told)


def test_quick_blocks_take_a_base_in_4_bits(bases: dict[str, Path]) -> None:
    found = []
    for quick in (False, True):
        student = load_packed(bases["llama"], device="cpu", dtype="float32")
        torch.manual_seed(1)
        put_in(student.network, Lora(rank=4))
        for name, parameter in student.network.named_parameters():
            if name.endswith("lora_B"):
                torch.nn.init.normal_(parameter, std=0.05)
        if quick:
            assert quicken(student.network).startswith("blocks by hand")
        objective = NextToken(student, TuneOptions())
        examples = [Tokens(ids, [False, *[True] * (len(ids) - 1)]) for ids in IDS]
        loss = objective.backward([examples], sum(map(objective.weight, examples)))
        found.append((loss, [p.grad for p in student.network.parameters() if p.requires_grad]))
    torch.testing.assert_close(*[f[0] for f in found])
    torch.testing.assert_close(*[f[1] for f in found], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", BASES)
def test_an_adapter_learnt_beside_4_bits_serves_packed_and_whole(
    bases: dict[str, Path], packed: dict[str, Path], name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By either way of having the base in 4 bits; merged, it goes into whole numbers unless asked."""
    data = write_rows(tmp_path / "d.jsonl", facts(6))
    how: dict[str, Any] = {"steps": 60, "batch": 3, "lr": 1e-2, "dtype": "float32", "held_out": 0}
    out = tune(bases[name], data, out=tmp_path / "a", lora=Lora(rank=8, bits=4), **how).path
    other = tune(packed[name], data, out=tmp_path / "b", lora=Lora(rank=8), **how).path
    first, second = (torch.cat([t.flatten() for t in tensors(path).values()]) for path in (out, other))
    torch.testing.assert_close(first, second)
    prompts, wanted = [row["prompt"] for row in facts(6)], [row["completion"] for row in facts(6)]
    for base in (bases[name], packed[name]):
        model = brolly.load(base, device="cpu", dtype="float32")
        told = [g.text for g in model.with_adapter(out).generate(prompts, max_tokens=20)]
        assert sum(a == b for a, b in zip(told, wanted, strict=True)) >= 5
        model.close()
    assert main(["merge", str(bases[name]), str(out), "-o", str(tmp_path / "m")]) == 0
    assert "learnt beside a base in 4 bits" in capsys.readouterr().err
    assert in_bits(load(tmp_path / "m").network) == 0
    assert main(["merge", str(packed[name]), str(out), "-o", str(tmp_path / "n"), "--bits", "4"]) == 0
    again = load(tmp_path / "n", device="cpu", dtype="float32", fused=False)
    assert in_bits(again.network) and "packed to 4 bits" in rounding(tmp_path / "n")
    apart = (logits(again) - logits(load(tmp_path / "m", device="cpu", dtype="float32"))).abs().mean()
    assert 0 < float(apart) < 2.0


@pytest.mark.parametrize("kind", ["whisper", "clip", "bert"])
def test_blocks_of_every_kind_may_be_in_4_bits(kind: str, tmp_path: Path) -> None:
    """The loss of a network of the same numbers unpacked, and gradients for every LoRA, with DoRA's lengths."""
    write, ask = KINDS[kind]
    write(tmp_path)
    model = load_packed(tmp_path, device="cpu", dtype="float32")
    put_in(model.network, Lora(rank=2, dora=True))
    torch.manual_seed(0)
    loss = ask(model)()
    loss.backward()
    learnt = [p for name, p in model.network.named_parameters() if name.endswith("lora_B")]
    assert in_bits(model.network) > 5 and all(p.grad is not None and p.grad.abs().sum() > 0 for p in learnt)
    torch.manual_seed(0)
    whole = load(tmp_path, device="cpu", dtype="float32", fused=False)
    for name, layer in model.network.named_modules():
        if isinstance(layer, NF4Linear):
            whole.network.get_parameter(f"{name.removesuffix('.base')}.weight").data = layer.weight
    torch.testing.assert_close(ask(whole)(), loss.detach(), rtol=1e-4, atol=1e-5)


def test_a_run_beside_4_bits_is_gone_on_with_bit_for_bit(bases: dict[str, Path], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", facts(6))
    how: dict[str, Any] = {"steps": 5, "batch": 3, "held_out": 0, "save_every": 2, "lora": Lora(rank=2, bits=4)}
    straight = tune(bases["llama"], data, out=tmp_path / "a", **how).path

    def stop(event: dict[str, Any]) -> None:
        if event["event"] == "step" and event["step"] == 4:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        tune(bases["llama"], data, out=tmp_path / "b", progress=stop, **how)
    again = tune(bases["llama"], data, out=tmp_path / "b", resume=True, **how).path
    for name, tensor in tensors(straight).items():
        assert torch.equal(tensor, tensors(again)[name]), name


def tensors(folder: Path) -> dict[str, torch.Tensor]:
    from safetensors.torch import load_file

    return load_file(folder / "adapter_model.safetensors")


def test_whole_tuning_of_4_bits_is_refused(packed: dict[str, Path], tmp_path: Path) -> None:
    data = write_rows(tmp_path / "d.jsonl", facts(6))
    with pytest.raises(OptionError, match="is in 4 bits, which a LoRA can be learnt beside"):
        tune(packed["llama"], data, out=tmp_path / "a", lora=None)
