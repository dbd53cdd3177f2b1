"""A state as it is known here, and what of it Redis has. Whoever keeps it locks it."""

from collections.abc import Callable, Mapping
from typing import Any

from promptlord.pool import parts
from promptlord.pool.reunion import join, reunite
from promptlord.pool.script import Reply
from promptlord.pool.state import Part, State

UNKNOWN = -1  # the version of one who has not heard of Redis yet
EMPTIED = "⚠️  Redis was emptied, or has lost something: it is told what is known here"
UNREADABLE = "⚠️  Redis holds what this release has not written: it is ignored, and written anew"


class Replica:
    """One of several of the same state. ``version``: up to which it knows what the others have written."""

    def __init__(self, now: float, warn: Callable[[str], None]) -> None:
        self.state = State(now)
        self.version = UNKNOWN
        self._warn = warn
        self._epoch = 0  # the version in which the state was first written
        self._known: dict[Part, bytes] = {}  # the parts as they are in the version
        self._sent: dict[Part, bytes | None] = {}  # what has changed here, and is on its way
        self.unheard: dict[Part, bytes | None] = {}  # what Redis may have accepted, though it was not heard to

    def changes(self) -> dict[Part, bytes | None]:
        """What has changed here, to be sent; ``None``: it is no more."""
        texts = {part: parts.encode(self.state, part) for part in self.state.changed}
        self.state.changed.clear()
        self._sent = {part: text for part, text in texts.items() if text != self._known.get(part)}
        return self._sent

    def keep(self) -> None:
        """What was on its way was refused: it is still to be sent."""
        self.state.changed |= self._sent.keys()
        self._sent = {}

    def lose(self) -> None:
        """Nobody has heard what became of what was on its way: it is to be sent again."""
        self.unheard = self._sent or self.unheard
        self.keep()

    def hear(self, reply: Reply, jump: float) -> None:
        """What any reply tells, and by how many seconds the clock jumps with it."""
        another = self.is_another(reply)
        if another or self.version == UNKNOWN:  # what is known here was told by another clock
            self.state.shift(jump)
        if reply.discarded:
            self._warn(UNREADABLE)
        elif another:
            self._warn(EMPTIED)

    def is_another(self, reply: Reply) -> bool:
        """Whether Redis has not the state that was known: it was emptied, is behind, or somebody else wrote there."""
        return bool(self._epoch) and (reply.epoch != self._epoch or reply.version < self.version)

    def forget(self) -> None:
        """All that is known here is to be sent: Redis has another state."""
        self._known.clear()
        self._sent, self.unheard = {}, {}
        self.version, self._epoch = UNKNOWN, 0
        self.state.changed = self.state.parts()

    def accept(self, reply: Reply, writes: Mapping[Part, bytes | None]) -> None:
        """What was sent is written."""
        self.version, self._epoch, self._sent = reply.version, reply.epoch, {}
        self._know(writes)
        if writes:
            self.unheard = {}

    def give_in(self, reply: Reply) -> None:
        """Others were faster: be as they say, without what has changed here."""
        told = self._take(reply)
        for part in self.state.changed | self._sent.keys() | told.keys():
            self._put(part, self._known.get(part))
        self.state.changed.clear()
        self._sent = {}

    def reunite(self, reply: Reply, now: float) -> None:
        """Make what has changed here and what the others have written one, which is still to be sent."""
        self.keep()
        # If what nobody heard of is what we wrote last, all of us have begun from that.
        known = self._known | (self.unheard if reply.wrote == self.version else {})
        if reply.version != self.version:
            self.unheard = {}
        for part, text in self._take(reply).items():
            if part in self.state.changed:
                base, theirs = self._read(part, known.get(part)), self._read(part, text)
                both = reunite(part, base, parts.value(self.state, part), theirs, now)
                parts.place(self.state, part, both)
            else:
                self._put(part, text)
        join(self.state, lambda part: self._read(part, known.get(part)), now)

    def _take(self, reply: Reply) -> dict[Part, bytes | None]:
        """What a reply tells of the parts is known then."""
        told: dict[Part, bytes | None] = dict.fromkeys(self._known) if reply.complete else {}
        for name, text in zip(reply.told[::2], reply.told[1::2], strict=True):
            if part := parts.named(name):
                told[part] = text or None
        self.version, self._epoch = reply.version, reply.epoch
        self._know(told)
        return told

    def _know(self, texts: Mapping[Part, bytes | None]) -> None:
        for part, text in texts.items():
            if text is None:
                self._known.pop(part, None)
            else:
                self._known[part] = text

    def _put(self, part: Part, text: bytes | None) -> None:
        parts.place(self.state, part, self._read(part, text))

    def _read(self, part: Part, text: bytes | None) -> Any:
        """What a text says; what nobody can read is as good as none."""
        try:
            return None if text is None else parts.decode(part, text)
        except parts.Malformed:
            self._known.pop(part, None)
            self._warn(UNREADABLE)
            return None
