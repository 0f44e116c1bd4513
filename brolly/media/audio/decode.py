"""Any sound → blocks of 16 kHz mono float32, in constant memory, or one error that says which file and what is wrong.

PyAV carries ffmpeg's libraries in its wheel, so nothing has to be installed beside it; soxr changes the rate. What a
broken file still gives is given, with a warning. Channels are averaged. Hostile files are bounded before they are read.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from brolly.errors import MediaError, MissingExtra
from brolly.media.audio.mel import RATE

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

MAX_CHANNELS = 64
RATES = (1_000, 768_000)  # what a source may have
LOUD = 100.0  # full scale is 1
# No playlist or list of files, which would name others, and no pictures.
FORMATS = (
    "wav,w64,aiff,caf,au,flac,mp3,aac,ac3,eac3,dts,ogg,matroska,webm,mov,mp4,m4a,avi,flv,mpeg,mpegts,asf,amr,wv,tta,ape,"
    "tak,dsf,voc,sox,nistsphere,gsm,rm,nut,3gp,3g2,mj2"
)
ESTIMATED = {"mp3", "aac", "ac3", "eac3", "dts", "mpeg", "mpegts", "amr", "gsm"}  # their duration is a guess


class AudioStream:
    """Sound at 16 kHz in blocks of up to about a second; iterating goes on where it was left.

    `duration` is in seconds, None where the source does not tell. Raises MediaError while it is read.
    """

    def __init__(
        self, name: str, blocks: Iterator[Floats], duration: float | None, reopen: Callable[[], AudioStream] | None
    ) -> None:
        self.name, self.duration = name, duration
        self._blocks, self._reopen = blocks, reopen

    def __iter__(self) -> AudioStream:
        return self

    def __next__(self) -> Floats:
        return next(self._blocks)

    def again(self) -> AudioStream:
        """The same sound from its beginning. Raises MediaError where it can be heard only once."""
        if self._reopen is None:
            raise MediaError(f"{self.name} can be heard only once; save it to a file and give that instead.")
        return self._reopen()

    def samples(self) -> Floats:
        """All that is left, in one piece."""
        import numpy as np

        return np.concatenate([np.empty(0, np.float32), *self])


def open_audio(source: Any, *, rate: int | None = None, name: str = "") -> AudioStream:
    """The sound of a path ("-": standard input), bytes, an open binary file, or an array of samples at `rate` (16 kHz).

    An array is (samples,) or two-dimensional, the shorter side being channels; whole numbers are scaled as in a WAV.
    `name` is what an error calls it. Raises MediaError, MissingExtra.
    """
    if isinstance(source, (str, Path)):
        name = name or ("standard input" if str(source) == "-" else str(source))
    name = name or f"sound given as {type(source).__name__}"
    if hasattr(source, "__array__") and not isinstance(source, (bytes, bytearray, memoryview)):
        return _from_array(source, rate or RATE, name)
    if isinstance(source, (str, Path)) and str(source) == "-":
        import sys

        return _from_file(sys.stdin.buffer, name, None)
    if isinstance(source, (str, Path)):
        path = Path(source)
        try:
            path.open("rb").close()
        except OSError as error:
            raise MediaError(f"{name} cannot be opened: {error.strerror or error}.") from None
        again = (lambda: open_audio(path, name=name)) if path.is_file() else None
        return _from_file(f"file:{path}", name, again, empty=path.is_file() and not path.stat().st_size)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if not hasattr(source, "read"):
        raise MediaError(f"{name} is no sound; expected a path, bytes, an open binary file or an array of samples.")
    if not (hasattr(source, "seekable") and source.seekable()):
        return _from_file(source, name, None)
    start = source.tell()

    def rewound() -> AudioStream:
        source.seek(start)
        empty = not source.read(1)
        source.seek(start)
        return _from_file(source, name, rewound, empty=empty)

    return rewound()


def _from_file(file: Any, name: str, reopen: Callable[[], AudioStream] | None, *, empty: bool = False) -> AudioStream:
    try:
        import av
        import soxr  # noqa: F401  found missing now rather than in the middle
    except ImportError:
        raise MissingExtra("Reading sound", "audio") from None
    if empty:
        raise MediaError(f"{name} is empty; expected a sound.")
    try:
        container: Any = av.open(file, options={"format_whitelist": FORMATS}, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, TypeError):  # TypeError: a file opened as text
        raise MediaError(
            f"{name} is no sound or video that can be read here, or its beginning is broken; expected WAV, FLAC, MP3, "
            "OGG, Opus, M4A, WebM, MP4 or the like."
        ) from None
    sound = container.streams.best("audio")
    if sound is None:
        raise MediaError(f"{name} has {'pictures' if container.streams.video else 'data'} but no sound.")
    _bounded(sound.rate, sound.channels, name)
    duration = _seconds(sound.duration, sound.time_base) or _seconds(container.duration, 1 / av.time_base)
    return AudioStream(name, resampled(_heard(container, sound, name, duration)), duration, reopen)


def _seconds(count: int | None, unit: Any) -> float | None:
    return float(count * unit) if count and unit and count > 0 else None


def _bounded(rate: int, channels: int, name: str) -> None:
    if not 0 < channels <= MAX_CHANNELS:
        raise MediaError(f"{name} has {channels} channels; there may be 1 to {MAX_CHANNELS}.")
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"{name} has {rate:,} samples a second; there may be {RATES[0]:,} to {RATES[1]:,}.")


def _heard(container: Any, sound: Any, name: str, duration: float | None) -> Iterator[tuple[int, Floats]]:
    """(rate, mono samples) of about a second each."""
    held: list[Floats] = []
    heard, n_held, rate = 0.0, 0, sound.rate
    with container:
        for frame in _frames(container, sound, name):
            if frame.sample_rate != rate:
                _bounded(frame.sample_rate, frame.layout.nb_channels, name)
                yield from _joined(rate, held)
                held, n_held, rate = [], 0, frame.sample_rate
            samples = frame.to_ndarray()
            held.append(_mono(samples if frame.format.is_planar else samples.reshape(frame.samples, -1).T))
            heard, n_held = heard + frame.samples / rate, n_held + frame.samples
            if n_held >= rate:
                yield from _joined(rate, held)
                held, n_held = [], 0
        yield from _joined(rate, held)
        if not heard:
            raise MediaError(f"{name} holds no sound: not one sample of it can be read.")
        if duration and heard < duration - 1 and container.format.name not in ESTIMATED:
            _warn(f"{name} should last {duration:.1f} s, and only {heard:.1f} s of sound can be read.")


def _joined(rate: int, held: list[Floats]) -> Iterator[tuple[int, Floats]]:
    import numpy as np

    if held:
        yield rate, np.concatenate(held)


def _frames(container: Any, sound: Any, name: str) -> Iterator[Any]:
    """What can be decoded; a broken packet is left out, and a broken container ends it."""
    import av

    packets, whole = container.demux(sound), True
    while True:
        try:
            packet = next(packets, None)
            if packet is None:
                return
            frames = packet.decode()
        except (av.error.FFmpegError, OSError) as error:
            if whole:
                _warn(f"{name} is damaged ({error.strerror or error}); what can be read of it is used.")
            whole, frames = False, []
        yield from (frame for frame in frames if frame.samples)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _mono(samples: Any) -> Floats:
    """Channels (channels, samples) of any numbers → their mean, 1 being full scale."""
    import numpy as np

    kind = samples.dtype
    if kind.kind == "f":
        samples = np.clip(np.nan_to_num(samples, nan=0, posinf=1, neginf=-1), -LOUD, LOUD)
        scale = 1.0
    else:
        scale = 2.0 ** (8 * kind.itemsize - 1)
    mixed = samples[0] if len(samples) == 1 else samples.mean(axis=0, dtype=np.float64)
    out = mixed.astype(np.float32)
    return (out - scale if kind.kind == "u" else out) / np.float32(scale)


def resampled(pieces: Iterable[tuple[int, Floats]]) -> Iterator[Floats]:
    """(rate, samples) → samples at 16 kHz; the rate may change on the way."""
    import numpy as np
    import soxr

    of, change = RATE, None
    nothing = np.empty(0, np.float32)
    for rate, samples in pieces:
        if rate != of:
            if change and len(last := change.resample_chunk(nothing, last=True)):
                yield last
            of, change = rate, soxr.ResampleStream(rate, RATE, 1, "float32", "HQ") if rate != RATE else None
        if len(out := change.resample_chunk(samples) if change else samples):
            yield out
    if change and len(last := change.resample_chunk(nothing, last=True)):
        yield last


def _from_array(source: Any, rate: int, name: str) -> AudioStream:
    import numpy as np

    array = np.asarray(source)
    if array.ndim == 1:
        array = array[None]
    elif array.ndim == 2 and array.shape[0] > array.shape[1]:
        array = array.T
    if array.ndim != 2 or not array.size:
        raise MediaError(f"{name} has the shape {np.shape(source)}; expected (samples,) or (channels, samples).")
    if array.dtype.kind not in "if" and array.dtype != np.uint8:
        raise MediaError(f"{name} holds {array.dtype}; expected real numbers from -1 to 1, or whole ones as in a WAV.")
    if array.dtype.kind == "f" and not np.nanmax(np.abs(array), initial=0, where=np.isfinite(array)) <= LOUD:
        raise MediaError(f"{name} holds real numbers far beyond -1 to 1; divide them by their full scale (32768?).")
    _bounded(rate, len(array), name)
    pieces = ((rate, _mono(array[:, at : at + rate])) for at in range(0, array.shape[1], rate))
    return AudioStream(name, resampled(pieces), array.shape[1] / rate, lambda: _from_array(array, rate, name))
