"""Any sound comes in as 16 kHz mono; what is broken gives what it has with a warning, or one clear error."""

from __future__ import annotations

import io
import subprocess
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from brolly.errors import MediaError, MissingExtra
from brolly.media.audio import RATE, microphone, open_audio
from tests.media.audio.sounds import JFK, encoded, tone, wav


def snr(heard: Any, expected: Any) -> float:
    """How far the difference lies under the signal, in dB, beside the ends where a filter has to guess."""
    n, edge = min(len(heard), len(expected)), RATE // 20
    a, b = heard[edge : n - edge], expected[edge : n - edge]
    return float(10 * np.log10((b**2).sum() / ((a - b) ** 2).sum()))


@pytest.mark.parametrize("width", [1, 2, 3, 4])
def test_whole_numbers_of_every_width_are_read(width: int) -> None:
    heard = open_audio(wav(tone(1, RATE), RATE, width)).samples()
    assert len(heard) == RATE and heard.dtype == np.float32
    np.testing.assert_allclose(heard, tone(1, RATE), atol=2.0 ** (1 - 8 * width) + 1e-7)


def test_sixteen_bits_at_our_rate_are_exact() -> None:
    whole = np.random.default_rng(0).integers(-32768, 32768, 5000).astype(np.int16)
    file = io.BytesIO(wav(np.zeros(5000), RATE)[:44] + whole.tobytes())
    np.testing.assert_array_equal(open_audio(file).samples(), whole / np.float32(32768))
    np.testing.assert_array_equal(open_audio(whole).samples(), whole / np.float32(32768))


@pytest.mark.parametrize(
    ("container", "codec", "form", "floor"),
    [
        ("wav", "pcm_f32le", "flt", 90), ("wav", "pcm_f64le", "dbl", 90), ("wav", "pcm_mulaw", "s16", 30),
        ("wav", "pcm_alaw", "s16", 30), ("flac", "flac", "s16", 80), ("mp3", "mp3", "fltp", 25),
        ("ogg", "vorbis", "fltp", 8), ("ogg", "libopus", "flt", 20), ("mp4", "aac", "fltp", 15),
        ("adts", "aac", "fltp", 0), ("matroska", "flac", "s16", 80), ("webm", "libopus", "flt", 20),
        ("aiff", "pcm_s16be", "s16", 80), ("au", "pcm_s16be", "s16", 80), ("w64", "pcm_s16le", "s16", 80),
    ],
)  # fmt: skip
def test_common_containers_and_codecs_are_read(container: str, codec: str, form: str, floor: float) -> None:
    data = encoded(tone(2, 48_000), 48_000, container, codec, form)
    stream = open_audio(data)
    heard = stream.samples()
    assert abs(len(heard) / RATE - 2) < 0.06
    assert stream.duration is None or abs(stream.duration - 2) < 0.06
    if floor:  # ADTS does not tell how many samples its encoder put in front
        assert snr(heard, tone(2, RATE)) > floor
    again = stream.again().samples()
    np.testing.assert_array_equal(again, heard)


def test_the_sound_of_a_film_is_read() -> None:
    heard = open_audio(encoded(tone(1, 44_100), 44_100, "mp4", "aac", film=True)).samples()
    assert abs(len(heard) / RATE - 1) < 0.06


@pytest.mark.parametrize("rate", [8_000, 11_025, 22_050, 44_100, 48_000, 96_000, 192_000])
def test_resampling_is_clean(rate: int) -> None:
    """A sweep to 3.4 kHz arrives as if it had been recorded at our rate, 90 dB over what is wrong with it."""

    def sweep(at: int) -> Any:
        t = np.arange(2 * at) / at
        return 0.5 * np.sin(2 * np.pi * (100 * t + (3_400 - 100) / 4 * t**2))

    heard = open_audio(sweep(rate), rate=rate).samples()
    assert len(heard) == 2 * RATE and snr(heard, sweep(RATE)) > 90


def test_what_lies_above_our_band_is_taken_out() -> None:
    heard = open_audio(tone(1, 48_000, 9_000), rate=48_000).samples()
    assert np.abs(heard[800:-800]).max() < 1e-4


def test_eight_channels_at_192_khz_are_averaged() -> None:
    channels = np.stack([tone(0.5, 192_000) * (i == 3) for i in range(8)], axis=1)
    expected = tone(0.5, RATE) / 8
    assert snr(open_audio(wav(channels, 192_000, 3)).samples(), expected) > 80
    for array in (channels, channels.T):
        assert snr(open_audio(array, rate=192_000).samples(), expected) > 80


def test_pieces_joined_equal_the_whole() -> None:
    for rate in (RATE, 44_100):
        stream = open_audio(wav(tone(3.3, rate), rate))
        first = next(stream)
        assert abs(len(first) / RATE - 1) < 0.1
        rest = stream.samples()
        np.testing.assert_array_equal(np.concatenate([first, rest]), stream.again().samples())


@pytest.mark.parametrize("samples", [np.zeros(1), np.zeros(16_000), np.full(3, 0.25)], ids=["one", "silence", "three"])
def test_little_or_no_sound_is_sound(samples: Any) -> None:
    np.testing.assert_allclose(open_audio(wav(samples, RATE)).samples(), samples, atol=1e-4)
    assert len(open_audio(samples, rate=48_000).samples()) <= len(samples)


def test_what_is_no_number_is_silence() -> None:
    samples = np.array([0.5, np.nan, np.inf, -np.inf, -0.5], np.float32)
    np.testing.assert_array_equal(open_audio(samples).samples(), np.float32([0.5, 0, 1, -1, -0.5]))
    data = wav(np.zeros(10), RATE, 4)
    data = data[:20] + b"\x03" + data[21:44] + np.tile(samples, 2).tobytes()  # the tag of real numbers
    np.testing.assert_array_equal(open_audio(data).samples(), np.tile(np.float32([0.5, 0, 1, -1, -0.5]), 2))


def files(folder: Path) -> dict[str, tuple[Any, str]]:
    """What cannot be heard, and a word of the error that says so."""
    picture = bytes.fromhex("89504e470d0a1a0a0000000d494844520000000100000001080200000090775 3de".replace(" ", ""))
    header = wav(np.zeros(1), RATE)[:44]
    given: dict[str, tuple[bytes, str]] = {
        "empty.wav": (b"", "is empty"),
        "no_samples.wav": (wav(np.zeros(0), RATE), "holds no sound|no sound or video"),
        "text.wav": (b"This is a letter, not a sound.\n" * 200, "no sound or video"),
        "picture.wav": (picture + bytes(500), "no sound or video"),
        "noise.mp3": (bytes(range(1, 256)) * 3, "no sound or video"),
        "silent.mp4": (encoded([], RATE, "mp4", "", film=True), "pictures but no sound"),
        "cut.m4a": (encoded(tone(1, RATE), RATE, "mp4", "aac")[:700], "no sound or video|holds no sound"),
        "playlist.m3u8": (b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:/etc/hosts\n", "no sound or video"),
        "list.mp3": (b"ffconcat version 1.0\nfile /etc/hosts\n", "no sound or video"),
        "slow.wav": (header[:24] + (1).to_bytes(4, "little") + header[28:] + bytes(2), "1 samples a second"),
        "wide.wav": (wav(np.zeros((20, 65)), RATE), "65 channels"),
    }  # fmt: skip
    for name, (data, _) in given.items():
        (folder / name).write_bytes(data)
    return {name: (folder / name, words) for name, (_, words) in given.items()} | {
        "absent": (folder / "absent.wav", "No such file"),
        "folder": (folder, "directory"),
        "number": (7, "no sound; expected a path"),
        "three sides": (np.zeros((2, 2, 2)), "shape"),
        "no samples": (np.zeros(0), "shape"),
        "unscaled": (np.full(5, 20_000.0), "divide"),
        "words": (np.array(["a"]), "<U1"),
        "text": (io.StringIO("RIFF"), "no sound or video"),
    }


def test_what_cannot_be_heard_gives_one_clear_error(tmp_path: Path) -> None:
    for name, (source, words) in files(tmp_path).items():
        with pytest.raises(MediaError, match=words) as caught, warnings.catch_warnings():
            warnings.simplefilter("error")
            open_audio(source).samples()
        assert "\n" not in str(caught.value) and str(caught.value).endswith("."), name


def test_a_file_cut_short_gives_what_it_has() -> None:
    for container, codec, form in (("wav", "pcm_s16le", "s16"), ("flac", "flac", "s16"), ("matroska", "flac", "s16")):
        data = encoded(np.random.default_rng(0).normal(size=8 * RATE) * 0.1, RATE, container, codec, form)
        with pytest.warns(UserWarning, match="damaged|cut short|only [34]"):
            heard = open_audio(data[: len(data) // 2]).samples()
        assert 3.5 < len(heard) / RATE < 4.1


def test_damage_in_the_middle_is_left_out() -> None:
    data = bytearray(encoded(np.random.default_rng(0).normal(size=8 * RATE) * 0.1, RATE, "flac", "flac", "s16"))
    data[len(data) // 2 : len(data) // 2 + 30_000] = bytes(30_000)
    with pytest.warns(UserWarning, match="damaged|only [67]"):
        assert 6 < len(open_audio(bytes(data)).samples()) / RATE <= 8


def test_any_bytes_give_sound_or_a_media_error() -> None:
    draw = np.random.default_rng(3)
    whole = [
        wav(tone(0.3, RATE), RATE),
        encoded(tone(0.3, RATE), RATE, "mp4", "aac"),
        encoded(tone(0.3, RATE), 48_000, "ogg", "libopus", "flt"),
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for i in range(120):
            data = bytearray(whole[i % 3])
            for at in draw.integers(0, min(len(data), 400), 4):
                data[at] = draw.integers(0, 256)
            try:
                heard = open_audio(bytes(data)).samples()
            except MediaError:
                continue
            assert np.isfinite(heard).all() and len(heard) < 60 * RATE


def test_a_pipe_is_heard_once() -> None:
    code = (
        "from brolly.media.audio import open_audio\ns = open_audio('-')\nprint(len(s.samples()))\n"
        "try:\n    s.again()\nexcept Exception as e:\n    print(e)"
    )
    for data in (wav(tone(1, RATE), RATE), encoded(tone(1, RATE), RATE, "ogg", "libopus", "flt")):
        done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, check=True, timeout=60)
        n, error = done.stdout.decode().splitlines()
        assert abs(int(n) - RATE) < 200 and error.startswith("standard input can be heard only once")


def test_memory_does_not_grow_with_the_sound(tmp_path: Path) -> None:
    """Half an hour at 48 kHz in two channels: 115 MB if it were kept."""
    path = tmp_path / "long.wav"
    with path.open("wb") as file:  # a sparse file: holes are silence
        seconds = 1800
        header = bytearray(wav(np.zeros((1, 2)), 48_000)[:44])
        n_bytes = seconds * 48_000 * 4
        header[4:8], header[40:44] = (n_bytes + 36).to_bytes(4, "little"), n_bytes.to_bytes(4, "little")
        file.write(header)
        file.truncate(44 + n_bytes)
    code = (
        "import resource, sys\nfrom brolly.media.audio import open_audio\n"
        "s = open_audio(sys.argv[1])\nn = len(next(s))\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\nn += sum(map(len, s))\n"
        "print(n, s.duration, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, path], capture_output=True, check=True, timeout=120, text=True)
    n, duration, grown = done.stdout.split()
    assert (int(n), float(duration)) == (seconds * RATE, seconds) and int(grown) < 15_000  # KiB


def test_speech_in_flac_is_read() -> None:
    stream = open_audio(JFK)
    assert stream.duration == 4.5 and len(stream.samples()) == 4.5 * RATE


@pytest.mark.parametrize("package", ["av", "soxr"])
def test_a_missing_package_is_named(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra, match=r"brolly\[audio\]"):
        open_audio(JFK)


def test_a_microphone_is_heard_as_it_comes(monkeypatch: pytest.MonkeyPatch) -> None:
    class Input:
        def __init__(self, **given: Any) -> None:
            assert given["samplerate"] == 48_000

        def __enter__(self) -> None: ...
        def __exit__(self, *error: object) -> None: ...
        def read(self, n: int) -> tuple[Any, bool]:
            return np.full((n, 1), 0.5, np.float32), False

    fake = types.SimpleNamespace(
        query_devices=lambda device, kind: {"default_samplerate": 48_000.0}, InputStream=Input, PortAudioError=OSError
    )
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    stream = microphone()
    heard = np.concatenate([next(stream) for _ in range(10)])
    np.testing.assert_allclose(heard[2000:], 0.5, atol=1e-3)
    with pytest.raises(MediaError, match="once"):
        stream.again()
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(MissingExtra, match=r"brolly\[mic\]"):
        microphone()


@pytest.mark.parametrize("layout", ["7.1", "hexadecagonal", "22.2"])
def test_eight_planes_and_more_are_read_where_they_lie(layout: str) -> None:
    import av

    out = io.BytesIO()
    with av.open(out, "w", format="matroska") as file:
        sound: Any = file.add_stream("libopus", rate=48_000, layout=layout, options={"mapping_family": "255"})
        sound.format = "flt"
        for i in range(50):
            frame = av.AudioFrame(format="flt", layout=layout, samples=960)
            wave = np.repeat(tone(1, 48_000)[i * 960 : (i + 1) * 960].astype(np.float32), frame.layout.nb_channels)
            frame.planes[0].update(wave.tobytes().ljust(frame.planes[0].buffer_size, b"\0"))
            frame.sample_rate, frame.pts = 48_000, i * 960
            file.mux(sound.encode(frame))
        file.mux(sound.encode(None))
    heard = open_audio(out.getvalue()).samples()
    assert abs(len(heard) - RATE) < 800
    whole = np.abs(np.fft.rfft(heard[4000:12_000]))
    assert int(whole.argmax()) == 220  # 440 Hz in half a second


def test_a_name_with_a_nul_is_told() -> None:
    with pytest.raises(MediaError, match="cannot be opened"):
        open_audio("a\0b.wav")
