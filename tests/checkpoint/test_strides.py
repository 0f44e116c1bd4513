"""Views in .pt files: transposed, sliced, repeated and tied tensors, and those that reach where they may not."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from brolly.checkpoint import Mapped, read_header
from brolly.errors import CheckpointError, UnsafeCheckpoint
from tests.checkpoint.files import assert_same, numbers, read_all
from tests.checkpoint.pickles import torch_zip

WHOLE = numbers(6, 8)
VIEWS = {
    "transposed": WHOLE.t(),
    "rows": WHOLE[2:4],
    "columns": WHOLE[:, 3:5],
    "every other": WHOLE[::2, 1::3],
    "corner": WHOLE[5, 7],
    "last row": WHOLE[5:],
    "repeated": numbers(3, 1, seed=1).expand(3, 4),
    "one repeated": torch.tensor(2.5).expand(2, 2, 2),
    "permuted": numbers(2, 3, 4).permute(2, 0, 1),
    "none of it": WHOLE[:0],
    "none from its end": WHOLE[6:],
}


@pytest.mark.parametrize("legacy", [False, True])
def test_views_come_back(tmp_path: Path, legacy: bool) -> None:
    torch.save(VIEWS, tmp_path / "v.pt", _use_new_zipfile_serialization=not legacy)
    header = read_header(tmp_path / "v.pt")
    assert_same(read_all(header), VIEWS)
    assert header.tensors["rows"].strides is None, "a contiguous slice needs no strides"
    assert header.tensors["transposed"].strides == (1, 8)


@pytest.mark.parametrize("legacy", [False, True])
def test_tied_tensors_lie_in_the_same_bytes(tmp_path: Path, legacy: bool) -> None:
    tied = {"embed": WHOLE, "head": WHOLE, "part": WHOLE[1:]}
    torch.save(tied, tmp_path / "t.pt", _use_new_zipfile_serialization=not legacy)
    header = read_header(tmp_path / "t.pt")
    assert_same(read_all(header), tied)
    places = {name: (info.offset, info.nbytes) for name, info in header.tensors.items()}
    assert places["embed"] == places["head"]
    assert places["part"] == (places["embed"][0] + 32, places["embed"][1] - 32)
    assert (tmp_path / "t.pt").stat().st_size < 2 * WHOLE.nbytes + 2000, "the storage was written once"


def test_a_writable_buffer_never_changes_the_file(tmp_path: Path) -> None:
    torch.save({"w": WHOLE}, tmp_path / "w.pt")
    before = (tmp_path / "w.pt").read_bytes()
    header = read_header(tmp_path / "w.pt")
    with Mapped(header) as mapped:
        buffer = mapped.buffer(header.tensors["w"])
        buffer[:] = bytes(len(buffer))
    assert bytes(buffer) == bytes(WHOLE.nbytes), "a buffer outlives what it came from"
    assert (tmp_path / "w.pt").read_bytes() == before


def test_a_file_that_shrank_after_its_header_was_read_is_named(tmp_path: Path) -> None:
    torch.save({"w": WHOLE}, tmp_path / "w.pt")
    header = read_header(tmp_path / "w.pt")
    for n_bytes in (header.tensors["w"].offset + 4, 0):
        with open(tmp_path / "w.pt", "r+b") as file:
            file.truncate(n_bytes)
        with Mapped(header) as mapped, pytest.raises(CheckpointError, match=r"w\.pt became"):
            mapped.buffer(header.tensors["w"])


@pytest.mark.parametrize("word", ["neg", "conj"])
def test_a_tensor_whose_negation_was_put_off_is_refused(tmp_path: Path, word: str) -> None:
    conjugate = torch.conj(numbers(4, dtype=torch.complex64))
    torch.save({"w": conjugate if word == "conj" else torch.imag(conjugate)}, tmp_path / "n.pt")
    with pytest.raises(CheckpointError, match=r"n\.pt: a tensor awaits"):
        read_header(tmp_path / "n.pt")


@pytest.mark.parametrize(
    "start, shape, strides, error",
    [
        (0, (4,), (1,), None),
        (3, (1,), (9,), None),  # one element has no second to step to
        (0, (4,), (0,), None),
        (0, (5,), (1,), CheckpointError),
        (1, (4,), (1,), CheckpointError),
        (4, (1,), (1,), CheckpointError),
        (0, (2, 2), (3, 1), CheckpointError),
        (0, (2,), (2**40,), CheckpointError),
        (-1, (1,), (1,), CheckpointError),
        (0, (2,), (-1,), CheckpointError),
        (0, (-1,), (1,), CheckpointError),
        (0, (2, 2), (1,), CheckpointError),
        (0, (True,), (1,), CheckpointError),
        (0, (1.0,), (1,), CheckpointError),
        (2**62, (1,), (1,), CheckpointError),
        (0, (2**47,), (0,), UnsafeCheckpoint),  # five hundred terabytes out of four numbers
        (0, (1,) * 17, (1,) * 17, CheckpointError),
    ],
)
def test_no_view_reaches_beyond_its_storage(
    tmp_path: Path, start: int, shape: tuple, strides: tuple, error: type[Exception] | None
) -> None:
    path = torch_zip(tmp_path / "v.pt", start, shape, strides)
    if error is None:
        assert read_all(read_header(path))["w"].shape == shape
        return
    with pytest.raises(error, match=r"v\.pt") as caught:
        read_header(path)
    assert type(caught.value) in (error, UnsafeCheckpoint)
