"""A server on this machine as if it were far away: what passes takes its time, or stays where it is."""

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import Connection

from rig import beside

CHUNK = 1 << 16  # bytes read at once


class Faraway:
    """The near end of the way, in a process of its own; listens on ``port``."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe
        self.port: int = pipe.recv()

    def fall_silent(self) -> None:
        """Hold back what comes and what is on its way, in both directions; connections are accepted all the same."""
        self._tell(False)

    def go_on(self) -> None:
        """Let go of what was held back, at once and in its order."""
        self._tell(True)

    def _tell(self, open_: bool) -> None:
        self._pipe.send(open_)
        self._pipe.recv()


@contextmanager
def faraway(port: int, round_trip: float) -> Iterator[Faraway]:
    """Put this machine's server on ``port`` so many seconds of round trip away.

    Delay alone, not bandwidth: whatever is on its way travels at the same time. A connection is accepted at once, so
    that connecting takes no round trip; it is closed at once if nobody listens at the far end.
    """
    with beside(_serve, port, round_trip / 2) as pipe:
        yield Faraway(pipe)


def _serve(pipe: Connection, port: int, delay: float) -> None:
    # epoll counts in whole milliseconds, and would add one to each way.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(Way(port, delay).serve(pipe))


class Way:
    """Between here and a far port of this machine."""

    def __init__(self, port: int, delay: float) -> None:
        self._port, self._delay = port, delay
        self._open, self._over = asyncio.Event(), asyncio.Event()
        self._open.set()

    async def serve(self, pipe: Connection) -> None:
        """Tell where this listens, and do as told until nobody is there to tell."""
        async with await asyncio.start_server(self._connect, "127.0.0.1", 0) as server:
            pipe.send(server.sockets[0].getsockname()[1])
            asyncio.get_running_loop().add_reader(pipe.fileno(), self._obey, pipe)
            await self._over.wait()

    def _obey(self, pipe: Connection) -> None:
        try:
            (self._open.set if pipe.recv() else self._open.clear)()
            pipe.send(None)
        except (EOFError, OSError):
            self._over.set()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(self._carry(reader, far_writer), self._carry(far_reader, writer))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Send what is read a delay later, until its end."""
        held: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        arrival, clock, data = asyncio.create_task(self._arrive(held, writer)), asyncio.get_running_loop().time, b"any"
        while data:
            data = b""
            with suppress(OSError):  # a reset is an end like another
                data = await reader.read(CHUNK)
            held.put_nowait((clock() + self._delay, data))
        await arrival

    async def _arrive(self, held: asyncio.Queue[tuple[float, bytes]], writer: asyncio.StreamWriter) -> None:
        clock, data = asyncio.get_running_loop().time, b"any"
        while data:
            due, data = await held.get()
            await asyncio.sleep(due - clock())
            await self._open.wait()
            writer.write(data)
        writer.close()
