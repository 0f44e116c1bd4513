"""Files that clients leave here: each a folder with its bytes and what is known of it, whole or not there at all."""

from __future__ import annotations

import json
import os
import re
import shutil
import threading
import time
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from brolly.errors import DiskFull
from brolly.serve.errors import Refused

ABOUT = "about.json"
PART = 1 << 20  # bytes copied at once
RECORD = 4096  # bytes that a file takes beside its own, so that empty ones count too
IDS = re.compile(r"file-[0-9a-f]{32}")


class Files:
    """Files by id, each seen by its owner alone. Every method may be called from any thread, and waits for the disk."""

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder, self.most_bytes = folder, most_bytes
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._lock = threading.Lock()
        for left in folder.glob(".file-*"):  # of an upload that was cut off
            shutil.rmtree(left, ignore_errors=True)
        self._bytes = sum(one["bytes"] + RECORD for one in self._all())

    def put(
        self, source: IO[bytes], name: str, purpose: str, owner: str = "", seconds: float | None = None
    ) -> dict[str, Any]:
        """Copy what a stream holds; on return it is on the disk. Raises Refused, DiskFull."""
        self._forget_old()
        id, now = f"file-{uuid4().hex}", time.time()
        part = self.folder / f".{id}"
        size = taken = 0
        try:
            part.mkdir(mode=0o700)
            taken += self._take(RECORD)
            with (part / kept_name(name)).open("wb") as file:
                while piece := source.read(PART):
                    taken += self._take(len(piece))
                    size += len(piece)
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
            about = {
                "id": id, "object": "file", "bytes": size, "created_at": int(now), "filename": name, "purpose": purpose,
                "status": "processed", "expires_at": None if seconds is None else int(now + seconds), "owner": owner,
            }  # fmt: skip
            (part / ABOUT).write_text(json.dumps(about), "utf-8")
            os.rename(part, self.folder / id)
        except OSError as error:
            raise DiskFull(f"the file could not be kept ({error.strerror}).") from None
        finally:
            if part.exists():
                shutil.rmtree(part, ignore_errors=True)
                self._take(-taken)
        return about

    def _take(self, size: int) -> int:
        """Count bytes before they are written, whoever else writes. Raises Refused."""
        with self._lock:
            if size > 0 and self._bytes + size > self.most_bytes:
                text = f"The files here would be more than {self.most_bytes:,} bytes; delete some."
                raise Refused(text, 413, param="file")
            self._bytes += size
        return size

    def get(self, id: str, owner: str = "") -> dict[str, Any]:
        """What is known of a file. Raises Refused."""
        found = self._read(id) if IDS.fullmatch(id) else None
        if found is None or found["owner"] != owner or _old(found):
            raise Refused(f"No such File object: {id:.80}", 404, param="id")
        return found

    def path(self, id: str, owner: str = "") -> Path:
        """Where its bytes lie. Raises Refused."""
        return self.folder / id / kept_name(self.get(id, owner)["filename"])

    def of(self, owner: str = "", purpose: str | None = None) -> list[dict[str, Any]]:
        """Those of an owner, the oldest first."""
        found = [one for one in self._all() if one["owner"] == owner and purpose in (None, one["purpose"])]
        found = [one for one in found if not _old(one)]
        return sorted(found, key=lambda one: (one["created_at"], one["id"]))

    def delete(self, id: str, owner: str = "") -> None:
        """Forget a file. Raises Refused."""
        self._drop(self.get(id, owner))

    def _drop(self, about: dict[str, Any]) -> None:
        gone = self.folder / f".{about['id']}"
        try:
            os.rename(self.folder / about["id"], gone)
        except OSError:  # another one was first
            return
        shutil.rmtree(gone, ignore_errors=True)
        self._take(-about["bytes"] - RECORD)

    def _forget_old(self) -> None:
        for one in self._all():
            if _old(one):
                self._drop(one)

    def _all(self) -> list[dict[str, Any]]:
        found = (self._read(path.name) for path in self.folder.glob("file-*"))
        return [one for one in found if one is not None]

    def _read(self, id: str) -> dict[str, Any] | None:
        try:
            found: dict[str, Any] = json.loads((self.folder / id / ABOUT).read_text("utf-8"))
        except (OSError, ValueError):
            return None
        return found


def _old(about: dict[str, Any]) -> bool:
    return about["expires_at"] is not None and about["expires_at"] < time.time()


def linked(path: Path, to: Path) -> Path:
    """A file of these that stays when it is deleted here; what is there already is left. Raises Refused, DiskFull."""
    try:
        os.link(path, to)
    except FileExistsError:
        pass
    except FileNotFoundError:
        raise Refused("The file was deleted meanwhile.", 404, param="file_id") from None
    except OSError:  # a disk without links
        try:
            shutil.copyfile(path, to)
        except OSError as error:
            raise DiskFull(f"the file could not be kept ({error.strerror}).") from None
    return to


def kept_name(name: str) -> str:
    """What a file is called on this disk: nothing of a client's name but its ending, by which it is read."""
    suffixes = "".join(re.findall(r"\.[a-z0-9]{1,8}", name.lower()[-24:])[-2:])
    return f"content{suffixes}"
