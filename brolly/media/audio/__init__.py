"""Sound: what people hand in ↔ samples and frames."""

from __future__ import annotations

from brolly.media.audio.decode import AudioStream, open_audio
from brolly.media.audio.mel import RATE
from brolly.media.audio.microphone import microphone

__all__ = ["AudioStream", "RATE", "microphone", "open_audio"]
