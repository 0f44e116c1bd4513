"""Speech to text for Whisper: what is said in a sound of up to half a minute, token by token.

B sounds, M mel bands, F frames of half a minute, T tokens. A row of tokens is <|startoftranscript|><|en|><|transcribe|>
<|notimestamps|> and then what is learnt: the text as it is written, and <|endoftext|>.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from brolly.engine.cache import Causal
from brolly.errors import BrollyError, OptionError
from brolly.media.audio import open_audio
from brolly.media.audio.mel import HOP, N_FRAMES, RATE, WINDOW, log_mel
from brolly.media.image import ahead
from brolly.rows import Row, RowFault, Rows, Spoken
from brolly.train.tuning.entropy import IGNORED, token_losses
from brolly.train.tuning.objectives import Usual, by_parts
from brolly.train.tuning.objectives.kinds import usual
from brolly.train.tuning.objectives.pictures import key
from brolly.verbs import TuneOptions

MOST = 2**31  # bytes of frames that are kept


class Said(NamedTuple):
    """A sound, and its tokens, of which the first `n_prompt` are read and not learnt."""

    sound: Path | bytes
    ids: tuple[int, ...]
    n_prompt: int


class Speech:
    name, together = "speech", False

    def __init__(self, model: Any, options: TuneOptions) -> None:
        self.model, self.network, self.options = model, model.network, options
        self.config = self.network.config
        self.tokens = model.ear.tokens
        self.kept: dict[Any, Any] = {}
        self.free = MOST

    def look(self, rows: Rows, numbers: Sequence[int]) -> None:
        """Make the frames of all sounds in threads, once; what is wrong with one is told when it is an example."""
        for _ in ahead(self.frames, (row.value.audio for row in rows.only(numbers) if isinstance(row.value, Spoken))):
            pass

    def usual(self, n_examples: int, full: bool) -> Usual:
        return usual(n_examples, 8, 60, self.config.dim, full)

    def example(self, row: Row) -> Said:
        spoken = row.value
        if not isinstance(spoken, Spoken):
            raise RowFault(row.where, f"it is a {type(spoken).__name__}; expected a sound and what is said in it")
        try:
            start = (*self.tokens.sot_sequence(self.language(spoken, row)), self.tokens.no_timestamps)
            self.frames(spoken.audio)
        except BrollyError as error:
            raise RowFault(row.where, getattr(error, "message", str(error))) from None
        ids = (*start, *self.tokens.encode(f" {spoken.text.strip()}"), self.tokens.eot)
        most = min(self.options.context or self.config.context, self.config.context)
        if len(ids) > most:
            raise RowFault(row.where, f"its text has {len(ids)} tokens, and the model writes {most} to a sound")
        return Said(spoken.audio, ids, len(start))

    def language(self, spoken: Spoken, row: Row) -> str | None:
        """The row's, or the only one that the model hears. Raises RowFault, OptionError."""
        known = self.tokens.languages
        if spoken.language is None and self.tokens.multilingual and len(known) > 1:
            raise RowFault(row.where, "it does not say its language; add a column `language` with a code like en")
        return spoken.language or next(iter(known), None)

    def frames(self, source: Path | bytes) -> Any:
        """A sound's log-mel frames as `transcribe` hears them: (M, up to F). Raises MediaError, OptionError."""
        name = key(source)
        if (found := self.kept.get(name)) is not None:
            return found
        sound = open_audio(source)
        parts, n_samples = [], 0
        for part in sound:
            parts.append(part)
            n_samples += len(part)
            if n_samples > WINDOW:
                told = "longer" if sound.duration is None else f"{sound.duration:.1f} s"
                raise OptionError(f"{sound.name} is {told}, and Whisper hears {WINDOW // RATE} s at once; cut it")
        if n_samples < HOP:
            raise OptionError(f"{sound.name} holds no sound")
        import numpy as np

        whole = log_mel(np.concatenate(parts), self.config.n_mels, padding=WINDOW)
        found = np.ascontiguousarray(whole[:, : n_samples // HOP])
        if found.nbytes <= self.free:
            self.free -= found.nbytes
            self.kept[name] = found
        return found

    def size(self, example: Said) -> int:
        return self.config.audio_context + len(example.ids)

    def weight(self, example: Said) -> float:
        return len(example.ids) - example.n_prompt

    def losses(self, part: Sequence[Said]) -> Tensor:
        """Each token's loss of a part, in a row; 0 where none is learnt."""
        device = self.model.device
        sounds = [torch.from_numpy(self.frames(one.sound)) for one in part]
        mel = torch.stack([F.pad(one, (0, N_FRAMES - one.shape[1])) for one in sounds]).to(device, self.model.dtype)
        longest, eot = max(len(one.ids) for one in part), self.tokens.eot
        ids = torch.tensor([[*one.ids, *[eot] * (longest - len(one.ids))] for one in part], device=device)
        wanted = torch.tensor(
            [
                [*[IGNORED] * (one.n_prompt - 1), *one.ids[one.n_prompt :], *[IGNORED] * (longest - len(one.ids))]
                for one in part
            ],
            device=device,
        )
        return self.of(mel, ids[:, :-1], wanted)

    def of(self, mel: Tensor, ids: Tensor, wanted: Tensor) -> Tensor:
        """mel (B, M, F), ids and what should follow each (B, T) → (B T,)."""
        learns = torch.is_grad_enabled() and any(p.requires_grad for p in self.network.encoder.parameters())
        with torch.set_grad_enabled(learns):
            heard = self.network.encode(mel)
        positions = torch.arange(ids.shape[1], device=ids.device).expand(len(ids), -1)
        hidden = self.network.decode(ids, positions, Causal(self.config), self.network.cross(heard))
        head = self.network.decoder.embed_tokens if self.config.tied_head else self.network.proj_out
        return token_losses(hidden.flatten(0, 1), head.weight, wanted.flatten())

    def backward(self, parts: Sequence[Sequence[Said]], total: float) -> Tensor:
        return by_parts(lambda part: self.losses(part).sum(), parts, total)

    @torch.no_grad()
    def measure(self, part: Sequence[Said]) -> dict[str, tuple[float, float]]:
        return {"loss": (float(self.losses(part).sum()), sum(map(self.weight, part)))}
