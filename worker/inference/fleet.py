"""Brings an infer process to what the node was told to serve, while jobs run, and watches the files of it."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from marketplace.protocol.errors import WattError
from marketplace.protocol.hexes import to_hex
from marketplace.telemetry.logs import get_logger
from marketplace.telemetry.names import Log
from worker.inference.pool import EnginePool
from worker.ledger import DatabaseFailed, Ledger
from worker.models import CATALOGUE, ModelDir, ModelError, manifest
from worker.models.rules import Serving, servings
from worker.models.serving import SERVING, ServingBook
from worker.models.shelf import Shelf

_POLL_SECONDS: Final = 0.5
_LOWEST_PRIORITY: Final = 19

log = get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Version:
    """A version that jobs may be for.

    Attributes:
        source: the settings' name whose price holds.
        name: what buyers may call it; a version on trial has the name of the one it is tried for.
        canary_bps: above 0 while it is on trial.
        offered: False while it only finishes what it was offered for.
    """

    source: str
    model_id: bytes
    name: str
    task: str
    context_tokens: int
    canary_bps: int = 0
    offered: bool = True


Report = Callable[[Sequence[Version]], None]


class Fleet:
    """The versions of one infer process. `start` first; `step` is for one thread, `rehash` for another."""

    def __init__(
        self,
        *,
        ledger: Ledger,
        shelf: Shelf,
        pool: EnginePool,
        priced: Sequence[str],
        pinned: frozenset[str],
        now_ms: Callable[[], int],
        made_for: Callable[[str, ModelDir], ModelDir] = lambda _source, model: model,
    ) -> None:
        """`made_for` gives a model the task that the settings name for its source."""
        self._made_for = made_for
        self._ledger = ledger
        self._book = ServingBook(ledger)
        self._shelf = shelf
        self.pool = pool
        self._priced = priced
        self._pinned = pinned
        self._now_ms = now_ms
        self._seen: str | None = None
        self._models: dict[str, ModelDir] = {}
        self._active: dict[str, Serving] = {}
        self._leaving: dict[bytes, Version] = {}
        self._changed: set[bytes] = set()
        self._stop = threading.Event()

    def start(self) -> None:
        """Loads what is to be served.

        Raises:
            ModelError: a model that cannot be used.
            EngineFailed: a model that could not be loaded.
        """
        self._seen = self._ledger.notes.get(SERVING)
        self._book.note_problem("")
        for item in servings(self._priced, self._book.stored()):
            self._active[item.source] = item
            for name in item.wanted:
                self.pool.add(self._found(item, name), pinned=item.source in self._pinned)
            self._go_on_leaving(item)
        self.pool.load()
        for version in self.versions():
            log.info(Log.MODEL_LOADED, model=version.name, task=version.task)

    def versions(self) -> list[Version]:
        """What jobs may be for now."""
        current = [version for item in self._active.values() for version in self._versions(item)]
        known = {version.model_id for version in current}
        # A copy: another thread may ask while this one changes it.
        left = [version for key, version in list(self._leaving.items()) if key not in known]
        return [version for version in (*current, *left) if version.model_id not in self._changed]

    def watch(self, report: Report, *, rehash_seconds: int) -> None:
        """Follows what the node is told, and hashes files again, on threads of its own until `close`."""
        threading.Thread(target=self._follow, args=(report,), name="fleet", daemon=True).start()
        if rehash_seconds:
            again = (report, rehash_seconds)
            threading.Thread(target=self._hash_again, args=again, name="rehash", daemon=True).start()

    def step(self) -> bool:
        """One look at what the node is told; whether the versions changed."""
        told = self._ledger.notes.get(SERVING)
        changed = self._drop_those_that_left()
        if told == self._seen:
            return changed
        self._seen = told
        before, problems = self.versions(), list[str]()
        wanted = servings(self._priced, json.loads(told) if told else [])
        ready = {item.source: self._readied(item, problems) for item in wanted}
        self._active = {source: item for source, item in ready.items() if item is not None}
        self._retire(before)
        self._book.note_problem("; ".join(problems))
        return True

    def rehash(self) -> list[str]:
        """Hashes every model's files once; those that changed run no new job. Gives what was found."""
        found = []
        for model in self.pool.models():
            try:
                manifest.verify(model.path, model.model_id, licence=model.manifest.licence)
            except ModelError as error:
                self.pool.condemn(model.model_id, error.detail)
                self._changed.add(model.model_id)
                _say_failed(model.path.name, error.detail)
                found.append(error.detail)
            if self._stop.is_set():
                break
        if found:
            self._book.note_problem("; ".join(found))
        return found

    def close(self) -> None:
        """Stops threads and engines. Idempotent."""
        self._stop.set()
        self.pool.close()

    def _follow(self, report: Report) -> None:
        while not self._stop.wait(_POLL_SECONDS):
            try:
                if self.step():
                    report(self.versions())
            except (WattError, ModelError, DatabaseFailed, OSError, ValueError, TypeError) as error:
                log.exception(Log.LOOP_FAILED, loop="models", reason=type(error).__name__)

    def _hash_again(self, report: Report, every_seconds: int) -> None:
        if hasattr(os, "setpriority"):
            # On Linux a thread has a priority of its own: hashing takes only what jobs leave.
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _LOWEST_PRIORITY)
        while not self._stop.wait(every_seconds):
            try:
                if self.rehash():
                    report(self.versions())
            except (WattError, DatabaseFailed, OSError) as error:
                log.exception(Log.LOOP_FAILED, loop="rehash", reason=type(error).__name__)

    def _readied(self, item: Serving, problems: list[str]) -> Serving | None:
        """The serving once all its versions are in memory; what served before, where one cannot be."""
        try:
            for name in item.wanted:
                model = self._found(item, name)
                self.pool.add(model, pinned=item.source in self._pinned)
                self.pool.engine_for(model.model_id)
        except (ModelError, WattError) as error:
            problems.append(f"{item.source}: {error.detail}")
            _say_failed(item.source, error.detail)
            return self._active.get(item.source)
        return item

    def _retire(self, before: Sequence[Version]) -> None:
        staying = {version.model_id for item in self._active.values() for version in self._versions(item)}
        for model in self.pool.models():
            if model.model_id not in staying:
                self.pool.retire(model.model_id)
        for version in before:
            if version.model_id not in staying:
                self._leaving[version.model_id] = replace(version, canary_bps=0, offered=False)
        for model_id in staying:
            self._leaving.pop(model_id, None)
        names = {name for item in self._active.values() for name in item.wanted}
        self._models = {name: model for name, model in self._models.items() if name in names}

    def _drop_those_that_left(self) -> bool:
        """Forgets versions whose last offer has ended and whose last job is done: both were promised."""
        gone = [
            model_id
            for model_id in self._leaving
            if self._ledger.offers.last_end(model_id) * 1000 <= self._now_ms()
            and not self._ledger.offers.unfinished(model_id)
            and self.pool.forget(model_id)
        ]
        for model_id in gone:
            version = self._leaving.pop(model_id)
            log.info(Log.STOPPED, name="model", model=version.name, model_id=to_hex(model_id))
        return bool(gone)

    def _go_on_leaving(self, item: Serving) -> None:
        """The version before, while jobs may still be for it: it was leaving when the process ended."""
        if item.previous is None:
            return
        try:
            model = self._made_for(item.price, self._shelf.find(item.previous))
        except ModelError as error:
            log.warning(Log.MODEL_FAILED, model=item.previous, reason=error.detail)
            return
        self.pool.add(model)
        self.pool.retire(model.model_id)
        self._leaving[model.model_id] = self._version(item, model, offered=False)

    def _found(self, item: Serving, name: str) -> ModelDir:
        if name not in self._models:
            self._models[name] = self._made_for(item.price, self._shelf.find(name))
        return self._models[name]

    def _versions(self, item: Serving) -> list[Version]:
        trial = self._found(item, item.canary) if item.canary else None
        steady = [self._version(item, self._found(item, item.current))]
        return steady if trial is None else [*steady, self._version(item, trial, canary_bps=item.canary_bps)]

    def _version(
        self, item: Serving, model: ModelDir, *, canary_bps: int = 0, offered: bool = True
    ) -> Version:
        return Version(
            source=item.price,
            model_id=model.model_id,
            name=_called(item.source),
            task=model.task.value,
            context_tokens=model.entry.context_tokens if model.entry else _context_tokens(model.path),
            canary_bps=canary_bps,
            offered=offered,
        )


def _called(source: str) -> str:
    """What buyers call a model: its name in the catalogue or on the shelf, its folder's, or its hub id's."""
    if source in CATALOGUE or "/" not in source:
        return source
    return Path(source).name if Path(source).is_dir() else source.replace("/", "--") + "@main"


def _say_failed(model: str, reason: str) -> None:
    # The sentence is for the operator; a traceback would bury it.
    log.error(Log.MODEL_FAILED, model=model, reason=reason)


def _context_tokens(path: Path) -> int:
    config = json.loads((path / "config.json").read_text())
    # A model of images reads one at a time.
    return int(config.get("max_position_embeddings") or config.get("n_positions") or 1)
