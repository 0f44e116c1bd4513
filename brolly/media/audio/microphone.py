"""The microphone as a stream that ends when nobody asks any more."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from brolly.errors import MediaError, MissingExtra
from brolly.media.audio.decode import AudioStream, resampled

BLOCKS = 10  # a second


def microphone(device: int | str | None = None) -> AudioStream:
    """Sound from an input device, by number or name (default: the system's own). Raises MediaError, MissingExtra."""
    try:
        import sounddevice
        import soxr  # noqa: F401
    except ImportError:
        raise MissingExtra("Listening to a microphone", "mic") from None
    except OSError as error:  # on Linux PortAudio is the system's
        raise MediaError(
            f"the microphone needs PortAudio ({error}); install it, such as by: apt install libportaudio2."
        ) from None
    try:
        rate = int(sounddevice.query_devices(device, "input")["default_samplerate"])
        opened = sounddevice.InputStream(samplerate=rate, channels=1, dtype="float32", device=device)
    except (sounddevice.PortAudioError, ValueError) as error:
        raise MediaError(f"no microphone can be opened ({error}); connect one, or choose another device.") from None

    def pieces() -> Iterator[tuple[int, Any]]:
        with opened:
            while True:
                samples, late = opened.read(rate // BLOCKS)
                if late:
                    warnings.warn("sound from the microphone was lost: it came faster than it was read.", stacklevel=2)
                yield rate, samples[:, 0].copy()

    return AudioStream("the microphone", resampled(pieces()), None, None)
