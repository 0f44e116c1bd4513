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
STREAMED = 0x70000000  # a WAV's size when its writer did not know it yet
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
            with path.open("rb") as file:
                if file.seekable():
                    _look(file, name)
        except (OSError, ValueError) as error:  # ValueError: a NUL in its name
            raise MediaError(f"{name} cannot be opened: {getattr(error, 'strerror', None) or error}.") from None
        return _from_file(f"file:{path}", name, (lambda: open_audio(path, name=name)) if path.is_file() else None)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(source)
    if not hasattr(source, "read"):
        raise MediaError(f"{name} is no sound; expected a path, bytes, an open binary file or an array of samples.")
    if not (hasattr(source, "seekable") and source.seekable()):
        return _from_file(source, name, None)
    start = source.tell()
    _look(source, name)

    def rewound() -> AudioStream:
        source.seek(start)
        return _from_file(source, name, rewound)

    return rewound()


def _look(file: Any, name: str) -> None:
    """Refuse what is empty, and tell of a WAV that was cut short, which ffmpeg takes as it is."""
    start, head = file.tell(), file.read(12)
    n_bytes = file.seek(0, io.SEEK_END) - start
    file.seek(start)
    if not head:
        raise MediaError(f"{name} is empty; expected a sound.")
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        told = int.from_bytes(head[4:8], "little") + 8
        if n_bytes < told < STREAMED:
            _warn(f"{name} is cut short: of its {told:,} bytes there are {n_bytes:,}; what can be read of it is used.")


def _from_file(file: Any, name: str, reopen: Callable[[], AudioStream] | None) -> AudioStream:
    try:
        import av
        import soxr  # noqa: F401  found missing now rather than in the middle
    except ImportError:
        raise MissingExtra("Reading sound", "audio") from None
    try:
        container: Any = av.open(file, "r", options={"format_whitelist": FORMATS}, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError, TypeError):  # TypeError: a file opened as text
        raise MediaError(
            f"{name} is no sound or video that can be read here, or its beginning is broken; expected WAV, FLAC, MP3, "
            "OGG, Opus, M4A, WebM, MP4 or the like."
        ) from None
    sound = container.streams.best("audio")
    if sound is None:
        raise MediaError(f"{name} has {'pictures' if container.streams.video else 'data'} but no sound.")
    if sound.codec_context is None:
        raise MediaError(f"{name} has sound in a coding that is not known here; convert it to FLAC or WAV first.")
    _bounded(sound.rate, sound.channels, name)
    own, whole = _seconds(sound.duration, sound.time_base), _seconds(container.duration, 1 / av.time_base)
    least = own or (0.0 if container.streams.video else whole or 0.0)
    least -= least / 4 if container.format.name in ESTIMATED else 0.2
    return AudioStream(name, resampled(_heard(container, sound, name, least)), own or whole, reopen)


def _seconds(count: int | None, unit: Any) -> float | None:
    return float(count * unit) if count and unit and count > 0 else None


def _bounded(rate: int, channels: int, name: str) -> None:
    if not 0 < channels <= MAX_CHANNELS:
        raise MediaError(f"{name} has {channels} channels; there may be 1 to {MAX_CHANNELS}.")
    if not RATES[0] <= rate <= RATES[1]:
        raise MediaError(f"{name} has {rate:,} samples a second; there may be {RATES[0]:,} to {RATES[1]:,}.")


def _heard(container: Any, sound: Any, name: str, least: float) -> Iterator[tuple[int, Floats]]:
    """(rate, mono samples) of about a second each; `least` is how many seconds there should be."""
    import numpy as np

    heard = 0.0
    with container:
        for frames in _seconds_of(_frames(container, sound, name)):
            rate = frames[0].sample_rate
            _bounded(rate, frames[0].layout.nb_channels, name)
            samples = _mono(np.concatenate([array for frame in frames for array in _channels(frame)], axis=1))
            heard += len(samples) / rate
            yield rate, samples
        if not heard:
            raise MediaError(f"{name} holds no sound: not one sample of it can be read.")
        if heard < least:
            _warn(f"{name} should last at least {least:.1f} s, and only {heard:.1f} s of sound can be read.")


def _channels(frame: Any) -> Iterator[Any]:
    """A frame's samples: (channels, samples). PyAV takes what lies behind an eighth plane for planes as well, and reads
    there: so many are packed first."""
    import av

    many = frame.format.is_planar and frame.layout.nb_channels > 7
    for one in av.AudioResampler(format=frame.format.packed).resample(frame) if many else [frame]:
        array = one.to_ndarray()
        yield array if one.format.is_planar else array.reshape(one.samples, -1).T


def _seconds_of(frames: Iterator[Any]) -> Iterator[list[Any]]:
    """Neighbours of one kind, about a second of them."""
    held: list[Any] = []
    n_samples, kind = 0, None
    for frame in frames:
        own = frame.sample_rate, frame.layout.nb_channels, frame.format.name
        if held and (own != kind or n_samples >= frame.sample_rate):
            yield held
            held, n_samples = [], 0
        held.append(frame)
        n_samples, kind = n_samples + frame.samples, own
    if held:
        yield held


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
        except (av.error.FFmpegError, OSError, IndexError) as error:  # IndexError: a stream that came up on the way
            if whole:
                reason = getattr(error, "strerror", None) or "its streams change"
                _warn(f"{name} is damaged ({reason}); what can be read of it is used.")
            whole, frames = False, []
        yield from (frame for frame in frames if frame.samples)


def _warn(text: str) -> None:
    warnings.warn(text, stacklevel=2)


def _mono(samples: Any) -> Floats:
    """Channels (channels, samples) of any numbers → their mean, 1 being full scale."""
    import numpy as np

    kind, n = samples.dtype, len(samples)
    if kind.kind == "f":
        samples, scale = np.clip(np.nan_to_num(samples, nan=0, posinf=1, neginf=-1), -LOUD, LOUD), 1.0
    else:
        scale = 2.0 ** (8 * kind.itemsize - 1)
    samples = samples.astype(np.float32)
    mixed: Floats = samples[0] if n == 1 else np.full(n, 1 / n, np.float32) @ samples
    return (mixed - scale if kind.kind == "u" else mixed) / np.float32(scale)


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
