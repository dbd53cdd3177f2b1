"""The service with three keys of a simulated Groq, for a first look at both. ``make demo``; Ctrl-C ends it.

python tools/demo.py [PORT [PORT OF THE SIMULATED GROQ]]
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from http.client import HTTPConnection
from pathlib import Path

from groqsim import GroqSim

KEYS = {f"gsk_demo_{number}": f"org_demo{number}" for number in (1, 2, 3)}
TOKEN = "demo"
LINES = """
The page is http://localhost:{port}/ and asks for a name and a password: any name, {token}

Try, in another terminal, as often as you like:

  curl localhost:{port}/enhance -H 'Content-Type: application/json' -d '{{"prompt": "write a poem about rain"}}'

  curl localhost:{port}/v1/chat/completions -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' \\
    -d '{{"model": "openai/gpt-oss-20b", "messages": [{{"role": "user", "content": "hello"}}]}}'

Have Groq refuse key #1 for 30 s, enhance three times, one for each key, and see who cools:

  curl {sim}/sim/faults -d '{{"name": "rate_limit", "key": "gsk_demo_1", "retry_after": 30}}'

  for key in 1 2 3; do \\
    curl localhost:{port}/enhance -H 'Content-Type: application/json' -d '{{"prompt": "hello"}}'; done

  curl localhost:{port}/health

Ctrl-C ends it.
"""


def is_taken(port: int) -> bool:
    """Whether somebody serves there, under any of localhost's addresses, to whom prompts and keys would go."""
    for address in ("127.0.0.1", "::1"):
        with suppress(OSError), socket.create_connection((address, port), timeout=1):
            return True
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return True
    return False


@contextmanager
def service(port: int, groq: str) -> Iterator[subprocess.Popen[bytes]]:
    """gunicorn, for this machine alone, with nobody's settings but these."""
    env = {name: os.environ[name] for name in ("HOME", "LANG", "PATH", "TERM", "TMPDIR") if name in os.environ} | {
        "PYTHON_DOTENV_DISABLED": "1",
        "GROQ_BASE_URL": groq,
        "GROQ_API_KEYS": ",".join(KEYS),
        "ACCESS_TOKENS": TOKEN,
        "CLIENT_LIMITS": "",
    }
    command = [sys.executable, "-m", "gunicorn", "--bind", f"127.0.0.1:{port}", "--log-level", "warning"]
    server = subprocess.Popen(command, cwd=Path(__file__).parent.parent, env=env)
    try:
        yield server
    finally:
        server.terminate()
        server.wait()


def answers(server: subprocess.Popen[bytes], port: int) -> bool:
    """Wait until it does; ``False``: it has ended instead, and has said why."""
    while server.poll() is None:
        with suppress(OSError), closing(HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        time.sleep(0.05)
    return False


def main(port: int = 3000, sim_port: int = 4000) -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    for number, name in ((port, "PORT"), (sim_port, "SIM_PORT")):
        if is_taken(number):
            sys.exit(f"Port {number} is taken by another program: end that, or choose another port, as in "
                     f"make demo {name}={number + 1}")  # fmt: skip
    with (
        suppress(KeyboardInterrupt),
        GroqSim(KEYS, port=sim_port, latency=0.3) as groq,
        service(port, groq.url) as server,
    ):
        if answers(server, port):
            print(LINES.format(port=port, sim=groq.url, token=TOKEN), flush=True)
        return server.wait()
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
