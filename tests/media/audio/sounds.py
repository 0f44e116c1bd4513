"""Sound files of every kind, made when asked for."""

from __future__ import annotations

import io
import wave
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np

JFK = Path(__file__).parents[2] / "fixtures" / "audio" / "jfk.flac"  # 4.5 s of Kennedy's inaugural address, 1961


def tone(seconds: float, rate: int, hertz: float = 440.0) -> Any:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)


def wav(samples: Any, rate: int, width: int = 2) -> bytes:
    """Whole numbers of `width` bytes; samples (n,) or (n, channels) from -1 to 1."""
    samples = np.asarray(samples)
    channels = 1 if samples.ndim == 1 else samples.shape[1]
    whole = np.round(samples.reshape(-1) * (2 ** (8 * width - 1) - 1)).astype("<i4")
    raw = (
        (whole + 128).astype(np.uint8).tobytes()
        if width == 1
        else whole.view(np.uint8).reshape(-1, 4)[:, :width].tobytes()
    )
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(raw)
    return out.getvalue()


def encoded(samples: Any, rate: int, container: str, codec: str, form: str = "fltp", *, film: bool = False) -> bytes:
    """samples (n,) from -1 to 1 by ffmpeg's encoder; with `film`, behind a picture stream."""
    out = io.BytesIO()
    with av.open(out, "w", format=container) as file:
        if film:
            video: Any = file.add_stream("mpeg4", rate=5)
            video.width, video.height, video.pix_fmt = 32, 32, "yuv420p"
        if len(samples):
            sound: Any = file.add_stream(codec, rate=rate)
            sound.layout, sound.format = "stereo" if codec == "vorbis" else "mono", form  # the encoder knows no mono
            sound.options = {"strict": "experimental"}
        for i in range(5 if film else 0):
            picture = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * i, np.uint8), format="rgb24")
            file.mux(video.encode(picture))
        if film:
            file.mux(video.encode(None))
        if len(samples):
            frame = av.AudioFrame.from_ndarray(np.asarray(samples, np.float32)[None], format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
            resampler = av.AudioResampler(
                format=form, layout=sound.layout, rate=rate, frame_size=sound.frame_size or 1024
            )
            for part in [*resampler.resample(frame), *resampler.resample(None)]:
                file.mux(sound.encode(part))
            file.mux(sound.encode(None))
    return out.getvalue()
