"""Model = card + network + processor, and the verbs: the API on one page."""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from math import isfinite
from pathlib import Path
from threading import RLock
from typing import Any, TypeVar, Unpack, overload

import torch
from torch import nn

from brolly.checkpoint import json_object
from brolly.engine.adapters import Adapted, Adapter, Heard
from brolly.engine.cache import Causal
from brolly.engine.encode import accelerate
from brolly.engine.engine import Engine, blocks_for, write_all
from brolly.engine.guide import guide_for
from brolly.engine.job import Deliver, Job, Ticket
from brolly.engine.listen import Listener
from brolly.engine.pages import Pages
from brolly.engine.runner import Runner
from brolly.errors import BrollyError, CheckpointError, NotFound, OptionError, TokenizerError, UnsupportedTask
from brolly.families.whisper import alignment_heads
from brolly.fill import Merged, fill_adapter, merged
from brolly.identity import Card, examine
from brolly.media.audio import AudioStream, open_audio
from brolly.media.audio.mel import N_FRAMES
from brolly.media.audio.whisper_tokens import load_whisper_tokens
from brolly.media.image import Preprocess, load_preprocess
from brolly.media.text import Prompts, Tokenizer, load_tokenizer, prompts_of
from brolly.media.text.answers import AnswerFormat, format_of
from brolly.tasks.ask import ask
from brolly.tasks.classify import check_labels, classify, classify_texts, label_vectors
from brolly.tasks.embed import embed, similarities
from brolly.tasks.embed import gather as gather_vectors
from brolly.tasks.generate import stream
from brolly.tasks.rerank import rerank
from brolly.tasks.score import score
from brolly.tasks.transcribe import LEAST_CONTEXT, Ear, Transcribing, detect_language
from brolly.tasks.transcribe.rules import FIRST_TIME
from brolly.verbs import (
    Chat,
    Classification,
    ClassifyOptions,
    Draw,
    Drawing,
    Embed,
    Embedding,
    Embeddings,
    EmbedOptions,
    GenerateOptions,
    Generation,
    Options,
    Piece,
    Ranked,
    RerankOptions,
    Score,
    Speak,
    Speech,
    Transcribe,
    TranscribeOptions,
    Transcript,
    Write,
    gather,
    read_options,
)

T = TypeVar("T")


class once(cached_property[T]):
    """A cached_property of a model that threads which come together make once; Python's own does so up to 3.11 only."""

    def __get__(self, model: Any, owner: Any = None) -> T:  # type: ignore[override]
        if model is None:
            return self  # type: ignore[return-value]
        whole = model.__dict__.get("_whole", model)  # what is costly is made once for all views of a model
        with whole._making:
            return super().__get__(whole, owner)


def as_stream(audio: Any, rate: int | None) -> AudioStream:
    return audio if isinstance(audio, AudioStream) else open_audio(audio, rate=rate)


def many(inputs: Any) -> Sequence[Any]:
    """A list as it is, anything else as the one input that it is."""
    return list(inputs) if isinstance(inputs, (list, tuple, Iterator)) else [inputs]


class Model:
    """A loaded model. `card` is what `identify` tells of it, `network` computes, `tokenizer` reads and writes text."""

    def __init__(
        self, card: Card, network: nn.Module, release: Callable[[str], None] | None = None, *, fused: bool = True
    ) -> None:  # fmt: skip
        self.card, self.network, self._release = card, network, release
        some = max(network.parameters(), key=lambda p: p.numel())
        self.device, self.dtype = some.device, some.dtype
        self._blocks = accelerate(network) if fused else "torch"
        self._labels: dict[Any, Any] = {}
        self.engine_options: dict[str, Any] = {}  # of Engine, and n_bytes for its cache; set before a job
        self.adapters: dict[str, Path] = {}  # a LoRA's name → its folder in PEFT's layout; loaded when first used
        self._adapted: dict[str, Adapter | Merged] = {}
        self._adapting, self._making = RLock(), RLock()
        self._by: str | None = None  # the adapter that answers where none is named

    def __repr__(self) -> str:
        dtype = str(self.dtype).removeprefix("torch.")
        size = f"{self.card.header.n_params:,} parameters"
        return f"<{self.card.recognised.family.name} {self.card.header.path}: {size}, {dtype}, {self.device}>"

    @overload
    def generate(self, prompt: str, **options: Unpack[Write]) -> Generation: ...
    @overload
    def generate(self, prompt: list[str], **options: Unpack[Write]) -> list[Generation]: ...
    def generate(self, prompt: str | list[str], **options: Unpack[Write]) -> Generation | list[Generation]:
        """Continue a prompt, or each of a list of them. Raises ContextTooLong, OptionError, UnsupportedTask.

        `adapter` is the name of one of `adapters`, or a folder in PEFT's layout.
        """
        if isinstance(prompt, list):
            jobs = [self.prepare(one, **options) for one in prompt]
            found = write_all(self.engine, jobs) if len(jobs) > 1 else map(self._alone, jobs)
            return [gather(pieces, options.get("logprobs") is not None) for pieces in found]
        return gather(self._alone(self.prepare(prompt, **options)), options.get("logprobs") is not None)

    def stream(self, prompt: str, **options: Unpack[Write]) -> Iterator[Piece]:
        """The same continuation, piece by piece as it becomes certain."""
        return self._alone(self.prepare(prompt, **options))

    def chat(self, messages: Sequence[Mapping[str, Any]], **given: Unpack[Chat]) -> Generation:
        """Answer a conversation of {"role", "content"} messages by the model's own chat template.

        Takes `tools`, `tool_choice`, `parallel_tool_calls` and `template` as `prepare_chat` does, and all options.
        """
        return gather(self.stream_chat(messages, **given), given.get("logprobs") is not None)

    def stream_chat(self, messages: Sequence[Mapping[str, Any]], **given: Unpack[Chat]) -> Iterator[Piece]:
        """The same answer, piece by piece."""
        return self._alone(self.prepare_chat(messages, **given))

    def prepare(
        self, prompt: str | Sequence[int], *, n: int = 1, best_of: int | None = None, adapter: str | Path | None = None,
        priority: int = 0, user: str = "", **options: Unpack[Options],
    ) -> Job:  # fmt: skip
        """A continuation as a job for `submit`; a prompt may be tokens. Raises ContextTooLong, OptionError."""
        self._require("generate")
        if options.get("effort") is not None:
            raise OptionError("effort is for chats; a prompt that is continued has no thoughts.")
        config: Any = self.network.config
        ids = self.prompt_ids(prompt, config.context) if isinstance(prompt, str) else self._known(list(prompt))
        name = self._named(adapter)
        asked = self.options(name, **options)
        return Job(
            ids, asked, after=ids, n=n, best_of=best_of, adapter=name, priority=priority, user=user,
            guide=guide_for(asked, self.tokenizer, config.vocab_size, self.stop_ids, after=ids),
        )  # fmt: skip

    def prepare_chat(
        self, messages: Sequence[Mapping[str, Any]], *, tools: Sequence[Mapping[str, Any]] = (),
        tool_choice: str | Mapping[str, Any] = "auto", parallel_tool_calls: bool = True,
        template: Mapping[str, Any] | None = None, n: int = 1, adapter: str | Path | None = None, priority: int = 0,
        user: str = "", **options: Unpack[Options],
    ) -> Job:  # fmt: skip
        """An answer to a conversation as a job for `submit`.

        `tools` and `tool_choice` are OpenAI's; `template` reaches the chat template by name (enable_thinking …).
        Raises ContextTooLong, OptionError, TemplateError, UnsupportedTask.
        """
        self._require("chat")
        config: Any = self.network.config
        name = self._named(adapter)
        job = ask(
            self.tokenizer, self.answers, messages, self.options(name, **options), tools=tools, choice=tool_choice,
            parallel=parallel_tool_calls, extra=template, vocab_size=config.vocab_size, stop_ids=self.stop_ids,
            context=config.context,
        )  # fmt: skip
        self._known(list(job.prompt))
        return replace(job, n=n, adapter=name, priority=priority, user=user)

    def count(self, messages: Sequence[Mapping[str, Any]], **given: Any) -> int:
        """Tokens of a conversation, with all that the chat template puts around it; takes what `chat` does."""
        return len(self.prepare_chat(messages, **given).prompt)

    def submit(self, job: Job, deliver: Deliver) -> Ticket:
        """Have a job written beside the others; `deliver` gets its pieces in the engine's thread, an error as the last.

        Raises Busy, ContextTooLong, OptionError.
        """
        return self.engine.submit(job, deliver)

    def add_adapter(self, name: str, folder: str | Path) -> Any:
        """Load a LoRA in PEFT's layout, for jobs that name it; one of that name is replaced. A network that writes
        nothing gets a copy of what it changes, and `with_adapter` gives the model that has it.

        Raises NotFound, CheckpointError.
        """
        folder, family = Path(os.path.expanduser(folder)), self.card.recognised.family.name
        if os.path.isfile(folder):
            told = examine(folder).kind.sentence.removeprefix("No: ")
            raise CheckpointError(
                f"{folder}: {told} A LoRA of a {family} is a folder with adapter_config.json, as PEFT's."
            )
        with self._adapting:
            given = folder, self.card.recognised, self.network
            found: Adapter | Merged = fill_adapter(*given) if self._steps else merged(*given)
            self.adapters[name], self._adapted[name] = folder, found
        return found

    def with_adapter(self, adapter: Any) -> Model:
        """The same model, whose verbs use an adapter where none is named; what it does not change is shared.

        A brolly.verbs.Adapter, a folder in PEFT's layout or a name among `adapters`. Raises NotFound, CheckpointError.
        """
        if getattr(adapter, "kind", "") == "full":
            raise OptionError(
                f"{adapter.path} is a whole model, not an adapter; load it: brolly.load({str(adapter.path)!r})."
            )
        name = str(getattr(adapter, "path", adapter))
        if name not in self.adapters or name in self._adapted:  # a folder may have been tuned anew
            self.add_adapter(name, self.adapters.get(name, Path(name)))
        return self.adapted(name)

    def adapted(self, name: str) -> Model:
        """The same by one of `adapters`, loaded if it was not. Raises NotFound, CheckpointError."""
        found = self.adapter(name)
        if isinstance(found, Merged):
            return self._whole_with(found)
        view: Model = copy(self)
        view.__dict__ |= {"_whole": self.__dict__.get("_whole", self), "_by": name}
        return view

    def _whole_with(self, found: Merged) -> Model:
        """The model of a network that has an adapter in it, made once."""
        with self._adapting:
            if found.model is None:
                card = copy(self.card)
                for section in ("verbs", "verbs_why"):
                    card.__dict__.pop(section, None)
                card.__dict__["recognised"] = found.base
                found.model = Model(card, found.network, fused=self._blocks != "torch")
                found.model.__dict__ |= {"adapters": self.adapters, "_adapted": self._adapted}
                read = ("tokenizer", "preprocess", "prompts", "defaults")
                found.model.__dict__ |= {part: self.__dict__[part] for part in read if part in self.__dict__}
            made: Model = found.model
            return made

    @property
    def _steps(self) -> bool:
        """Whether it writes token by token, so that an adapter can be chosen by request."""
        return "generate" in self.card.recognised.tasks

    def remove_adapter(self, name: str) -> None:
        """Forget a LoRA; what is being written with it is written to its end. Raises NotFound."""
        if self.adapters.pop(name, None) is None:
            raise NotFound(self._lacking(name))
        self._adapted.pop(name, None)

    def adapter(self, name: str) -> Any:
        """The LoRA of a name, loaded if it was not. Raises NotFound, CheckpointError."""
        if found := self._adapted.get(name):  # without waiting for another's load
            return found
        with self._adapting:
            if name not in self.adapters:
                raise NotFound(self._lacking(name))
            return self._adapted.get(name) or self.add_adapter(name, self.adapters[name])

    def close(self) -> None:
        """Stop its threads and give back what it holds; afterwards it can do nothing. Twice does no harm."""
        held = self.__dict__
        if "_whole" in held:  # a view holds nothing of its own
            return
        if "engine" in held:
            self._stop()
        settler = self.runner.settler if "runner" in held else None
        if settler:
            settler.stop = True
            settler.join()
        if release := held.get("_release"):
            for name, _ in self.network.named_parameters():
                release(name)  # its file's pages, even where somebody still has a view of them
        card = self.card
        held.clear()
        self.card = card

    def score(self, text: str | Sequence[int], *, top: int = 0, adapter: str | Path | None = None) -> Score:
        """Log-probability of each token of a text, or of tokens, given those before it; `top` tells the likeliest."""
        self._require("score")
        ids = self._known(self.tokenizer.encode(text) if isinstance(text, str) else list(text))
        texts = [self.tokenizer.token_text(i) for i in ids]
        network: Any = self.network
        name = self._named(adapter)
        heard = network if name is None else Heard(network, self.adapter(name))
        return score(heard, Causal(network.config), ids, texts, network.config.context, self.device, top)

    def embed(self, inputs: Any, **options: Unpack[Embed]) -> Embeddings:
        """A vector for each input of a list, or for one: a str is a text; a Path, bytes, a Pillow picture or an array
        is an image. Raises ContextTooLong, MediaError, OptionError, UnsupportedTask."""
        return gather_vectors(self.stream_embed(many(inputs), **options))

    def stream_embed(self, inputs: Sequence[Any], **options: Unpack[Embed]) -> Iterator[Embedding]:
        """The same vectors one by one as they are ready, in no order; an input's error takes its vector's place."""
        self._require("embed")
        return embed(self, inputs, read_options(EmbedOptions, options))

    def similarity(self, a: Any, b: Any, **options: Unpack[Embed]) -> Any:
        """The cosine of each of a's inputs (or Embeddings) with each of b's: a float32 array (len a, len b)."""
        rows, columns = (x if isinstance(x, Embeddings) else self.embed(x, **options) for x in (a, b))
        return similarities(rows, columns)

    def classify(
        self, images: Any, labels: Sequence[str] | None = None, *, templates: Sequence[str] | None = None,
        top: int | None = None, batch_size: int = 32,
    ) -> Any:  # fmt: skip
        """The likeliest `labels` of an image, or a list of them for a list; a str is a path.

        Each label is put into every one of the `templates` ("a photo of a {}."). A network with a classifier of its
        own takes no labels; that of an encoder of texts takes texts. Raises ContextTooLong at a label longer than the
        model reads.
        """
        found = list(self.stream_classify(many(images), labels, templates=templates, top=top, batch_size=batch_size))
        for one in found:
            if isinstance(one, Exception):
                raise one
        return found if isinstance(images, (list, tuple, Iterator)) else found[0]

    def stream_classify(
        self, images: Sequence[Any], labels: Sequence[str] | None = None, *,
        templates: Sequence[str] | None = None, top: int | None = None, batch_size: int = 32,
    ) -> Iterator[Classification | BrollyError]:  # fmt: skip
        """The same for many images, one by one in order; an image's error takes its place."""
        self._require("classify")
        read_options(ClassifyOptions, {"top": top, "batch_size": batch_size})
        own = getattr(self.network.config, "labels", ())
        if own and (labels is not None or templates is not None):
            raise OptionError(f"{self.card.header.path} tells its own {len(own):,} labels apart; give it none.")
        if own and hasattr(self.network, "scores"):
            if odd := next((one for one in images if not isinstance(one, str)), None):
                raise OptionError(f"{self.card.header.path} labels texts; a {type(odd).__name__} was given.")
            return classify_texts(self, images, top, batch_size)
        if own:
            return classify(self, images, own, None, top, batch_size)
        if labels is None:
            raise OptionError("there are no labels; give those that an image may have, such as ['cat', 'dog'].")
        templates = self.templates if templates is None else templates
        check_labels(labels, templates)
        key = tuple(labels), tuple(templates)
        vectors = self._labels.get(key)
        if vectors is None:
            vectors = label_vectors(self, labels, key[1], 256)
            self._labels = {key: vectors}  # the last ones, which a folder shares
        return classify(self, images, key[0], vectors, top, batch_size)

    def rerank(
        self, query: str, documents: Sequence[str], *, top: int | None = None, instruction: str | None = None,
        truncate: bool = True, batch_size: int = 32,
    ) -> list[Ranked]:  # fmt: skip
        """The documents in the order in which they answer the query, the best first.

        `instruction` tells a language model that judges what counts as an answer. Raises ContextTooLong, OptionError.
        """
        self._require("rerank")
        given = {"top": top, "instruction": instruction, "truncate": truncate, "batch_size": batch_size}
        return rerank(self, query, list(documents), read_options(RerankOptions, given))

    def transcribe(self, audio: Any, *, rate: int | None = None, **options: Unpack[Transcribe]) -> Transcript:
        """What is said in a sound: a path, bytes, an open binary file, an AudioStream, or an array of samples at `rate`
        (16 kHz). Raises MediaError, OptionError, UnsupportedTask."""
        return self.stream_transcript(audio, rate=rate, **options).gather()

    def stream_transcript(self, audio: Any, *, rate: int | None = None, **options: Unpack[Transcribe]) -> Transcribing:
        """The same segment by segment, each as soon as it is ready, in constant memory."""
        self._require("transcribe")
        asked = read_options(TranscribeOptions, options)
        return Transcribing(self.ear, as_stream(audio, rate), asked)

    def draw(self, prompt: str, images: Sequence[Any] = (), **options: Unpack[Draw]) -> Drawing:
        """Pictures of what a text says, or `images` changed as it says. No family here draws yet: UnsupportedTask."""
        self._require("draw")
        raise AssertionError("a family that draws brings its loop")

    def speak(self, text: str, **options: Unpack[Speak]) -> Speech:
        """A text as sound. No family here speaks yet: UnsupportedTask."""
        self._require("speak")
        raise AssertionError("a family that speaks brings its loop")

    def detect_language(self, audio: Any, *, rate: int | None = None) -> dict[str, float]:
        """Each language's probability by the first half minute, the likeliest first."""
        self._require("transcribe")
        return detect_language(self.ear, as_stream(audio, rate))

    @cached_property
    def ear(self) -> Ear:
        """What hears and writes, where the model is a Whisper."""
        config: Any = self.network.config
        network: Any = self.network
        if config.audio_context < N_FRAMES // 2 or config.context < LEAST_CONTEXT:
            raise CheckpointError(
                f"{self.card.header.path} has {config.audio_context:,} places of sound and {config.context:,} of text; "
                f"expected {N_FRAMES // 2:,}, half a minute's, and at least {LEAST_CONTEXT}."
            )
        tokens = load_whisper_tokens(self.card.header, config.vocab_size, self.defaults)
        latest = self.defaults.get("max_initial_timestamp_index", FIRST_TIME)
        heads = alignment_heads(config, self.defaults)
        return Ear(Listener(network), tokens, heads, latest if type(latest) is int and latest >= 0 else FIRST_TIME)

    @property
    def templates(self) -> tuple[str, ...]:
        """What stands around a label: the family's own words."""
        sigmoid = getattr(self.network.config, "sigmoid", False)
        return ("This is a photo of {}.",) if sigmoid else ("a photo of a {}.",)

    @cached_property
    def preprocess(self) -> Preprocess:
        """How the network's pictures are prepared."""
        config: Any = self.network.config
        return load_preprocess(self.card.header, self.card.recognised.family.name, config.vision.image_size)

    def prompted(self, text: str, role: str | None) -> str:
        """A text with what its role asks for before it."""
        return self.prompts.before(role) + text

    @cached_property
    def prompts(self) -> Prompts:
        """What the model's own files put before a text, by its role."""
        return prompts_of(self.card.header)

    def describe(self) -> str:
        """Which path the network takes here, in a few words."""
        if "generate" in self.card.verbs:
            return self.runner.describe()
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{self._blocks}, {torch.get_num_threads()} threads, {dtype} on {self.device}"

    @once
    def runner(self) -> Runner:
        """What steps a causal language model."""
        return Runner(self.network, self._release)

    @once
    def engine(self) -> Engine:
        """What writes many answers at a time."""
        config: Any = self.network.config
        asked = dict(self.engine_options)
        n_blocks = blocks_for(config.context, Pages.block_bytes(self.network), self.device, asked.pop("n_bytes", None))
        window = None if None in config.windows else max(config.windows)
        pages = Pages(self.network, n_blocks, self.runner.settling)
        asked = {"least": 64 if isinstance(pages.fused, str) else 8} | asked  # torch's passes cost much, however small
        own = weakref.WeakMethod(self.adapter)  # an engine must not keep its model
        engine = Engine(
            pages, self.tokenizer, context=config.context, stop_ids=self.stop_ids, window=window,
            adapter=lambda name: (find := own()) and find(name), **asked,
        )  # fmt: skip
        self._stop = weakref.finalize(self, engine.close)
        return engine

    @cached_property
    def tokenizer(self) -> Tokenizer:
        found = load_tokenizer(self.card.header)
        for marker in self.prompts.markers:
            found.mark(marker)
        return found

    @cached_property
    def defaults(self) -> dict[str, Any]:
        """generation_config.json, where there is one."""
        path: Path = self.card.header.folder / "generation_config.json"
        return json_object(path) if path.is_file() else {}

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end an answer: the generation config's, the config's and the tokenizer's."""
        found: set[int] = set()
        for said in (
            self.defaults.get("eos_token_id"),
            self.card.header.config.get("eos_token_id"),
            self.tokenizer.eos_id,
        ):
            found.update(i for i in (said if isinstance(said, list) else [said]) if type(i) is int)
        return frozenset(found)

    def _said(self, adapter: str | None) -> tuple[Mapping[str, Any], Path]:
        """generation_config.json of an adapter that has one, else the checkpoint's; and where it lies."""
        own = self.adapter(adapter).folder if adapter is not None else None
        path = own / "generation_config.json" if own else None
        if path and path.is_file():
            return json_object(path), path
        return self.defaults, self.card.header.folder / "generation_config.json"

    def options(self, adapter: str | None = None, **given: Any) -> GenerateOptions:
        """What was asked for, then what the adapter or the checkpoint recommends. Raises OptionError."""
        asked: GenerateOptions = read_options(GenerateOptions, given)
        if not isinstance(asked.logit_bias, Mapping):
            raise OptionError(f"logit_bias is {asked.logit_bias!r:.80}; it must map token ids to numbers.")
        for token, bias in asked.logit_bias.items():
            if type(token) is not int or type(bias) not in (int, float) or not isfinite(bias):
                raise OptionError(f"logit_bias is {{{token!r}: {bias!r}}}; it must map token ids to finite numbers.")
        vocab: Any = self.network.config.vocab_size  # type: ignore[union-attr]
        if beyond := [token for token in asked.logit_bias if not 0 <= token < vocab]:
            raise OptionError(f"logit_bias names token {beyond[0]}; this vocabulary has 0 to {vocab - 1}.")
        said, source = self._said(adapter)
        known = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty")
        advice: dict[str, Any] = {k: said[k] for k in known if type(said.get(k)) in (int, float)}
        if said.get("do_sample") is False or (said and "do_sample" not in said and "temperature" not in said):
            greedy = said.get("do_sample") is False and said.get("temperature") == 0  # what was tuned says both
            advice = {k: v for k, v in advice.items() if k == "repetition_penalty" or (greedy and k == "temperature")}
        try:
            return replace(asked, **{k: v for k, v in advice.items() if getattr(asked, k) is None})
        except OptionError as error:
            raise CheckpointError(f"{source}: {error}") from None

    def _named(self, adapter: str | Path | None) -> str | None:
        """The name of an adapter that is loaded; a folder's is its path."""
        if adapter is None:
            return self._by
        name = str(adapter)
        if name not in self.adapters and os.path.exists(os.path.expanduser(name)):
            self.add_adapter(name, name)
        self.adapter(name)
        return name

    def _lacking(self, adapter: str) -> str:
        known = ", ".join(self.adapters) or "none"
        return f"there is no adapter {adapter!r:.200}; there are {known}. Give the folder of one in PEFT's layout."

    def prompt_ids(self, prompt: str, most: int | None) -> list[int]:
        """A prompt's tokens, as `generate` reads it. Raises ContextTooLong where it cannot be `most` or fewer."""
        self._require("generate")
        ids = self.tokenizer.encode(prompt, most=most)
        if (
            len(ids) > 1
            and ids[-1] == self.tokenizer.eos_id
            and self.tokenizer.encode(prompt, special=False)[-1:] != ids[-1:]
        ):
            ids = ids[:-1]  # a post-processor that ends every text would end this one before it began
        start = self.tokenizer.bos_id if self.tokenizer.bos_id is not None else self.tokenizer.eos_id
        return self._known(ids or ([start] if start is not None else []))

    @cached_property
    def answers(self) -> AnswerFormat:
        """How it writes tool calls and thoughts."""
        if self.tokenizer.template is None:
            self.tokenizer.prompt([])  # says what is missing
        assert self.tokenizer.template
        return format_of(self.tokenizer.template, self.tokenizer)

    def _known(self, ids: list[int]) -> list[int]:
        """The same ids, if the network has a row for each: without one, all that is computed beside it would fail."""
        config: Any = self.network.config
        if min(ids, default=0) < 0:
            raise OptionError(f"the prompt holds token {min(ids)}; they go from 0 to {config.vocab_size - 1}.")
        if max(ids, default=0) >= config.vocab_size:
            raise TokenizerError(
                f"{self.tokenizer.source} makes token {max(ids)}, and the network has {config.vocab_size}; put this "
                "model's own tokenizer beside it."
            )
        return ids

    def _alone(self, job: Job) -> Iterator[Piece]:
        """A job's answer, written on its own in this thread."""
        config: Any = self.network.config
        steps = self.runner if job.adapter is None else Adapted(self.runner, self.adapter(job.adapter))
        return stream(
            steps, self.tokenizer, job, context=config.context, stop_ids=self.stop_ids, device=self.device
        )  # fmt: skip

    def _require(self, verb: str) -> None:
        found = self.card.recognised
        if verb not in found.tasks:
            raise UnsupportedTask(
                f"{self.card.header.path} is a {found.family.name} ({', '.join(found.tasks)}); it cannot {verb}."
            )
