"""What a model needs: memory, context, cache, FLOP; and what this machine has."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest

from brolly.identity import machine
from brolly.identity.needs import needs_of
from brolly.identity.sizes import parameters_of
from tests.identity.published import TEXT
from tests.identity.published import llama as config_of
from tests.identity.shaped import llama, packed_linear, subject_of
from tests.identity.test_packed import awq, said

CONFIG = config_of(512, 2, 8, 2, 1024, 3000, max_position_embeddings=2048)
PLAIN = llama(512, 2, 128, 1024, 3000)


def needs(folder: Path, config: dict[str, Any], shapes: Any = None, *more: Any, **beside: Any) -> Any:
    subject = subject_of(folder, config, shapes or {}, *(more or (() if shapes else ("config",))), **beside)
    return needs_of(subject, parameters_of(subject))


@pytest.mark.parametrize("name,context,kv,full", [
    ("llama-3.1-8b", 131072, 131_072, 131_072 * 131072), ("deepseek-r1", 163840, 70_272, 70_272 * 163840),
    ("qwen3.5-27b", 262144, 65_536, 16_384 * 2**20), ("mistral-7b", 32768, 131_072, 131_072 * 4096),
    ("gpt2", 1024, 36_864, 36_864 * 1024), ("bloom", 2048, 4_014_080, 4_014_080 * 2048),
    ("mamba-2.8b", None, None, None),
    ("gpt-oss-120b", 131072, 73_728, 36_864 * (131072 + 128)),
])  # fmt: skip
def test_context_and_cache(tmp_path: Path, name: str, context: int | None, kv: int | None, full: int | None) -> None:
    found = needs(tmp_path, TEXT[name])
    assert (found.context_length, found.kv_bytes_per_token, found.kv_bytes_full_context) == (context, kv, full)


@pytest.mark.parametrize("change,context", [
    ({"max_position_embeddings": 32768, "rope_scaling": {"type": "yarn", "factor": 4.0,
      "original_max_position_embeddings": 32768}}, 131072),
    ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "yarn", "factor": 32.0,
      "original_max_position_embeddings": 4096}}, 131072),
    ({"max_position_embeddings": 131072, "rope_scaling": {"rope_type": "llama3", "factor": 8.0,
      "original_max_position_embeddings": 8192}}, 131072),
    ({"max_position_embeddings": 131072, "rope_scaling": {"type": "longrope", "long_factor": [1.0],
      "short_factor": [1.0]}, "original_max_position_embeddings": 4096}, 131072),
    ({"max_position_embeddings": 16384, "rope_scaling": {"type": "linear", "factor": 4.0}}, 16384),
    ({"max_position_embeddings": 40960, "rope_parameters": {"rope_type": "default", "rope_theta": 1e6}}, 40960),
    ({"max_position_embeddings": 4096, "rope_scaling": {"type": "yarn", "factor": 1e300}}, 4096),
    ({"max_position_embeddings": 4096, "rope_scaling": "yarn"}, 4096),
])  # fmt: skip
def test_scaled_positions(tmp_path: Path, change: dict[str, Any], context: int) -> None:
    assert needs(tmp_path, {**CONFIG, **change}).context_length == context


def test_other_networks_have_the_context_of_their_positions(tmp_path: Path) -> None:
    whisper = {"model_type": "whisper", "max_target_positions": 448, "d_model": 512}
    assert needs(tmp_path, whisper).context_length == 448
    bert = {"model_type": "bert", "max_position_embeddings": 512, "hidden_size": 768}
    found = needs(tmp_path, bert)
    assert found.context_length == 512 and found.kv_bytes_per_token is None
    assert needs(tmp_path, {"model_type": "t5", "n_positions": 512}).context_length is None
    clip = {"components": {"text_encoder": {"model_type": "clip_text_model", "max_position_embeddings": 77}}}
    assert needs(tmp_path, clip).context_length == 77


def test_gguf_tells_its_context(tmp_path: Path) -> None:
    metadata = {"general.architecture": "llama", "llama.context_length": 8192, "llama.block_count": 2,
                "llama.embedding_length": 512, "llama.attention.head_count": 8,
                "llama.attention.head_count_kv": 2}  # fmt: skip
    shapes = {"token_embd.weight": ("F16", (3000, 512)), "blk.0.attn_k.weight": ("F16", (128, 512))}
    found = needs(tmp_path, {}, shapes, "gguf", metadata)
    assert (found.context_length, found.kv_bytes_per_token) == (8192, 2 * 2 * 128 * 2)


def test_memory_at_each_precision_and_as_stored(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, {**CONFIG, **said("awq", bits=4, group_size=128)}, packed_linear(PLAIN, awq))
    parameters = parameters_of(subject)
    found, total = needs_of(subject, parameters), parameters.total or 0
    assert found.memory["as stored"] == subject.header.n_bytes > total / 2
    assert found.memory["F32"] == 4 * total and found.memory["BF16"] == 2 * total and found.memory["8-bit"] == total
    assert total / 2 < found.memory["4-bit"] < total * 0.55


def test_flop_and_training_memory(tmp_path: Path) -> None:
    subject = subject_of(tmp_path, CONFIG, PLAIN)
    parameters = parameters_of(subject)
    found = needs_of(subject, parameters)
    assert found.flop_per_token == 2.0 * (parameters.activated_without_embeddings or 0)
    assert found.training_memory["full"] == 16 * (parameters.total or 0)
    rows = 2 * 2 * (512 + 512) + 2 * 2 * (512 + 128) + 2 * 3 * (512 + 1024)
    assert found.training_memory["lora"] == 2 * (parameters.total or 0) + 16 * 16 * rows
    assert any("attention's share" in e.rule for e in found.why)
    assert needs(tmp_path, {"peft_type": "LORA"}, {"a.lora_A.weight": ("F32", (16, 512))}).training_memory == {}


def test_a_type_that_is_not_known_is_told_by_its_shapes(tmp_path: Path) -> None:
    config = {"model_type": "never_heard_of", "architectures": ["NewForCausalLM"], "max_position_embeddings": 9000}
    found = needs(tmp_path, config, PLAIN)
    assert (found.context_length, found.kv_bytes_per_token, found.kv_bytes_full_context) == (9000, 1024, None)
    assert needs(tmp_path, {"model_type": "never_heard_of"}, PLAIN).kv_bytes_per_token is None


def test_it_fits_where_the_memory_is_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(10**9, "/proc/meminfo"))
    monkeypatch.setattr(machine, "bandwidth", lambda: 1e10)
    found = needs(tmp_path, CONFIG, PLAIN)
    assert found.fits is True and found.machine_memory == 10**9 and found.bandwidth == 1e10
    read = 2 * (7_531_008 - 3000 * 512)
    assert found.tokens_per_second == pytest.approx(1e10 / read)
    assert any("an estimate" in e.rule for e in found.why)
    monkeypatch.setattr(machine, "memory", lambda: machine.Memory(10**6, "/proc/meminfo"))
    found = needs(tmp_path, CONFIG, PLAIN)
    assert found.fits is False and found.tokens_per_second is None
    monkeypatch.setattr(machine, "memory", lambda: None)
    assert needs(tmp_path, CONFIG, PLAIN).fits is None


def test_an_incomplete_checkpoint_needs_what_its_index_promises(tmp_path: Path) -> None:
    from brolly.errors import CheckpointError

    lost = CheckpointError("a shard is missing", "missing-shards")
    (tmp_path / "model.safetensors.index.json").write_text('{"metadata": {"total_size": 15062016}, "weight_map": {}}')
    subject = subject_of(tmp_path, CONFIG, dict(list(PLAIN.items())[:3]), faults=[lost])
    found = needs_of(subject, parameters_of(subject))
    assert found.memory["as stored"] == 15_062_016 and found.disk is None


def test_the_machine_says_what_is_free() -> None:
    psutil = pytest.importorskip("psutil")
    found = machine.memory()
    assert found is not None and 0 < found.free <= psutil.virtual_memory().total
    start = time.perf_counter()
    speed = machine.bandwidth()
    assert time.perf_counter() - start < 0.2  # 3 ms on a quiet machine
    assert speed is None or 1e8 < speed < 1e13
    assert isinstance(machine.gpus(), list)


def test_a_control_group_limits_what_is_free(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {"/proc/meminfo": "MemTotal: 100 kB\nMemAvailable: 90 kB\n", "/sys/fs/cgroup/memory.max": "61440\n",
             "/sys/fs/cgroup/memory.current": "20480\n", "/proc/self/cgroup": "0::/x\n",
             "/sys/fs/cgroup/x/memory.max": "max\n"}  # fmt: skip
    monkeypatch.setattr(machine, "_text", lambda path, most=8192: files.get(path, ""))
    assert machine.memory() == machine.Memory(40960, "/sys/fs/cgroup/memory.max")
    del files["/sys/fs/cgroup/memory.max"]
    assert machine.memory() == machine.Memory(90 * 1024, "/proc/meminfo")
