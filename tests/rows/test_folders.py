"""Folders: pictures by label, media beside texts, manifests, and shards."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from brolly.errors import RecipeError
from brolly.rows import Captioned, Labelled, Spoken, open_rows


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


def test_a_folder_a_label(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.png", "cat/deep/2.JPG", "dog/3.webp", "dog/notes.txt", "dog/.DS_Store", "empty/a.txt")
    rows = open_rows(tmp_path)
    assert [row.value for row in rows] == [
        Labelled(tmp_path / "cat/1.png", "cat"), Labelled(tmp_path / "cat/deep/2.JPG", "cat"),
        Labelled(tmp_path / "dog/3.webp", "dog"),
    ]  # fmt: skip
    assert "dog/notes.txt" in rows.notes[0] and "'empty/, which holds no picture'" in rows.notes[0]
    before = rows.fingerprint
    (tmp_path / "cat/1.png").write_bytes(b"xy")
    assert open_rows(tmp_path).fingerprint != before


def test_parts_of_a_data_set_are_to_be_named(tmp_path: Path) -> None:
    touch(tmp_path, "train/cat/1.png", "test/cat/2.png")
    with pytest.raises(RecipeError, match="the parts test, train; name one"):
        open_rows(tmp_path)
    assert open_rows(tmp_path / "train")[0].value == Labelled(tmp_path / "train/cat/1.png", "cat")


def test_texts_beside_pictures_and_sounds(tmp_path: Path) -> None:
    touch(tmp_path, "p/a.png", "p/b.jpg", "p/c.png", "p/z.txt", "s/a.flac")
    (tmp_path / "p/a.txt").write_text(" a dog \n")
    (tmp_path / "p/b.txt").write_bytes(b"\xff")
    (tmp_path / "s/a.txt").write_text("hello")
    rows = open_rows(tmp_path / "p")
    assert [row.value for row in rows] == [Captioned(tmp_path / "p/a.png", "a dog")]
    assert [str(f) for f in rows.faults] == ["b.jpg: b.txt is not text in UTF-8", "c.png: has no c.txt beside it"]
    assert rows.notes == ["left out: 'z.txt'"]
    assert open_rows(tmp_path / "s")[0].value == Spoken(tmp_path / "s/a.flac", "hello")
    touch(tmp_path, "bare/a.png")
    with pytest.raises(RecipeError, match="no texts"):
        open_rows(tmp_path / "bare")


@pytest.mark.parametrize("name", ["metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("what", ["text", "label"])
def test_metadata_names_files(tmp_path: Path, name: str, what: str) -> None:
    touch(tmp_path, "in/1.png", "2.png")
    table = [("in/1.png", "x"), ("2.png", "y"), ("3.png", "z"), ("in", "w"), ("https://a.example/1.png", "v")]
    if name.endswith("csv"):
        text = f"file_name,{what}\n" + "".join(f"{a},{b}\n" for a, b in table)
    else:
        text = "".join(json.dumps({"file_name": a, what: b}) + "\n" for a, b in table)
    (tmp_path / name).write_text(text)
    rows = open_rows(tmp_path)
    kind = Captioned if what == "text" else Labelled
    assert [row.value for row in rows] == [kind(tmp_path / "in/1.png", "x"), kind(tmp_path / "2.png", "y")]
    for fault, why in zip(rows.faults, ("is not there", "is no file", "is an address"), strict=True):
        assert why in fault.message


def test_manifests_of_speech(tmp_path: Path) -> None:
    touch(tmp_path, "nemo/a.wav", "lj/wavs/LJ001.wav", "cv/clips/c.mp3")
    absolute = str(tmp_path / "nemo/a.wav")
    lines = [{"audio_filepath": "a.wav", "duration": 1.5, "text": "one"}, {"audio_filepath": absolute, "text": "two"}]
    (tmp_path / "nemo/manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "nemo/train_manifest.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name in ("manifest.jsonl", "train_manifest.json"):
        found = [row.value for row in open_rows(tmp_path / "nemo" / name)]
        assert found == [Spoken(tmp_path / "nemo/a.wav", "one"), Spoken(tmp_path / "nemo/a.wav", "two")]
    (tmp_path / "lj/metadata.csv").write_text('LJ001|"Dr. 5|"Doctor five\nLJ002|a|b\nLJ003|c\n')
    rows = open_rows(tmp_path / "lj")
    assert [row.value for row in rows] == [Spoken(tmp_path / "lj/wavs/LJ001.wav", '"Doctor five')]
    assert [f.where for f in rows.faults] == ["metadata.csv, line 2", "metadata.csv, line 3"]
    (tmp_path / "cv/validated.tsv").write_text('client_id\tpath\tsentence\tlocale\nx\tc.mp3\t"Oh," I said.\ten\n')
    assert open_rows(tmp_path / "cv/validated.tsv")[0].value == Spoken(
        tmp_path / "cv/clips/c.mp3", '"Oh," I said.', "en"
    )


def test_shards_are_one(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"part-{i}.jsonl").write_text(f'{{"text": "{i}a"}}\n{{"text": "{i}b"}}\n' if i != 1 else "{\n")
    (tmp_path / "info.json").write_text("{}")
    rows = open_rows(tmp_path)
    assert len(rows) == 5 and rows[4].where == "part-2.jsonl, line 2"
    assert [row.value.text for row in rows] == ["0a", "0b", "2a", "2b"]  # type: ignore[union-attr]
    assert [fault.where for fault in rows.faults] == ["part-1.jsonl, line 1"]
    (tmp_path / "train.jsonl").write_text('{"text": "x"}\n')
    (tmp_path / "test.jsonl").write_text('{"text": "x"}\n')
    with pytest.raises(RecipeError, match="name one of them"):
        open_rows(tmp_path)
    with pytest.raises(RecipeError, match="holds nothing"):
        open_rows(touch(tmp_path, "none/a.xyz") / "none")


def test_pictures_and_sounds_as_bytes(tmp_path: Path) -> None:
    pa = pytest.importorskip("pyarrow")
    import pyarrow.parquet as pq

    struct = [{"bytes": b"\x89PNG", "path": "1.png"}, {"bytes": None, "path": "gone.png"}]
    pq.write_table(pa.table({"image": struct, "label": ["x", "y"]}), tmp_path / "a.parquet")
    rows = open_rows(tmp_path / "a.parquet")
    assert [row.value for row in rows] == [Labelled(b"\x89PNG", "x")] and "is not there" in rows.faults[0].message
    assert open_rows([{"image": b"\xff\xd8", "text": "x"}])[0].value == Captioned(b"\xff\xd8", "x")
    assert open_rows([{"audio": {"bytes": b"RIFF", "path": None}, "text": "x"}])[0].value == Spoken(b"RIFF", "x")


def test_saved_data_sets_are_read(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", ""], "label": [1, 0, 0]}, features)
    data.save_to_disk(str(tmp_path / "one"))
    rows = open_rows(tmp_path / "one")
    assert [row.value for row in rows] == [Labelled("a", "yes"), Labelled("b", "no")] and rows.n_bad == 1
    datasets.DatasetDict({"train": data, "test": data}).save_to_disk(str(tmp_path / "two"))
    with pytest.raises(RecipeError, match="has the splits train, test; name one"):
        open_rows(tmp_path / "two")
    assert len(open_rows(tmp_path / "two" / "train")) == 3


def test_pictures_of_saved_data_sets_are_bytes(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    pixel = (Path(__file__).parents[2] / "examples" / "pictures" / "dog.png").read_bytes()
    features = datasets.Features({"image": datasets.Image(), "text": datasets.Value("string")})
    data = {"image": [{"bytes": pixel, "path": None}], "text": ["a dog"]}
    datasets.Dataset.from_dict(data, features).save_to_disk(str(tmp_path / "one"))
    assert open_rows(tmp_path / "one")[0].value == Captioned(pixel, "a dog")
