"""The landing of one group: its batches, each made visible by one manifest created only if absent.

```text
landing.json                       the landing's identity
manifests/0000000007.json          batch 7: the commit
data/0000000007-<attempt>/         the files of one attempt at 7: `intent.json` first
questions/ answers/                what a person decides, beside the head it was asked at
```
"""

from __future__ import annotations

import hashlib
import re
import uuid
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import TypeVar

import msgspec

from naviglio.errors import ConfigError, IdentityError, LostRaceError
from naviglio.landing.attempt import Attempt
from naviglio.model import Manifest, Question
from naviglio.points import reach
from naviglio.ports import Store

_IDENTITY = "landing.json"
_FOLDER = re.compile(r"(\d{10})-(\w+)")
_T = TypeVar("_T")


class _Identity(msgspec.Struct, frozen=True):
    """What `landing.json` holds."""

    id: str
    group: str
    created_at_utc: datetime


@dataclass(frozen=True, kw_only=True)
class Head:
    """The newest batch; number 0 and no manifest where nothing has landed yet."""

    number: int = 0
    manifest: Manifest | None = None
    sha256: str = ""


@dataclass(frozen=True)
class Landing:
    """All batches of a group, append-only."""

    store: Store
    group: str

    def identity(self) -> str | None:
        """Return the landing's id, or None while there is no landing."""
        data = self.store.read(_IDENTITY)
        if data is None:
            return None
        found = self._decode(_IDENTITY, data, _Identity)
        if found.group != self.group:
            raise IdentityError(
                f"{self.store.root} is the landing of group {found.group!r}, not of "
                f"{self.group!r}. Give every group a folder of its own."
            )
        return found.id

    def found(self) -> str:
        """Return the landing's id; make the landing where there is none.

        IdentityError where there are batches and no identity: they would go on as another's.
        """
        new = _Identity(id=uuid.uuid4().hex, group=self.group, created_at_utc=datetime.now(UTC))
        if self.identity() is None:
            if self._bytes(1) is not None and self.identity() is None:  # else made in between
                raise IdentityError(
                    f"{self.store.root} holds batches, but its {_IDENTITY} is gone. Restore the "
                    "landing's folder from a copy."
                )
            self.store.create(_IDENTITY, msgspec.json.encode(new))
        return self.identity() or self.found()

    def head(self) -> Head:
        """Find the newest batch: numbers have no gaps, so doubling and halving find the last."""
        low, high = 0, 1
        while self._bytes(high) is not None:
            low, high = high, high * 2
        while high - low > 1:
            middle = (low + high) // 2
            if self._bytes(middle) is None:
                high = middle
            else:
                low = middle
        return self._head(low) if low else Head()

    def batch(self, number: int) -> Manifest:
        """Return the manifest of a batch; IdentityError when there is none."""
        return self._manifest(number)[0]

    def after(self, number: int) -> Iterator[Manifest]:
        """Yield every batch after `number` in order, each checked against the one before."""
        previous = self._head(number).sha256 if number else ""
        while (data := self._bytes(number + 1)) is not None:
            number += 1
            manifest = self._decode(_path(number), data, Manifest)
            if manifest.previous != previous or manifest.number != number:
                raise IdentityError(
                    f"{self.store.root}/{_path(number)} does not follow manifest {number - 1}: one "
                    "was changed or comes from another landing. Restore the landing's folder."
                )
            previous = hashlib.sha256(data).hexdigest()
            yield manifest

    @contextmanager
    def attempt(self, head: Head) -> Iterator[Attempt]:
        """Try the number after `head`; the attempt's files are removed when this ends badly.

        The caller ends it by `commit`, by `give_up`, or by `Attempt.abandon` when there is nothing
        to land.
        """
        attempt = Attempt(store=self.store, number=head.number + 1)
        try:
            yield attempt
        except BaseException:
            self.give_up(attempt)
            raise

    def give_up(self, attempt: Attempt) -> None:
        """Remove the files of an attempt that ended badly, unless that was after its commit."""
        if self._winner(attempt.number) != attempt.id:
            attempt.abandon()

    def commit(self, attempt: Attempt, manifest: Manifest) -> None:
        """Make the batch visible, if its number is still free; LostRaceError when it is not.

        Dead attempts at taken numbers are removed first: a number that is still free is a living
        writer's, for all one can know.
        """
        self._remove_dead(attempt.number - 1)
        attempt.note_intent()
        reach("capture: before manifest")
        data = msgspec.json.encode(manifest)
        created = self.store.create(_path(manifest.number), data)
        if not created and self._winner(manifest.number) != manifest.attempt:
            raise LostRaceError(
                f"group {self.group!r}: batch {manifest.number} was committed by another worker; "
                "nothing of this attempt is visible. Run again."
            )
        reach("capture: after manifest")

    # --- questions ------------------------------------------------------------------------------

    def ask(self, question: Question) -> None:
        """Record a question beside the head that it was asked at."""
        self.store.create(f"questions/{_question_name(question)}", msgspec.json.encode(question))

    def questions(self, head: int) -> list[Question]:
        """Return the questions at `head` that no answer covers."""
        asked, answers = self._records("questions", head), self._records("answers", head)
        return [q for q in asked if not any(_covers(answer, q) for answer in answers)]

    def answered(self, question: Question) -> bool:
        """Whether an answer at the question's head covers what was found."""
        return any(_covers(a, question) for a in self._records("answers", question.head))

    def accept(self, question: Question, by: str) -> None:
        """Answer a question: what it found may land; `by` is whoever says so."""
        answer = replace(question, accepted_by=by, accepted_at_utc=datetime.now(UTC))
        self.store.create(f"answers/{_question_name(question)}", msgspec.json.encode(answer))

    def answers(self) -> list[Question]:
        """Return all answers, with who gave them; the next batch after their head rests on them."""
        return self._records("answers")

    def withdraw(self, head: int, table: str, *kinds: str) -> None:
        """Forget the questions of a table and their answers: the source answered by changing.

        An answer that stayed would cover what happens to the table later.
        """
        for folder in ("questions", "answers"):
            for question in self._records(folder, head):
                if question.table == table and question.kind in kinds:
                    self.store.remove(f"{folder}/{_question_name(question)}")

    def _records(self, folder: str, head: int | None = None) -> list[Question]:
        begin = "" if head is None else f"{head:010d}-"
        names = [n for n in self.store.names(folder) if n.startswith(begin)]
        found = [(name, self.store.read(f"{folder}/{name}")) for name in names]
        return [self._decode(name, data, Question) for name, data in found if data is not None]

    # --- inner ----------------------------------------------------------------------------------

    def _head(self, number: int) -> Head:
        manifest, sha256 = self._manifest(number)
        return Head(number=number, manifest=manifest, sha256=sha256)

    def _manifest(self, number: int) -> tuple[Manifest, str]:
        data = self._bytes(number)
        if data is None:
            raise IdentityError(
                f"{self.store.root} has no batch {number}, though a lake table has applied it. "
                "Restore the landing's folder, or move the lake table away to start over."
            )
        return self._decode(_path(number), data, Manifest), hashlib.sha256(data).hexdigest()

    def _bytes(self, number: int) -> bytes | None:
        return self.store.read(_path(number))

    def _winner(self, number: int) -> str | None:
        """Return the attempt that the manifest of a number names, None while it is free."""
        data = self._bytes(number)
        return None if data is None else self._decode(_path(number), data, Manifest).attempt

    def _decode(self, path: str, data: bytes, kind: type[_T]) -> _T:
        try:
            return msgspec.json.decode(data, type=kind)
        except msgspec.DecodeError as error:
            raise ConfigError(
                f"{self.store.root}/{path} is damaged or of another version: {error}. Restore it."
            ) from error

    def unlanded(self, head: int) -> Iterator[Attempt]:
        """Yield the attempts that have files and are no batch: dead ones, and living ones.

        The only folder of a taken number is its batch's own, and is not looked into.
        """
        folders: dict[int, list[str]] = defaultdict(list)
        for name in self.store.names("data"):
            if found := _FOLDER.fullmatch(name):  # what else somebody put there is not ours
                folders[int(found[1])].append(found[2])
        for number, ids in folders.items():
            landed = self._winner(number) if number <= head and len(ids) > 1 else None
            if number > head or landed:
                yield from (
                    Attempt(store=self.store, number=number, id=one) for one in ids if one != landed
                )

    def _remove_dead(self, head: int) -> None:
        """Remove attempts at numbers that others took."""
        for attempt in self.unlanded(head):
            if attempt.number <= head:
                self.store.remove(attempt.folder)


def _path(number: int) -> str:
    return f"manifests/{number:010d}.json"


def _question_name(question: Question) -> str:
    what = f"{question.table}\0{question.kind}\0{question.found}".encode()
    return f"{question.head:010d}-{hashlib.sha256(what).hexdigest()[:16]}.json"


def _covers(answer: Question, question: Question) -> bool:
    if (answer.table, answer.kind) != (question.table, question.kind):
        return False
    if question.kind != "mass delete":
        return answer.found == question.found
    (asked, *by), (accepted, *of) = (one.found.split() for one in (question, answer))
    return bool(by) == bool(of) and {*by} <= {*of} and int(asked) <= int(accepted)
