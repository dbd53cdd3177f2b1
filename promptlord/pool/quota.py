"""What one organization may do with one model: a cooldown, buckets that refill continuously, a queue."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

RPM = "requests per minute"  # named as in the sentences of Groq's refusals
TPM = "tokens per minute"
RPD = "requests per day"
PERIODS = {RPM: 60.0, TPM: 60.0, RPD: 86400.0}  # seconds


def units(name: str, need: int) -> int:
    """What a request of ``need`` tokens takes from the bucket ``name``."""
    return need if name == TPM else 1


@dataclass
class Bucket:
    """Up to ``limit`` units, refilled from empty to full in ``period`` seconds, and full again at ``full_at``.

    ``lag``: seconds that a request may take to reach Groq, where its refill begins. Had one that met the bucket full
    been longer on its way than a later one, the later would come too early for its slot.
    """

    limit: float
    period: float
    full_at: float = 0.0
    lag: float = 0.0

    def refill(self, amount: float) -> float:
        """Seconds that it takes to refill ``amount``."""
        return amount * self.period / self.limit

    def left(self, now: float) -> float:
        """Units that can be taken at once; below zero while overdrawn."""
        return self.limit * (1 - max(0.0, self.full_at - now) / self.period)


@dataclass(frozen=True)
class Allowance:
    """What an answer's headers say of a bucket: its limit, and in how many seconds it would be full again."""

    limit: float
    full_in: float


@dataclass
class Booking:
    """A request of ``need`` tokens that waits for its slot, until ``expires`` at the latest."""

    number: int
    need: int
    expires: float


@dataclass
class Cooling:
    """Until when something is out of rotation, why, and how many failures of its own it has had in a row."""

    until: float = 0.0
    streak: int = 0
    reason: str = ""


@dataclass
class Lane(Cooling):
    """One organization, one model. ``sent`` counts all that was ever taken, ``believed`` up to where headers knew."""

    buckets: dict[str, Bucket] = field(default_factory=dict)
    queue: list[Booking] = field(default_factory=list)
    sent: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PERIODS, 0.0))
    believed: dict[str, float] = field(default_factory=lambda: dict.fromkeys(PERIODS, 0.0))

    def ready_at(self, need: int, ahead: int | None = None) -> float:
        """The instant from which a request of ``need`` tokens fits, after the first ``ahead`` of the queue (or all).

        One that is larger than a bucket would never fit: it waits for a full one, and Groq decides.
        """
        needs = [booking.need for booking in self.queue[:ahead]] + [need]
        ready = self.until
        for name, bucket in self.buckets.items():
            amount = sum(min(units(name, need), bucket.limit) for need in needs)
            ready = max(ready, bucket.full_at + bucket.refill(amount) - bucket.period)
        return ready

    def charge(self, need: int, now: float) -> dict[str, float]:
        """Take what a request needs; return what has been taken by then, to be given to ``learn`` and ``refund``."""
        for name, bucket in self.buckets.items():
            amount = min(units(name, need), bucket.limit)
            bucket.full_at = max(bucket.full_at, now + bucket.lag) + bucket.refill(amount)
        for name in PERIODS:
            self.sent[name] += units(name, need)
        return dict(self.sent)

    def refund(self, need: int, sent: Mapping[str, float]) -> None:
        """Give back what a refused request took, except where headers already knew better."""
        for name, bucket in self.buckets.items():
            if self.believed[name] < sent[name]:
                bucket.full_at -= bucket.refill(min(units(name, need), bucket.limit))

    def learn(self, told: Mapping[str, Allowance], sent: Mapping[str, float] | None, now: float) -> None:
        """Believe the headers of an answer, unless those of a later request are known.

        They count the requests up to their own, when ``sent`` had been taken; what was taken since is added. Without
        ``sent`` they may be old: only bad news is believed.
        """
        for name, allowance in told.items():
            full_at, known = now + allowance.full_in, self.buckets.get(name)
            if sent is None:
                full_at = max(full_at, known.full_at if known else 0.0)
            elif (mark := min(sent[name], self.sent[name])) < self.believed[name]:
                continue
            else:
                self.believed[name] = mark
                full_at += (self.sent[name] - mark) * PERIODS[name] / allowance.limit
            self.buckets[name] = Bucket(allowance.limit, PERIODS[name], full_at)

    def refuse(self, name: str, need: int, seconds: float, now: float) -> None:
        """Believe a refusal: this bucket has no room for such a request until ``seconds`` from now."""
        if bucket := self.buckets.get(name):
            full_at = now + seconds + bucket.period - bucket.refill(min(units(name, need), bucket.limit))
            bucket.full_at = max(bucket.full_at, full_at)

    def merge(self, other: "Lane", now: float) -> None:
        """Take over what another lane knows, now that both prove to be one; the worse news wins."""
        if other.until > self.until:
            self.until, self.reason = other.until, other.reason
        self.streak = max(self.streak, other.streak)
        for name, bucket in other.buckets.items():
            mine = self.buckets.setdefault(name, Bucket(bucket.limit, bucket.period, lag=bucket.lag))
            if name == RPM:  # counted here, for each apart: together they have used both
                both = max(mine.full_at, now) + max(0.0, bucket.full_at - now)
                mine.full_at = min(both, now + bucket.period)
            else:
                mine.full_at = max(mine.full_at, bucket.full_at)
        self.queue = sorted(self.queue + other.queue, key=lambda booking: booking.number)

    def idle(self, now: float) -> bool:
        """Whether forgetting it loses nothing."""
        busy_until = max([self.until, *(bucket.full_at for bucket in self.buckets.values())])
        return not self.queue and not self.streak and busy_until <= now

    def copy(self) -> "Lane":
        """The same at this instant, for whoever looks on."""
        buckets = {name: replace(bucket) for name, bucket in self.buckets.items()}
        return replace(self, buckets=buckets, queue=self.queue[:])
