"""A pool's state at one instant, with what the pool was told when it was made: all that a decision may look at."""

from dataclasses import dataclass

from promptlord.pool.quota import FREE_PLAN, PERIODS, RPM, TPM, Bucket, Lane
from promptlord.pool.state import HEAD, HOUR, Hour, Key, KeyRecord, State

HOURS = 24  # that are remembered
MANY = 1000  # lanes, beyond which idle ones are forgotten: clients choose the models' names


@dataclass(frozen=True)
class Rules:
    """``cooldown``: seconds that a failed key cools where Groq names no time. ``timeout``: of a call, in seconds.

    ``per_minute``: requests that a lane admits; 0: as many as one likes; ``None``: the free plan's, while the
    answers' headers show no other plan.
    """

    keys: tuple[Key, ...]
    cooldown: float
    per_minute: int | None
    timeout: float

    def buckets(self) -> dict[str, Bucket]:
        """Those of a new lane: its requests a minute, which no header tells, and its tokens until one does."""
        buckets = {TPM: Bucket(FREE_PLAN[TPM], PERIODS[TPM], presumed=True)}
        if self.per_minute is None:
            buckets[RPM] = Bucket(FREE_PLAN[RPM], PERIODS[RPM], presumed=True)
        elif self.per_minute:
            buckets[RPM] = Bucket(self.per_minute, PERIODS[RPM])
        return buckets


@dataclass(slots=True)
class Books:
    """The state at the instant ``now``."""

    rules: Rules
    state: State
    now: float

    def see(self, key: Key) -> KeyRecord:
        """What is known of a key, to be looked at only: of one that is new, nothing is kept."""
        return self.state.keys.get(key.id) or KeyRecord(owner=key.id)

    def see_lane(self, key: Key, model: str) -> Lane:
        """The lane of the key's organization for the model, to be looked at only."""
        return self.state.lanes.get((self.see(key).owner, model)) or Lane(buckets=self.rules.buckets())

    def head(self) -> State:
        """What is no key's and no lane's, to be changed."""
        self.state.changed.add(HEAD)
        return self.state

    def record(self, key: Key) -> KeyRecord:
        """What is known of a key, to be changed."""
        self.state.changed.add(("key", key.id))
        return self.state.keys.get(key.id) or self.state.keys.setdefault(key.id, KeyRecord(owner=key.id))

    def lane(self, key: Key, model: str) -> Lane:
        """The lane of the key's organization for the model, to be changed."""
        return self.lane_of(self.see(key).owner, model)

    def lane_of(self, owner: str, model: str) -> Lane:
        """The same by its owner."""
        name, lanes = (owner, model), self.state.lanes
        self.state.changed.add(("lane", *name))
        if lane := lanes.get(name):
            return lane
        if len(lanes) >= max(MANY, 4 * len(self.rules.keys)):
            for idle in [name for name, lane in lanes.items() if lane.busy_until() <= self.now]:
                self.take_lane(*idle)
        return lanes.setdefault(name, Lane(buckets=self.rules.buckets()))

    def take_lane(self, owner: str, model: str) -> Lane:
        """A lane that is forgotten under this name."""
        self.state.changed.add(("lane", owner, model))
        return self.state.lanes.pop((owner, model))

    def put_lane(self, owner: str, model: str, lane: Lane) -> None:
        """Remember it under another name."""
        self.state.changed.add(("lane", owner, model))
        self.state.lanes[owner, model] = lane

    def hour(self) -> Hour:
        """The present one, to be changed. Those of yesterday are forgotten when it begins."""
        number, hours, changed = int(self.now // HOUR), self.state.hours, self.state.changed
        changed.add(("hour", str(number)))
        if hour := hours.get(number):
            return hour
        for old in [old for old in hours if old <= number - HOURS]:
            changed.add(("hour", str(old)))
            del hours[old]
        return hours.setdefault(number, Hour())

    def next_number(self) -> int:
        """Of a reservation: what was begun later has a greater one, whoever began it and whatever he knew."""
        state = self.head()
        state.number = max(state.number + 1, int(self.now * 1e6))
        return state.number

    def owners(self) -> dict[str, list[Key]]:
        """The keys by organization; one whose organization is not known yet is an organization of its own."""
        owners: dict[str, list[Key]] = {}
        for key in self.rules.keys:
            owners.setdefault(self.see(key).owner, []).append(key)
        return owners
