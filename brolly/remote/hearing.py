"""What a vendor heard, segment by segment, as a model on this disk would tell it while it hears."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from brolly.errors import UnsupportedTask
from brolly.verbs import Segment, Transcript


class Heard(Iterator[Segment]):
    """Segments of a sound that is heard as a whole when the first one is asked for.

    A vendor that tells no times has one segment, from 0 to the end as far as that is known; with `timed`, that is an
    UnsupportedTask.
    """

    duration: float | None = None

    def __init__(self, hear: Callable[[], Transcript], name: str, timed: bool) -> None:
        self.heard, self.language = 0.0, ""
        self._hear, self._name, self._timed = hear, name, timed
        self._whole: Transcript | None = None
        self._left: Iterator[Segment] = iter(())

    def __next__(self) -> Segment:
        if self._whole is None:
            found = self._whole = self._hear()
            segments = found.segments
            if not segments and self._timed and found.text.strip():
                raise UnsupportedTask(
                    f"{self._name} tells no times, which subtitles are made of; write txt or json, or name a model "
                    "that tells them (whisper-1, a Whisper on this disk)."
                )
            if not segments and found.text.strip():
                segments = (Segment(0.0, found.duration, found.text),)
            self.language, self.heard, self._left = found.language, found.duration, iter(segments)
        return next(self._left)

    def gather(self) -> Transcript:
        """All that is said."""
        return self.transcript(list(self))

    def transcript(self, _: Sequence[Segment]) -> Transcript:
        """The same: it came as a whole."""
        return self._whole or Transcript("", "", ())
