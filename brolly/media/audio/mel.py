"""Sound to the log-mel frames that Whisper hears (Radford et al. 2022): 25 ms windows every 10 ms, on Slaney's scale.

Frames are floored eight decades under the loudest of the whole recording, which a stream has not heard yet. So there
are two ways. `log_mel` looks at all samples first, as OpenAI's does. `Mel` takes pieces in constant memory and gives
frames as they become certain, before the floor: `floored(frames, mel.loudest)` then holds them against the loudest so
far (a microphone: the only thing known), or against that of an earlier pass over the same file, `loudest(pieces)`,
which makes the frames equal those of `log_mel`.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

RATE = 16_000  # samples a second
HOP = 160  # samples a frame
N_FFT = 400
WINDOW = 30 * RATE  # samples that Whisper hears at once
N_FRAMES = WINDOW // HOP
HALF = N_FFT // 2
SILENCE = -10.0  # log10 of the least power
AT_ONCE = 2048  # frames of one Fourier transform: what bounds the memory


@cache
def filters(n_mels: int) -> Floats:
    """Triangles on Slaney's mel scale (Auditory Toolbox, 1998), each of unit area: (n_mels, N_FFT // 2 + 1).

    The scale is linear to 1 kHz, 200/3 Hz a mel, and logarithmic above, 27 mels to the factor 6.4.
    """
    import numpy as np

    knee, step = 15.0, np.log(6.4) / 27
    top = knee + np.log(RATE / 2 / 1000) / step
    mels = np.linspace(0.0, top, n_mels + 2)
    edges = np.where(mels < knee, mels * 200 / 3, 1000 * np.exp(step * (mels - knee)))  # Hz
    slopes = edges[:, None] - np.linspace(0, RATE / 2, HALF + 1)
    widths = np.diff(edges)[:, None]
    triangles = np.maximum(0, np.minimum(-slopes[:-2] / widths[:-1], slopes[2:] / widths[1:]))
    found: Floats = (triangles * (2 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32)
    return found


def log_mel(samples: Floats, n_mels: int = 80, padding: int = 0) -> Floats:
    """All frames of a recording, with `padding` samples of silence behind it: (n_mels, frames)."""
    import numpy as np

    mel = Mel(n_mels)
    frames = np.concatenate([mel.push(samples), mel.finish(padding)], axis=1)
    return floored(frames, mel.loudest)


def floored(frames: Floats, loudest: float) -> Floats:
    """Frames of `Mel` in the range that the network was trained on."""
    import numpy as np

    found: Floats = (np.maximum(frames, np.float32(loudest - 8.0)) + np.float32(4.0)) / np.float32(4.0)
    return found


def loudest(pieces: Iterable[Floats], n_mels: int = 80) -> float:
    """What the frames of a whole recording, with silence behind it, are held against."""
    mel = Mel(n_mels)
    for piece in pieces:
        mel.push(piece)
    mel.finish(padding=N_FFT)
    return mel.loudest


class Mel:
    """Frames of a sound that comes in pieces of any length; joined they equal those of the whole.

    `loudest` is the highest value so far. A frame is certain 200 samples after its middle.
    """

    def __init__(self, n_mels: int = 80) -> None:
        import torch

        self.n_mels, self.loudest = n_mels, SILENCE
        self._filters = torch.from_numpy(filters(n_mels))
        self._window = torch.hann_window(N_FFT)
        self._held: list[Floats] = []  # what came before the first frame could be made
        self._rest: Floats | None = None  # samples from the next frame's first on

    def push(self, samples: Floats) -> Floats:
        """The frames, in log10 of power, that these samples make certain: (n_mels, frames)."""
        import numpy as np

        if self._rest is not None:
            return self._frames(np.concatenate([self._rest, samples]))
        self._held.append(samples)
        if sum(map(len, self._held)) <= HALF:
            return np.empty((self.n_mels, 0), np.float32)
        start = np.concatenate(self._held)
        return self._frames(np.concatenate([start[HALF:0:-1], start]))

    def finish(self, padding: int = 0) -> Floats:
        """The last frames, with `padding` samples of silence behind the sound."""
        import numpy as np

        silence = np.zeros(padding, np.float32)
        if self._rest is None:
            start = np.concatenate([*self._held, silence])
            if not len(start):
                return np.empty((self.n_mels, 0), np.float32)
            whole = np.pad(start, HALF, "reflect")
        else:
            whole = np.pad(np.concatenate([self._rest, silence]), (0, HALF), "reflect")
        return self._frames(whole[: (len(whole) - N_FFT) // HOP * HOP + N_FFT - HOP])

    def _frames(self, samples: Floats) -> Floats:
        import numpy as np

        n_frames = max((len(samples) - N_FFT) // HOP + 1, 0)
        self._rest = samples[n_frames * HOP :].copy()
        out = np.empty((self.n_mels, n_frames), np.float32)
        for first in range(0, n_frames, AT_ONCE):
            last = min(first + AT_ONCE, n_frames)
            out[:, first:last] = self._powers(samples[first * HOP : (last - 1) * HOP + N_FFT])
        if n_frames:
            self.loudest = max(self.loudest, float(out.max()))
        return out

    def _powers(self, samples: Floats) -> Any:
        import torch

        waves = torch.stft(
            torch.from_numpy(samples), N_FFT, HOP, window=self._window, center=False, return_complex=True
        )
        power = torch.view_as_real(waves).square().sum(-1)  # (N_FFT // 2 + 1, frames)
        return (self._filters @ power).clamp(min=1e-10).log10().numpy()
