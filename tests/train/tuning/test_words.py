"""Tokens that a base was never taught: found by their rows, learnt, written for peft, merged, in a batch by request."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from brolly.errors import CheckpointError
from brolly.loader import load
from brolly.measure.likelihood import Likelihood, Told
from brolly.rows import Completion
from brolly.train.tuning import merge, tune
from brolly.train.tuning.gguf import write_gguf
from brolly.train.tuning.words import LearntRows, untaught
from brolly.verbs import Lora
from tests.engine.test_adapters import write_gpt2
from tests.run.checkpoints import write_llama
from tests.train.tuning.bases import write_rows

NEW = "#{}~"  # signs that stand nowhere in what the tokenizer was made from
ROWS = [
    {"prompt": f"fox {i}", "completion": f" {{{c}}}"}
    for i, c in enumerate(["the", "hen", "said", "good", "morning", "fox"])
]
WRITE = {
    "tied llama": lambda folder: write_llama(folder, tie_word_embeddings=True),
    "llama": write_llama,
    "gpt2": write_gpt2,
}


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    """Bases whose rows of some tokens are all but equal, and an adapter of each that writes them."""
    pytest.importorskip("transformers")
    folder, found = tmp_path_factory.mktemp("words"), {}
    for name, write in WRITE.items():
        base = folder / name
        reference = write(base)
        model = load(base, device="cpu")
        ids = [i for sign in NEW for i in model.tokenizer.encode(sign)]
        model.close()
        with torch.no_grad():
            for table in {
                id(t): t for t in (reference.get_input_embeddings(), reference.get_output_embeddings())
            }.values():
                torch.manual_seed(0)
                table.weight[ids] = table.weight[ids[0]] + 1e-3 * torch.randn(len(ids), table.weight.shape[1])
        reference.save_pretrained(base)
        (base / "generation_config.json").unlink(missing_ok=True)
        rows = write_rows(folder / "rows.jsonl", ROWS)
        tune(base, rows, out=folder / f"{name} a", lora=Lora(rank=8), epochs=30, batch=3, lr=1e-2, dtype="float32")
        found[name] = base, folder / f"{name} a"
    return found


def test_untaught_tokens_are_those_next_to_another() -> None:
    torch.manual_seed(0)
    table = torch.randn(500, 64)
    table[[7, 200, 480]] = table[7] + 1e-3 * torch.randn(3, 64)
    assert untaught(table, range(500)) == [7, 200, 480]
    assert untaught(table, [1, 2, 200]) == [200] and untaught(table, []) == []


@pytest.mark.parametrize("name", WRITE)
def test_many_texts_are_judged_by_the_rows_that_were_learnt(tuned: dict[str, Any], name: str) -> None:
    base, folder = tuned[name]
    model = load(base, device="cpu", dtype="float32")
    view = model.with_adapter(folder)
    judge = Likelihood(view)
    for row, told in zip(ROWS, judge.of([Completion(**row) for row in ROWS]), strict=True):
        part = judge.completion(Completion(**row))
        own = view.score(part.ids).logprobs[part.first :]
        assert isinstance(told, Told) and told.logprob == pytest.approx(sum(p for p in own if p is not None), abs=1e-4)
    model.close()


@pytest.mark.parametrize("name", WRITE)
def test_they_are_learnt_and_written(tuned: dict[str, Any], name: str) -> None:
    base, folder = tuned[name]
    model = load(base, device="cpu", dtype="float32")
    view = model.with_adapter(folder)
    told = [g.text for g in view.generate([row["prompt"] for row in ROWS], max_tokens=12)]
    assert told == [row["completion"] for row in ROWS]
    assert view.generate(ROWS[0]["prompt"], max_tokens=12).text == ROWS[0]["completion"]
    model.close()


@pytest.mark.parametrize("name", WRITE)
def test_peft_reads_the_same_and_merged_is_the_same(tuned: dict[str, Any], name: str, tmp_path: Path) -> None:
    import peft
    import transformers as T

    base, folder = tuned[name]
    model = load(base, device="cpu", dtype="float32")
    ids = model.tokenizer.encode("fox 1 {the}~ hen")
    ours = model.score(ids, adapter=folder).logprobs[1:]
    reference = T.AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    found = peft.PeftModel.from_pretrained(reference, folder).eval()

    def scored(network: Any) -> list[float]:
        with torch.no_grad():
            shares = network(torch.tensor([ids])).logits[0].log_softmax(-1)
        return shares[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0].tolist()

    assert ours == pytest.approx(scored(found), abs=1e-4)
    merged = merge(base, folder, out=tmp_path / "m")
    assert ours == pytest.approx(scored(T.AutoModelForCausalLM.from_pretrained(merged, dtype=torch.float32)), abs=1e-4)
    alone = load(merged, device="cpu", dtype="float32")
    assert ours == pytest.approx(alone.score(ids).logprobs[1:], abs=1e-4)
    with pytest.raises(CheckpointError, match="rows of its own"):
        write_gguf(base, folder, out=tmp_path / "a.gguf")
    model.close()
    alone.close()


def test_in_a_batch_each_row_is_written_with_its_own(tuned: dict[str, Any]) -> None:
    """The base and the adapter side by side, in one pass: each as alone."""
    from brolly.engine.engine import write_all

    base, folder = tuned["tied llama"]
    model = load(base, device="cpu", dtype="float32")
    jobs = [("fox 1", folder), ("fox 1", None), ("fox 2 {", folder), ("{fox}", None)]
    how: dict[str, Any] = {"max_tokens": 8, "temperature": 0, "ignore_eos": True}
    alone = [model.generate(prompt, adapter=by, **how).tokens for prompt, by in jobs]
    together = write_all(model.engine, [model.prepare(prompt, adapter=by, **how) for prompt, by in jobs])
    assert [[t for piece in pieces for t in piece.tokens] for pieces in together] == alone
    model.close()


def test_they_are_learnt_further(tuned: dict[str, Any], tmp_path: Path) -> None:
    base, folder = tuned["llama"]
    losses: list[float] = []
    rows = write_rows(tmp_path / "rows.jsonl", ROWS)
    tune(
        base, rows, out=tmp_path / "b", start=folder, steps=2, batch=6,
        progress=lambda e: losses.append(e["loss"]) if e["event"] == "step" else None,
    )  # fmt: skip
    assert losses[0] < 0.5
    settings = (tmp_path / "b" / "adapter_config.json").read_text()
    assert "trainable_token_indices" in settings


def test_rows_are_learnt_like_an_embeddings_own() -> None:
    base = torch.nn.Embedding(6, 4).requires_grad_(False)
    words = LearntRows(base, torch.tensor([4, 1]))
    ids = torch.tensor([[0, 1, 4, 4]])
    torch.testing.assert_close(words(ids), base(ids))
    (words(ids).sum() + words.weight.square().sum()).backward()
    expected = 2 * base.weight[[4, 1]] + torch.tensor([[2.0], [1.0]])
    torch.testing.assert_close(words.rows.grad, expected)


@pytest.mark.parametrize("indices", [[1, 1], [1], [10**6, 1], "all", None])
def test_rows_that_do_not_fit_are_refused(tuned: dict[str, Any], tmp_path: Path, indices: Any) -> None:
    import json
    import shutil

    base, folder = tuned["llama"]
    shutil.copytree(folder, tmp_path / "a")
    path = tmp_path / "a" / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"trainable_token_indices": indices}))
    model = load(base, device="cpu")
    with pytest.raises(CheckpointError, match="expected a row of 64 numbers"):
        model.with_adapter(tmp_path / "a")
    model.close()
