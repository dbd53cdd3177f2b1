"""Who was told to come back, and when: the memory of those who were turned away. Pure."""

from promptlord.pool.state import HEAD, Promise, State

REMEMBERED = 10_000  # who were turned away, at the most
MEMORY = 120.0  # seconds for which one is remembered after it may come back
SPREAD = 30.0  # seconds by which one may be told to come back later, for the sake of those told before
LONGEST = 3600.0  # seconds; who is told to come back later is not remembered
SHELVES = 256  # parts of a state that they are spread over, so that one that changes is small


def turn_away(
    state: State, now: float, fingerprint: str, ready_in: float, apart: float = 0.0, *, roomier: bool = False
) -> float:
    """Remember whom we tell to come back; return in how many seconds.

    That is ``ready_in``, or as long after the last one that was told as slots are ``apart``: one slot is not
    promised twice, unless very many are turned away. Of too many, the first are forgotten.
    """
    shelf = _shelf(state, fingerprint, now)
    known = shelf.pop(fingerprint, None)
    if known and known.at > now:
        at = max(known.at, now + ready_in)
    else:
        at = now + ready_in
        at = min(max(at, state.promised + apart), at + SPREAD)
    if apart and at > state.promised:
        state.changed.add(HEAD)
        state.promised = at
    if at - now <= LONGEST:
        shelf[fingerprint] = Promise(at, roomier)
    while len(shelf) > REMEMBERED // SHELVES:
        del shelf[next(iter(shelf))]
    return at - now


def returns(state: State, now: float, fingerprint: str) -> Promise | None:
    """The promise given to this request if it comes back when it was told to; it is forgotten then."""
    promise = state.promises.get(fingerprint[:2], {}).get(fingerprint)
    if not promise or not promise.at <= now <= promise.at + MEMORY:
        return None
    del _shelf(state, fingerprint, now)[fingerprint]
    return promise


def _shelf(state: State, fingerprint: str, now: float) -> dict[str, Promise]:
    """Where it is remembered, to be changed; without those that are too late."""
    name = fingerprint[:2]
    state.changed.add(("promises", name))
    old = state.promises.get(name, {})
    shelf = state.promises[name] = {each: promise for each, promise in old.items() if promise.at + MEMORY >= now}
    return shelf
