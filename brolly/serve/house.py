"""The models of one server: found by name, loaded when asked for, kept within the memory, given back when idle."""

from __future__ import annotations

import asyncio
import logging
import sys
import time
import traceback
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any

from brolly.errors import BrollyError, Busy, NotFound, OptionError, UnsupportedTask
from brolly.identity import Card, examine, name_of
from brolly.remote.prices import Budget
from brolly.serve import memory
from brolly.serve.account import current
from brolly.serve.elsewhere import Elsewhere, manners_of, unkeyed
from brolly.serve.errors import Refused
from brolly.serve.ledger import Ledger, Share
from brolly.serve.names import Entry, find, pick, served
from brolly.serve.settings import Settings

log = logging.getLogger("brolly.serve")

REMEMBERED = 5.0  # seconds that a load's failure is told again without trying
PATIENCE = 5.0  # seconds that a model waits for room before those in use are asked to finish and go
TICK = 1.0  # seconds between two looks for models whose time has run out


@dataclass(frozen=True)
class Use:
    """A model in use: it is not unloaded before the use ends."""

    name: str  # as the request said it
    entry: Entry
    model: Any
    adapter: str | None = None  # of "base:adapter"


class House:
    """The models of these settings. Its methods are called on the event loop and never block it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.monotonic) -> None:
        self.settings, self.clock = settings, clock
        found, self.notes = served(settings, quiet=not sys.stderr.isatty())
        self.entries = {entry.name: entry for entry in found}
        self.ledger = Ledger(settings.memory or 0, clock)
        self.budget = Budget(settings.max_cost)  # of all models elsewhere together
        prices = {find(found, name).name: price for name, price in settings.prices.items()}
        for entry in found:
            if entry.target is not None:  # it takes no memory, so it neither comes nor goes
                manners = manners_of(settings, prices.pop(entry.name, None))
                entry.model = Elsewhere(entry.target, entry.name, budget=self.budget, **manners)
                entry.share.ready = True
                continue
            entry.share.keep_alive = settings.keep_alive
            self.ledger.shares.append(entry.share)
        if prices:
            raise OptionError(f"{min(prices)} is on this disk and has no price; name a model that runs elsewhere.")
        for name in settings.pin:
            pick(found, name)[0].share.pinned = True
        self.device = settings.device or "cpu"  # until `start` has looked
        self.watch: Callable[[str], Callable[[Any], None]] | None = None  # a model's name → what its engine tells
        self.counts: Counter[tuple[str, str]] = Counter()  # ("loads", "unloads" or "failures", model) → how many
        self._closed = False
        self._one = asyncio.Lock()  # a load at a time: so its growth can be measured, and the disk read in order
        self._growing: dict[Entry, tuple[int, int]] = {}  # bytes of the process before, bytes of weights
        self._closing: set[asyncio.Task[None]] = set()
        self._change = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to look at the machine and the models, then load what is pinned; returns at once."""
        self.surveyed = asyncio.create_task(self._survey())
        self.looked = asyncio.create_task(self._look())
        self._tasks = [self.surveyed, self.looked, asyncio.create_task(self._tick())]
        self._tasks += [asyncio.create_task(self._keep(e)) for e in self.entries.values() if e.share.pinned]

    async def close(self) -> None:
        """Unload everything; whoever still waits is told so."""
        self._closed = True
        self._changed()
        for task in self._tasks:
            task.cancel()
        loading = [entry.loading for entry in self.entries.values() if entry.loading]
        await asyncio.gather(*self._tasks, *loading, return_exceptions=True)
        for entry in self.entries.values():
            if entry.target is not None:
                await entry.model.client.aclose()
            elif entry.model is not None:
                self._release(entry)
        await self._shut()

    def ready(self) -> bool:
        """Whether everything that is pinned is loaded."""
        pinned = [entry for entry in self.entries.values() if entry.share.pinned]
        return not self._closed and all(entry.model is not None for entry in pinned)

    def find(self, name: str) -> tuple[Entry, str | None]:
        """The entry of a name, an alias or "base:adapter", and the adapter. Raises NotFound."""
        if found := self.entries.get(name):
            return found, None
        return pick(self.entries.values(), name)

    def card(self, entry: Entry) -> Card:
        """What identify tells of it, without loading it; read behind the start, or here where that is not done yet."""
        if entry.card is None and entry.target is not None:
            entry.card = entry.model.card
        elif entry.card is None:
            own = entry.name if entry.revision == "bundled" else name_of(entry.path)
            entry.card = examine(entry.path, own)
        return entry.card

    async def read(self, entry: Entry) -> Card:
        """The same, never on the event loop."""
        return entry.card if entry.card is not None else await asyncio.to_thread(self.card, entry)

    @asynccontextmanager
    async def use(
        self, name: str, verb: str = "", priority: int = 0, keep_alive: float | None = None
    ) -> AsyncIterator[Use]:
        """The model of a name, loaded, and kept while in use. Raises NotFound, UnsupportedTask, Busy, load's errors.

        Without a verb, whatever the model can do. `keep_alive` replaces how long it stays idle, in seconds; below 0:
        for ever.
        """
        entry, adapter = self.find(name)
        verbs = await self.verbs(entry)
        if verb and verb not in verbs and (adapter is None or "generate" in verbs):  # one may bring a classifier
            raise UnsupportedTask(f"{entry.name} can {', '.join(verbs)}; it cannot {verb}.")
        if (account := current.get()) is not None:
            account.uses(entry.name, verb, elsewhere=entry.target is not None)
        model = await self._enter(entry)
        try:
            if keep_alive is not None:
                entry.share.keep_alive = keep_alive
            if adapter is not None:
                if adapter not in entry.adapted:
                    await self._adapt(entry, model, adapter)
                if not self._steps(model):
                    model = model.adapted(adapter)
                    if verb and verb not in model.card.verbs:
                        can = ", ".join(model.card.verbs)
                        raise UnsupportedTask(f"{entry.name} with {adapter} can {can}; it cannot {verb}.")
            yield Use(name, entry, model, adapter)
        finally:
            del model  # a frame that lives on would keep its memory
            self._leave(entry)

    async def verbs(self, entry: Entry) -> tuple[str, ...]:
        """What a model can do here. Raises what is wrong with one that can do nothing."""
        if entry.target is not None:
            return entry.verbs
        card = await self.read(entry)
        return card.verbs or card.recognised.tasks  # no verbs: the second tells why

    async def load(self, name: str, *, keep_alive: float | None = None, pin: bool | None = None) -> Entry:
        """Load a model, and say how long it stays; one that runs elsewhere is there. Raises as `use` does."""
        async with self.use(name, keep_alive=keep_alive) as use:
            if pin is not None:
                use.entry.share.pinned = pin
            return use.entry

    async def unload(self, name: str) -> Entry:
        """Unpin a model and let it go: now, or as soon as the requests that use it are done."""
        entry, _ = self.find(name)
        if entry.target is not None:
            return entry
        entry.share.pinned = False
        if entry.model is not None and not entry.share.uses:
            self._release(entry)
        elif entry.share.uses:
            entry.share.keep_alive = 0
        if not entry.share.uses:
            await self._shut()
        return entry

    def state(self, entry: Entry) -> str:
        """In a word: loaded, leaving, loading, waiting (for memory), failed, away (on the disk), or elsewhere."""
        if entry.target is not None:
            return "elsewhere"
        if entry.model is not None:
            return "leaving" if entry.share.leaving or not entry.share.keep_alive else "loaded"
        if entry.loading is not None:
            return "loading" if entry in self._growing else "waiting"
        return "failed" if self._failure(entry) else "away"

    def progress(self, entry: Entry) -> tuple[int, int]:
        """Bytes that have come since its load began, as the process grew, and bytes that are expected."""
        if entry not in self._growing:
            return 0, 0
        before, expected = self._growing[entry]
        return min(max(memory.taken(self.device) - before, 0), expected), expected

    # what a test replaces: a model's size, its loading, and what it holds

    def need(self, entry: Entry) -> memory.Need:
        """What a model will take; in a thread."""
        settings = self.settings
        return memory.predict(self.card(entry), self.ledger.total, settings.device, settings.dtype)

    def bring(self, entry: Entry, cache: int) -> Any:
        """The model, with so many bytes for its keys and values; in a thread."""
        from brolly.loader import load

        memory.keep_imports()
        model: Any = load(entry.path, device=self.settings.device, dtype=self.settings.dtype)
        model.adapters = entry.adapters
        if "generate" in model.card.verbs:
            settings = self.settings
            asked = {"n_bytes": cache, "queue": settings.waiting, "prefixes": settings.prefix_cache}
            model.engine_options = asked
            engine = model.engine  # made here and once, kernels compiled: not by whichever request comes first
            if self.watch is not None:
                engine.observe = self.watch(entry.name)
        return model

    def held(self, model: Any, grown: int) -> int:
        """Bytes that a loaded model takes, where the process grew by so many (0: unknown)."""
        weights = memory.held(model)
        # weights that stay mapped from their file are not in what grew; copied ones are
        return grown if grown > 0.9 * weights else weights + max(grown, 0)

    # inside

    async def _survey(self) -> None:
        """Which device there is, and how much memory. Raises OptionError."""
        settings = self.settings
        if self.entries and all(entry.target for entry in self.entries.values()):
            return

        def look() -> tuple[str, int]:
            from brolly.fill import COMPUTE, choose_device

            if settings.dtype not in (None, *COMPUTE):
                raise OptionError(f"dtype {settings.dtype!r} is not known; expected {', '.join(COMPUTE)}.")
            return str(choose_device(settings.device)), settings.memory or memory.budget(settings.device)

        self.device, self.ledger.total = await asyncio.to_thread(look)

    async def _look(self) -> None:
        """Read every card; what was found in the cache and cannot be run is not served."""

        def read(entry: Entry) -> str:
            try:
                if entry.target is not None and (note := unkeyed(entry.target)):
                    self.notes.append(f"{entry.name}: {note}")
                card = self.card(entry)
                card.json()  # so that no section is worked out on the event loop
                return "" if card.verbs or entry.target else card.verbs_why
            except (BrollyError, OSError) as error:
                return str(error)

        for entry in list(self.entries.values()):
            entry.fault = await asyncio.to_thread(read, entry)
            if entry.card and "generate" not in entry.card.verbs:
                for name in entry.unsure:  # one that did not say its base was given to all
                    entry.adapters.pop(name, None)
            if entry.fault and not entry.asked and not entry.share.uses:
                log.info("%s is not served: %s", entry.name, entry.fault)
                del self.entries[entry.name]
                self.ledger.shares.remove(entry.share)

    async def _keep(self, entry: Entry) -> None:
        """Load a pinned model; why it cannot be is in the log, and the server runs on."""
        try:
            await self.load(entry.name)
        except BrollyError as error:
            log.error("%s is pinned and was not loaded: %s", entry.name, error)

    async def _tick(self) -> None:
        while True:
            self.sweep()
            await self._wait(TICK)

    def sweep(self) -> None:
        """Let those go whose time has run out, and idle ones where memory is overdrawn."""
        gone = {*self.ledger.expired(), *self.ledger.over()}
        for entry in [e for e in self.entries.values() if e.share in gone]:
            self._release(entry)

    async def _enter(self, entry: Entry) -> Any:
        """The loaded model, and one use more of it."""
        share = entry.share
        while share.leaving and not self._closed:
            await self._wait(TICK)
        self._open()
        if entry.model is None and share.uses >= self.settings.waiting:
            raise Busy(f"{share.uses:,} requests wait for {entry.name} already; try again later.", 5)
        self.ledger.enter(share)
        try:
            while entry.model is None:
                if error := self._failure(entry):
                    raise error.with_traceback(None)
                if entry.loading is None:
                    entry.loading = asyncio.create_task(self._load(entry))
                    entry.loading.add_done_callback(lambda task: task.cancelled() or task.exception())
                await asyncio.shield(entry.loading)
        except BaseException:
            self._leave(entry)
            raise
        return entry.model

    def _open(self) -> None:
        if self._closed:
            raise Refused("The server is shutting down.", 503, "server_error")

    async def _adapt(self, entry: Entry, model: Any, name: str) -> None:
        """Load an adapter at its first use, and count it to its model; where that is too much, idle models go."""
        found = await asyncio.to_thread(model.adapter, name)
        if not self._steps(model):
            await asyncio.to_thread(model.adapted, name)
        if name not in entry.adapted:
            entry.adapted[name] = found.n_bytes
            entry.share.n_bytes += found.n_bytes
            log.info("%s:%s is loaded: %s", entry.name, name, memory.in_words(found.n_bytes))
            self.sweep()

    def _steps(self, model: Any) -> bool:
        """Whether a model takes an adapter request by request; of others there is one model with and one without."""
        return "generate" in model.card.verbs

    def drop_adapter(self, entry: Entry, name: str) -> None:
        """Serve an adapter no more; answers that are written with it are written to their end."""
        if entry.model is not None:
            with suppress(NotFound):
                entry.model.remove_adapter(name)
        entry.adapters.pop(name, None)
        entry.share.n_bytes -= entry.adapted.pop(name, 0)

    def _leave(self, entry: Entry) -> None:
        self.ledger.leave(entry.share)
        if entry.target is None:  # nobody waits for the room of one that has none
            self._changed()

    def _failure(self, entry: Entry) -> BrollyError | None:
        error, at = entry.failed
        return error if error and self.clock() - at < REMEMBERED else None

    async def _load(self, entry: Entry) -> None:
        """One load for all who wait: make room, load in a thread, measure."""
        share = entry.share
        try:
            await asyncio.shield(self.surveyed)
            need = await asyncio.to_thread(self.need, entry)
            cache = await self._room(entry, need)
            async with self._one:
                await self._shut()
                before, others = memory.taken(self.device), self._busy(entry)
                self._growing[entry] = before, need.weights
                began = self.clock()
                model = await asyncio.to_thread(self.bring, entry, cache)
                alone = not others and not self._busy(entry)  # what others computed meanwhile is not this one's
                grown = memory.taken(self.device) - before if alone else 0
                share.n_bytes, share.cache_bytes = self.held(model, grown) + need.workspace + cache, cache
        except Exception as error:
            self.ledger.clear(share)
            known = error if isinstance(error, BrollyError) else None
            if known is None:
                log.exception("%s failed to load", entry.name)
                known = Refused(f"{entry.name} failed to load; the server's log tells why.", 500, "server_error")
            if not isinstance(known, Busy):
                log.warning("%s was not loaded: %s", entry.name, known)
                self.counts["failures", entry.name] += 1
                entry.failed = known, self.clock()
            forget_frames(error)
            await asyncio.to_thread(memory.give_back, self.device)
            raise known from None
        else:
            entry.model, entry.failed, share.ready = model, (None, 0.0), True
            share.used_at = self.clock()
            took = self.clock() - began
            self.counts["loads", entry.name] += 1
            log.info("%s is loaded: %.2f GB in %.1f s", entry.name, share.n_bytes / 1e9, took)
        finally:
            self._growing.pop(entry, None)
            entry.loading = None
            self._changed()

    def _busy(self, entry: Entry) -> bool:
        return any(e.share.uses for e in self.entries.values() if e is not entry)

    async def _room(self, entry: Entry, need: memory.Need) -> int:
        """Reserve a model's bytes, for which idle ones go; returns its share for keys and values.

        Raises Busy when nothing went in time, Refused when it is larger than all the memory.
        """
        ledger, began = self.ledger, self.clock()
        if need.least > ledger.total:
            asked_for, weights, there = (memory.in_words(n) for n in (need.least, need.weights, ledger.total))
            raise Refused(
                f"{entry.name} needs {asked_for} ({weights} of weights), and this server has {there} for models; "
                "give it more with --memory, or ask for a smaller model.",
                400, code="model_too_large",
            )  # fmt: skip
        asked: list[Share] = []
        try:
            while True:
                free = ledger.total - ledger.used  # beside those in use fewer keys and values do too
                for n_bytes in (min(need.best, ledger.total), min(max(need.least, free), need.best)):
                    victims = ledger.victims(n_bytes)
                    if victims is not None:
                        for other in [e for e in self.entries.values() if e.share in victims]:
                            self._release(other)
                        ledger.reserve(entry.share, n_bytes)
                        return n_bytes - need.weights - need.workspace
                waited = self.clock() - began
                self._open()
                if not entry.share.uses:
                    raise Busy(f"nobody waits for {entry.name} any more.")
                if waited >= self.settings.room_seconds:
                    raise Busy(
                        f"{entry.name} needs {memory.in_words(need.least)}, and every model here is in use; try again.",
                        10,
                    )
                if waited >= PATIENCE:
                    for share in ledger.victims(need.least, busy=True) or []:
                        share.leaving = True
                        asked.append(share)
                await self._wait(TICK)
        finally:
            for share in asked:
                share.leaving = False

    def _release(self, entry: Entry) -> None:
        """Take a model away from its entry and close it in a thread."""
        box, entry.model = [entry.model], None
        entry.adapted.clear()
        self.ledger.clear(entry.share)
        entry.share.keep_alive = self.settings.keep_alive  # what a request said holds while the model is here
        self.counts["unloads", entry.name] += 1
        log.info("%s is unloaded", entry.name)

        def shut(name: str, device: str) -> None:
            model = box.pop()
            try:
                model.close()
            except Exception:
                log.exception("%s did not close", name)
            del model
            memory.give_back(device)

        task = asyncio.create_task(asyncio.to_thread(shut, entry.name, self.device))
        self._closing.add(task)
        task.add_done_callback(self._closing.discard)
        self._changed()

    async def _shut(self) -> None:
        """Until every model that was let go is closed; whoever waits here and is cancelled cancels no closing."""
        if self._closing:
            await asyncio.wait(self._closing)

    def _changed(self) -> None:
        """Wake whoever waits for room or for the end."""
        self._change.set()
        self._change = asyncio.Event()

    async def _wait(self, seconds: float) -> None:
        change = self._change
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):  # wait_for would lose a cancelling that comes with the change
                await change.wait()


def forget_frames(error: BaseException | None) -> None:
    """Let go of what an error's frames hold: half a model, where it came in the middle of a load."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error.__traceback__ = None
        error = error.__cause__ or error.__context__
