"""Embedding, classifying and searching: equal to transformers, in order, and unmoved by what goes wrong on the way."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import struct
import termios
import warnings
from collections.abc import Iterator
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from brolly import load
from brolly.cli import main
from brolly.errors import ContextTooLong, DiskFull, MediaError, OptionError, TokenizerError, UnsupportedTask
from brolly.model import Model
from brolly.tasks.embed import embed, gather, similarities
from brolly.verbs import EmbedOptions
from tests.run.seeing import CONTEXT, photo, write_clip, write_photos, write_tokenizer
from tests.run.terminal import Terminal

np = pytest.importorskip("numpy")
pytest.importorskip("PIL")
LABELS = ["red", "green", "blue"]
CPU = ["--device", "cpu", "--dtype", "float32"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def model(folder: Path) -> Model:
    return load(folder, device="cpu")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_photos(tmp_path / "photos", 12)
    return tmp_path / "photos"


def program(capsys: Any, *args: str | Path, code: int = 0) -> tuple[str, str]:
    """What a command prints, on both outputs."""
    assert main([str(arg) for arg in (args[0], *CPU, *args[1:])]) == code, capsys.readouterr().err
    out, err = capsys.readouterr()
    return out, err


def told(capsys: Any, *args: str | Path, code: int = 0) -> Any:
    return json.loads(program(capsys, *args, "--json", code=code)[0])


# Equal to transformers ------------------------------------------------------------------------------------------------


def test_vectors_and_probabilities_equal_transformers(tmp_path: Path, shared: Path) -> None:
    """A random CLIP from files to numbers: tokenizer, preparation, both towers, softmax."""
    T = pytest.importorskip("transformers")
    vocabulary = write_tokenizer(tmp_path)
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    text = tower | dict(vocab_size=len(vocabulary), max_position_embeddings=32, eos_token_id=1, bos_token_id=0)
    torch.manual_seed(0)
    config = T.CLIPConfig(text_config=text, vision_config=tower | dict(image_size=48, patch_size=16), projection_dim=24)
    theirs = T.CLIPModel(config).eval()
    theirs.save_pretrained(tmp_path)
    seen = T.CLIPImageProcessorPil(size={"shortest_edge": 48}, crop_size={"height": 48, "width": 48})
    seen.save_pretrained(tmp_path)
    ours = load(tmp_path, device="cpu")

    paths = [shared / "data" / "images" / name for name in ("dog.jpg", "truck.jpg", "CLIP.png")]
    labels = ["a dog", "a truck beside a red wall", "日本語", "x"]
    reader = T.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<|endoftext|>")
    from PIL import Image

    texts = reader([f"a photo of a {label}." for label in labels], padding=True, return_tensors="pt")
    pixels = seen([Image.open(path).convert("RGBA") for path in paths], return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(input_ids=texts.input_ids, **pixels)  # padded with the end: its first place counts
    found = ours.embed([*paths, *(f"a photo of a {label}." for label in labels)])
    assert found.kinds == ("image",) * 3 + ("text",) * 4 and found.vectors.dtype == np.float32
    both = np.concatenate([expected.image_embeds.numpy(), expected.text_embeds.numpy()])
    assert np.abs(found.vectors - both).max() < 1e-5
    shares = expected.logits_per_image.softmax(-1)
    for row, result in zip(shares, ours.classify(paths, labels), strict=True):
        order = row.argsort(descending=True).tolist()
        assert result.labels == tuple(labels[i] for i in order)
        assert np.abs(np.array(result.probabilities) - row[order].numpy()).max() < 1e-5


def test_siglip_fills_texts_up_and_judges_each_label_by_itself(tmp_path: Path) -> None:
    T = pytest.importorskip("transformers")
    vocabulary = write_tokenizer(tmp_path)
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    text = tower | dict(vocab_size=len(vocabulary), max_position_embeddings=24, projection_size=32)
    torch.manual_seed(0)
    config = T.SiglipConfig(text_config=text, vision_config=tower | dict(image_size=32, patch_size=16))
    theirs = T.SiglipModel(config).eval()
    theirs.save_pretrained(tmp_path)
    T.SiglipImageProcessorPil(size={"height": 32, "width": 32}).save_pretrained(tmp_path)
    ours = load(tmp_path, device="cpu")
    reader = T.PreTrainedTokenizerFast(tokenizer_file=str(tmp_path / "tokenizer.json"), pad_token="<|endoftext|>")
    texts = [f"This is a photo of {label}" for label in LABELS]  # its tokenizer leaves punctuation out
    ids = reader(texts, padding="max_length", max_length=24, return_tensors="pt").input_ids
    pixels = T.SiglipImageProcessorPil(size={"height": 32, "width": 32})(photo("red"), return_tensors="pt")
    with torch.inference_mode():
        expected = theirs(input_ids=ids, **pixels)
    assert np.abs(ours.embed(texts).vectors - expected.text_embeds.numpy()).max() < 1e-5
    result = ours.classify(photo("red"), LABELS)
    shares = dict(zip(LABELS, expected.logits_per_image.sigmoid()[0].tolist(), strict=True))
    assert result.probabilities == pytest.approx([shares[label] for label in result.labels], abs=1e-5)


def test_pictures_of_any_shape_equal_siglip_2s(tmp_path: Path) -> None:
    """NaFlex from files to vectors: each picture has as many patches as its shape asks for, and no padding."""
    T = pytest.importorskip("transformers")
    write_tokenizer(tmp_path)
    tower = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    text = tower | dict(vocab_size=300, max_position_embeddings=24, projection_size=32)
    torch.manual_seed(0)
    config = T.Siglip2Config(text_config=text, vision_config=tower | dict(num_patches=16, patch_size=8))
    theirs = T.Siglip2Model(config).eval()
    theirs.save_pretrained(tmp_path)
    seen = T.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=16)
    seen.save_pretrained(tmp_path)
    pictures = [photo("red", 60, 20), photo("green", 31, 90, 1), photo("blue", 40, 40, 2), photo("red", 300, 10, 3)]
    with torch.inference_mode():
        expected = theirs.get_image_features(**seen(pictures, return_tensors="pt")).pooler_output
    expected = torch.nn.functional.normalize(expected, dim=-1).numpy()
    assert np.abs(load(tmp_path, device="cpu").embed(pictures).vectors - expected).max() < 1e-5


def test_a_network_with_a_classifier_tells_its_own_labels(tmp_path: Path) -> None:
    T = pytest.importorskip("transformers")
    sizes = dict(hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=4, image_size=28)
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "truck", 3: "owl"}
    theirs = T.Dinov2ForImageClassification(
        T.Dinov2Config(**sizes, patch_size=14, id2label=names, label2id={n: i for i, n in names.items()})
    ).eval()
    theirs.save_pretrained(tmp_path)
    seen = T.BitImageProcessorPil(size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28})
    seen.save_pretrained(tmp_path)
    ours = load(tmp_path, device="cpu")
    pixels = seen(photo("green"), return_tensors="pt")
    with torch.inference_mode():
        shares = theirs(**pixels).logits.softmax(-1)[0]
        vector = theirs.dinov2(**pixels).pooler_output[0].numpy()
    result = ours.classify(photo("green"), top=2)
    assert result.labels == tuple(names[i] for i in shares.argsort(descending=True)[:2].tolist())
    assert result.probabilities == pytest.approx(sorted(shares.tolist(), reverse=True)[:2], abs=1e-5)
    assert np.abs(ours.embed(photo("green")).vectors[0] - vector).max() < 1e-4  # as long as its reference's
    with pytest.raises(OptionError, match="its own 4 labels"):
        ours.classify(photo("green"), ["cat"])
    with pytest.raises(UnsupportedTask, match="reads no text"):
        ours.embed("a cat")


# Python ---------------------------------------------------------------------------------------------------------------


def test_inputs_of_every_kind_come_back_in_order(model: Model, photos: Path) -> None:
    path = photos / "photo-000-red.jpg"
    inputs = ["red", path, "green and blue", path.read_bytes(), photo("blue"), np.asarray(photo("green")), ""]
    found = model.embed(inputs)
    assert found.kinds == ("text", "image", "text", "image", "image", "image", "text")
    alone = np.concatenate([model.embed(one).vectors for one in inputs])
    assert np.abs(found.vectors - alone).max() < 1e-6
    assert np.array_equal(found.vectors[1], found.vectors[3])
    small = model.embed(inputs, batch_size=2)
    assert np.abs(small.vectors - found.vectors).max() < 1e-6
    lengths = np.linalg.norm(found.vectors[:-1], axis=1)
    assert lengths == pytest.approx(1, abs=1e-5) and found.n_tokens > 8


def test_similarity_finds_the_colour(model: Model) -> None:
    found = model.similarity([photo(colour) for colour in LABELS], [f"a {colour} thing" for colour in LABELS])
    assert found.shape == (3, 3) and found.argmax(axis=1).tolist() == [0, 1, 2]
    assert model.similarity("red", model.embed(["red"])) == pytest.approx(1, abs=1e-5)


def test_the_right_label_comes_first_and_templates_are_averaged(model: Model) -> None:
    templates = ["a photo of a {}.", "{}", "the {} side of a thing"]
    result = model.classify(photo("blue"), LABELS, templates=templates, top=2)
    assert result.label == "blue" and len(result.labels) == len(result.logits) == 2
    texts = model.embed([t.replace("{}", label) for label in LABELS for t in templates]).vectors
    means = texts.reshape(3, 3, -1).mean(axis=1)
    means /= np.linalg.norm(means, axis=1, keepdims=True)
    logits = np.exp(3.0) * means @ model.embed(photo("blue")).vectors[0]
    assert result.logits == pytest.approx(sorted(logits, reverse=True)[:2], abs=1e-4)


def test_twenty_thousand_labels_are_read_once(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = [f"thing {i}" for i in range(19_999)] + ["red"]
    read = model.network.texts
    calls: list[int] = []
    monkeypatch.setattr(model.network, "texts", lambda ids, spans: (calls.append(1), read(ids, spans))[1])
    for _ in range(2):
        result = model.classify([photo("red"), photo("blue")], labels, top=5)
        assert result[0].label == "red" and len(result[0].labels) == 5
        assert len(model.classify(photo("red"), labels).labels) == 20_000
    assert 0 < len(calls) <= 20_000 // 256 + 1


def test_a_label_too_long_is_an_error_and_never_cut(model: Model) -> None:
    long = "red " + "word " * 500
    with pytest.raises(ContextTooLong, match=f"tokens, and the model reads {CONTEXT}. Shorten it."):
        model.classify(photo("red"), ["blue", long])
    with pytest.raises(ContextTooLong, match="Shorten it"):
        model.embed(["red", long], truncate=False)
    with pytest.warns(UserWarning, match="Its end was cut. 1 more are too long"):
        found = model.embed(["red", long, long + "x"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.embed("red")
    assert found.n_tokens == 2 * CONTEXT + len(model.tokenizer.encode("red"))


def test_texts_of_any_script_are_read(model: Model) -> None:
    texts = ["красный дом", "赤い家", "بيت أحمر", "🏠🟥", "naïve café", "a\u0000b", " \n\t "]
    found = model.embed(texts)
    assert len(found) == len(texts) and np.isfinite(found.vectors).all()
    assert model.classify(photo("red"), ["赤い", "red", "أحمر"]).label == "red"


@pytest.mark.parametrize(
    ("labels", "templates", "message"),
    [
        (None, None, "there are no labels"), ([], None, "a label is empty"), (["a", " "], None, "a label is empty"),
        (["a", "b", "a"], None, "'a' is given twice"), ("cat", None, "a single text was given"),
        (["a"], ["a photo"], "must have one"), (["a"], ["{} or {}"], "must have one"), (["a"], "x {}", "a single text"),
    ],
)  # fmt: skip
def test_labels_that_make_no_sense_are_told(model: Model, labels: Any, templates: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        model.classify(photo("red"), labels, templates=templates)


def test_options_are_checked(model: Model) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size"), ({"batch_size": 2.5}, "batch_size"), ({"role": "red"}, "knows no role"),
        ({"truncate": 1}, "truncate"), ({"colour": 3}, "'colour' is no option"), ({"dimensions": 0}, "dimensions"),
    ):  # fmt: skip
        with pytest.raises(OptionError, match=message):
            model.embed("red", **options)  # type: ignore[arg-type]
    with pytest.raises(OptionError, match="top"):
        model.classify(photo("red"), LABELS, top=0)
    short = model.embed(["red"], dimensions=2).vectors
    assert short.shape == (1, 2) and np.linalg.norm(short) == pytest.approx(1)
    assert model.embed([]).vectors.shape[0] == 0


def test_a_vector_a_token_stays_a_vector_a_token() -> None:
    """Late interaction: each of a's tokens finds its best among b's, and these cosines add up."""

    class Network(torch.nn.Module):
        config = SimpleNamespace(context=8, vocab_size=256, normalize=True)

        def texts(self, ids: torch.Tensor, spans: Any) -> Any:
            return torch.nn.functional.one_hot(ids % 4, 4).float().split(spans.lengths)

    tokenizer = SimpleNamespace(encode_many=lambda texts: [list(t.encode()) for t in texts], is_special=lambda i: False)
    one: Any = SimpleNamespace(
        network=Network(), device=torch.device("cpu"), tokenizer=tokenizer, prompted=lambda text, role: text
    )
    found = gather(embed(one, ["aab", "abcd"], EmbedOptions(batch_size=1)))
    assert [vector.shape for vector in found.vectors] == [(3, 4), (4, 4)] and found.n_tokens == 7
    assert similarities(found, found).tolist() == [[3.0, 3.0], [2.0, 4.0]]


def test_one_bad_image_keeps_its_place_in_a_stream(model: Model, photos: Path) -> None:
    bad = photos / "bad.jpg"
    bad.write_bytes((photos / "photo-000-red.jpg").read_bytes()[:300])
    inputs = [photos / "photo-000-red.jpg", bad, "red", photos / "photo-001-green.jpg", photos / "absent.png"]
    found = {one.index: one for one in model.stream_embed(inputs, batch_size=2)}
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert [found[i].error is None for i in range(5)] == [True, False, True, True, False]
    assert "bad.jpg" in str(found[1].error) and "absent.png" in str(found[4].error)
    with pytest.raises(MediaError, match="bad.jpg"):
        model.embed(inputs)
    results = list(model.stream_classify(inputs[:2], LABELS))
    assert results[0].label == "red" and isinstance(results[1], MediaError)  # type: ignore[union-attr]


# The command line -----------------------------------------------------------------------------------------------------


def test_embed_prints_json_in_the_order_given(folder: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    notes = tmp_path / "notes.txt"
    notes.write_text("a green field", encoding="utf-8")
    image = photos / "photo-002-blue.jpg"
    answer = told(capsys, "embed", folder, image, "a red dog", notes)
    assert answer.keys() == {"model", "data"} and answer["model"] == str(folder)
    assert [(row["input"], row["kind"]) for row in answer["data"]] == [
        (str(image), "image"), ("a red dog", "text"), (str(notes), "text"),
    ]  # fmt: skip
    expected = load(folder, device="cpu").embed([image, "a red dog", "a green field"]).vectors
    assert np.array_equal(np.float32([row["embedding"] for row in answer["data"]]), expected)


def test_embed_reads_folders_patterns_and_standard_input(
    folder: Path, photos: Path, capsys: Any, monkeypatch: Any
) -> None:
    assert len(told(capsys, "embed", folder, photos)["data"]) == 12
    found = told(capsys, "embed", folder, f"{photos}/**/*-red.jpg", "--image", f"{photos}/photo-001-green.jpg")["data"]
    assert len(found) == 5 and {row["kind"] for row in found} == {"image"}
    assert told(capsys, "embed", folder, "why *?")["data"][0]["kind"] == "text"
    assert told(capsys, "embed", folder, "--text", photos)["data"][0]["kind"] == "text"
    monkeypatch.setattr("sys.stdin", StringIO("red\n\nein grünes Haus\n"))
    assert [row["input"] for row in told(capsys, "embed", folder, "-")["data"]] == ["red", "ein grünes Haus"]
    _, err = program(capsys, "embed", folder, "--image", "absent.jpg", code=2)
    assert "absent.jpg" in err


def test_vectors_are_written_to_files(folder: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    words = ["red", str(photos / "photo-001-green.jpg")]
    expected = load(folder, device="cpu").embed(["red", photos / "photo-001-green.jpg"]).vectors
    for suffix in ("npz", "jsonl", "parquet"):
        program(capsys, "embed", folder, *words, "--out", tmp_path / f"v.{suffix}")
    with np.load(tmp_path / "v.npz", allow_pickle=False) as file:
        assert np.array_equal(file["embedding"], expected)
        assert file["input"].tolist() == words and file["kind"].tolist() == ["text", "image"]
    rows = [json.loads(line) for line in (tmp_path / "v.jsonl").read_text().splitlines()]
    assert np.array_equal(np.float32([row["embedding"] for row in rows]), expected)
    table = pytest.importorskip("pyarrow.parquet").read_table(tmp_path / "v.parquet").to_pydict()
    assert np.array_equal(np.float32(table["embedding"]), expected) and table["input"] == words
    _, err = program(capsys, "embed", folder, "red", "--out", tmp_path / "v.csv", code=2)
    assert ".npz" in err and not (tmp_path / "v.csv").exists()


def test_one_bad_file_among_many_is_listed_and_the_rest_is_done(folder: Path, tmp_path: Path, capsys: Any) -> None:
    photos = tmp_path / "photos"
    paths = write_photos(photos, 60)
    paths[17].write_bytes(paths[17].read_bytes()[:200])
    commands = (["embed", folder, photos], ["classify", folder, photos, "--labels", "red,green"],
                ["search", folder, photos, "blue", "--top", "60"])  # fmt: skip
    for command in commands:
        out, err = program(capsys, *command, "--json", code=1)
        answer = json.loads(out)
        assert len(answer["data"]) == 59
        assert [row["input"] for row in answer["errors"]] == [str(paths[17])]
        assert str(paths[17]) in err and "1 of 60 inputs failed" in err
    _, err = program(capsys, "classify", folder, paths[17], "--labels", "red,green", code=2)
    assert err.count("\n") == 1 and str(paths[17]) in err


def test_classify_draws_bars_tables_and_json(folder: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    image = photos / "photo-000-red.jpg"
    out, err = program(capsys, "classify", folder, image, "--labels", " blue, red,green")
    assert out.splitlines()[0].startswith("red    100.0%  ████") and len(out.splitlines()) == 3 and err == ""
    (tmp_path / "labels.txt").write_text("red\ngreen\n\nblue\n")
    (tmp_path / "templates.txt").write_text("{}\na photo of a {}.\n")
    files = ["--labels-file", tmp_path / "labels.txt", "--templates", tmp_path / "templates.txt"]
    out, _ = program(capsys, "classify", folder, photos, *files)
    assert len(out.splitlines()) == 12
    assert all(line.split()[0].split("-")[2].startswith(line.split()[2]) for line in out.splitlines())
    answer = told(capsys, "classify", folder, image, *files, "--top", "2")
    assert [row["label"] for row in answer["data"][0]["labels"]][0] == "red"
    assert len(answer["data"][0]["labels"]) == 2
    assert "no labels" in program(capsys, "classify", folder, image, code=2)[1]
    long = "word " * 500
    assert "Shorten it" in program(capsys, "classify", folder, image, "--labels", f"red,{long}", code=2)[1]


# Search ---------------------------------------------------------------------------------------------------------------


def test_search_finds_and_its_index_follows_the_folder(folder: Path, photos: Path, capsys: Any) -> None:
    first = told(capsys, "search", folder, photos, "something blue", "--top", "4")
    assert all(row["path"].endswith("blue.jpg") for row in first["data"])
    assert (first["n_images"], first["n_new"], first["kind"]) == (12, 12, "text")
    index = next(photos.glob(".brolly-index-*"))
    before = index.stat().st_mtime_ns
    assert told(capsys, "search", folder, photos, "red")["n_new"] == 0
    assert index.stat().st_mtime_ns == before

    (photos / "photo-000-red.jpg").unlink()
    photo("blue").save(photos / "photo-001-green.jpg")
    photo("green").save(photos / "more" / "new.png")
    again = told(capsys, "search", folder, photos, photos / "more" / "new.png", "--top", "1")
    assert (again["n_images"], again["n_new"], again["kind"]) == (12, 2, "image")
    assert again["data"][0]["path"].endswith("new.png") and again["data"][0]["score"] == pytest.approx(1, abs=1e-4)
    blue = told(capsys, "search", folder, photos, "blue", "--top", "5")["data"]
    assert any(row["path"].endswith("photo-001-green.jpg") for row in blue)


def test_an_index_of_another_model_or_a_broken_one_is_made_anew(
    folder: Path, photos: Path, tmp_path: Path, capsys: Any
) -> None:
    told(capsys, "search", folder, photos, "red")
    index = next(photos.glob(".brolly-index-*"))
    other = tmp_path / "other" / folder.name  # another model of the same name
    shutil.copytree(folder, other)
    (other / "preprocessor_config.json").write_text(
        json.dumps({"image_processor_type": "SiglipImageProcessor", "size": {"height": 32, "width": 32}})
    )
    out, err = program(capsys, "search", other, photos, "red", "--json")
    assert json.loads(out)["n_new"] == 12 and "is made anew: it was made by another model" in err
    for spoilt in (b"", b"nonsense", index.read_bytes()[:-50], index.read_bytes().replace(b"photo-00", b"../../..")):
        index.write_bytes(spoilt)
        out, err = program(capsys, "search", other, photos, "red", "--json")
        assert json.loads(out)["n_new"] == 12 and "is made anew" in err


def test_interrupting_an_index_keeps_what_is_done(
    folder: Path, photos: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Model.stream_embed

    def interrupted(self: Model, inputs: Any, **options: Any) -> Iterator[Any]:
        for i, one in enumerate(stream(self, inputs, **options)):
            if len(inputs) > 1 and i == 7:
                raise KeyboardInterrupt
            yield one

    with monkeypatch.context() as patched:
        patched.setattr(Model, "stream_embed", interrupted)
        _, err = program(capsys, "search", folder, photos, "red", code=130)
        assert "the index keeps 7 of 12 images" in err
        target = photos.parent / "v.jsonl"
        _, err = program(capsys, "embed", folder, photos, "--out", target, code=130)
        assert "7 of 12 vectors are in" in err and len(target.read_text().splitlines()) == 7
    assert told(capsys, "search", folder, photos, "red")["n_new"] == 5


def test_a_key_pressed_while_indexing_keeps_what_is_done(folder: Path, tmp_path: Path, capsys: Any) -> None:
    """^C at a terminal, in the middle of hundreds of pictures."""
    photos = tmp_path / "photos"
    photos.mkdir()
    photo("red", 1200, 1200).save(photos / "0.jpg")
    for i in range(1, 400):
        os.link(photos / "0.jpg", photos / f"{i}.jpg")
    with Terminal("search", folder, photos, "red", *CPU, "--batch-size", "2") as terminal:
        fcntl.ioctl(terminal.end, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        terminal.until("/400 [00:01")
        terminal.interrupt()
        shown = terminal.until("of 400 images")
        assert terminal.finish() == 130
    kept = int(shown.rsplit("the index keeps ", 1)[1].split()[0])
    assert 0 < kept < 400
    rest = [p for p in photos.glob("*.jpg") if int(p.stem) >= kept + 3]
    for path in rest:
        path.unlink()
    assert told(capsys, "search", folder, photos, "red")["n_new"] < kept


def test_the_contact_sheet_stands_by_itself(folder: Path, photos: Path, tmp_path: Path, capsys: Any) -> None:
    sheet = tmp_path / "sheet.html"
    evil = photos / '"><script>alert(1)</script>.jpg'.replace("/", "∕")
    photo("red").save(evil, "JPEG")
    out, _ = program(capsys, "search", folder, photos, "<red> & bold", "--html", sheet, "--top", "7")
    page = sheet.read_text(encoding="utf-8")
    assert out.strip() == str(sheet)
    assert page.count("<li ") == 7 and page.count("data:image/jpeg;base64,") == 7
    assert "<script" not in page and "http" not in page.replace("http-equiv", "")
    assert "<h1>&lt;red&gt; &amp; bold</h1>" in page and "prefers-color-scheme:dark" in page
    assert 'href="photos/' in page  # from where the sheet lies


def test_an_index_that_cannot_be_written_is_told_and_the_search_goes_on(
    folder: Path, photos: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> None:
        raise DiskFull("the disk is full; nothing was changed.")

    monkeypatch.setattr("brolly.tasks.search.write_safetensors", full)
    out, err = program(capsys, "search", folder, photos, "red", "--top", "1")
    assert "red.jpg" in out and "the index is not kept: the disk is full" in err


@pytest.mark.parametrize(
    ("words", "message"),
    [(["absent", "red"], "is no folder"), (["{empty}", "red"], "holds no pictures"), (["{photos}", " "], "must say")],
)
def test_a_search_that_cannot_be_is_told_at_once(
    folder: Path, photos: Path, tmp_path: Path, capsys: Any, words: list[str], message: str
) -> None:
    (tmp_path / "empty").mkdir()
    words = [word.format(empty=tmp_path / "empty", photos=photos) for word in words]
    assert message in program(capsys, "search", folder, *words, code=2)[1]


def test_models_that_cannot_see_say_so(tmp_path: Path, photos: Path, capsys: Any) -> None:
    from tests.run.checkpoints import write_reciter

    write_reciter(tmp_path / "reciter", "Hello")
    for command in (["embed", "red"], ["classify", str(photos), "--labels", "red"]):
        _, err = program(capsys, command[0], tmp_path / "reciter", *command[1:], code=2)
        assert f"it cannot {command[0]}" in err


def test_a_tokenizer_that_ends_no_text_is_told(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "clip")
    config = json.loads((tmp_path / "clip/config.json").read_text())
    config["text_config"]["eos_token_id"] = 3  # a word's
    (tmp_path / "clip/config.json").write_text(json.dumps(config))
    with pytest.raises(TokenizerError, match="puts no token 3 behind a text"):
        load(tmp_path / "clip", device="cpu").embed(["red"])


@pytest.mark.parametrize(
    ("rows", "vectors"),
    [
        (None, np.ones((1, 7)) / 7**0.5), (None, np.full((1, 3), np.nan)), (None, np.full((1, 3), 1e30)),
        (None, np.ones(1)), (b"[" * 100_000, np.ones((1, 3)) / 3), (b'[["red.jpg", Infinity, 1]]', np.ones((1, 3)) / 3),
    ],
)  # fmt: skip
def test_an_index_that_was_made_up_is_made_anew(
    folder: Path, tmp_path: Path, capsys: Any, rows: bytes | None, vectors: Any
) -> None:
    from brolly.checkpoint import read_safetensors, write_safetensors

    photo("red").save(tmp_path / "red.jpg")
    program(capsys, "search", folder, tmp_path, "red")
    index = next(tmp_path.glob(".brolly-index-*"))
    _, metadata = read_safetensors(index)
    stat = (tmp_path / "red.jpg").stat()
    rows = rows or json.dumps([["red.jpg", stat.st_size, stat.st_mtime_ns]]).encode()
    matrix = vectors.astype(np.float32)
    write_safetensors(index, [("files", "U8", (len(rows),), rows), ("vectors", "F32", matrix.shape, matrix)], metadata)
    out, err = program(capsys, "search", folder, tmp_path, "red")
    assert out.startswith(" 0.8") and "is made anew" in err


def test_a_pipe_is_read_whole_and_a_device_not_for_ever(folder: Path, capsys: Any) -> None:
    read, write = os.pipe()
    os.write(write, b"a photo of red. and more words")
    os.close(write)
    found = told(capsys, "embed", folder, f"/dev/fd/{read}")["data"][0]
    os.close(read)
    assert found["embedding"] == told(capsys, "embed", folder, "a photo of red. and more words")["data"][0]["embedding"]
    assert "the most that a text has" in program(capsys, "embed", folder, "/dev/zero", code=2)[1]


@pytest.mark.parametrize("form", ["jsonl", "npz", "parquet"])
def test_a_name_that_is_no_utf_8_is_written_too(folder: Path, tmp_path: Path, capsys: Any, form: str) -> None:
    if form == "parquet":
        pytest.importorskip("pyarrow")
    odd = tmp_path / os.fsdecode(b"caf\xe9.png")
    photo("red").save(odd)
    program(capsys, "embed", folder, odd, "--out", tmp_path / f"v.{form}")
    assert (tmp_path / f"v.{form}").stat().st_size
