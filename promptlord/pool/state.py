"""What a pool remembers, and what of it may be shown: plain data."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from promptlord.pool.quota import Cooling, Lane


@dataclass(frozen=True)
class Key:
    """One Groq API key. Its ``label`` is all that is ever shown."""

    number: int
    secret: str = field(repr=False, compare=False)

    @property
    def label(self) -> str:
        return f"#{self.number}"

    @property
    def id(self) -> str:
        """What the key is called in a state that machines share, whatever its place in their lists."""
        return hashlib.sha256(self.secret.encode()).hexdigest()[:16]


@dataclass
class Standing:
    """What is known of a key. ``owner``: its organization, its own id until that is known."""

    owner: str
    fails: int = 0  # since its last success
    requests: int = 0  # since the start
    failures: int = 0  # since the start
    cooling: Cooling = field(default_factory=Cooling)


@dataclass
class State:
    """All that a pool remembers: plain data, so that it can be shared. Instants are the clock's."""

    started_at: float
    turn: int = 0
    bookings: int = 0
    names: dict[str, str] = field(default_factory=dict)  # of organizations, where their ids must not be shown
    keys: dict[str, Standing] = field(default_factory=dict)  # by id
    lanes: dict[tuple[str, str], Lane] = field(default_factory=dict)  # by owner and model


@dataclass(frozen=True)
class KeyState:
    """A key as it is shown. ``owner``: the name of its organization (``A``), its own label until that is known."""

    label: str
    owner: str
    requests: int  # sent to Groq since the start
    failures: int
    cooling: Cooling


@dataclass(frozen=True)
class Snapshot:
    """The pool at the instant ``now``, ``uptime`` seconds after its start; lanes are by owner and model."""

    now: float
    uptime: float
    per_minute: int
    keys: Sequence[KeyState]
    lanes: Mapping[tuple[str, str], Lane]
