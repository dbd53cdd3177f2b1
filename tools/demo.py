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

Have Groq refuse key #1 for 30 s, enhance three times, so that its turn comes, and see who cools:

  curl {sim}/sim/faults -d '{{"name": "rate_limit", "key": "gsk_demo_1", "retry_after": 30}}'

  for key in 1 2 3; do \\
    curl localhost:{port}/enhance -H 'Content-Type: application/json' -d '{{"prompt": "hello"}}'; done

  curl localhost:{port}/health

Ctrl-C ends it.
"""


def is_taken(port: int) -> bool:
    """Whether somebody serves there, under any of localhost's addresses, to whom prompts and keys would go."""
    for address in ("127.0.0.1", "::1"):
        try:
            socket.create_connection((address, port), timeout=1).close()
            return True
        except TimeoutError:
            return True
        except OSError:
            pass  # nobody
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


def ports(port: str = "3000", sim_port: str = "4000") -> tuple[int, int]:
    """The two, as numbers; ends the program in one sentence where they won't do."""
    for text, name, other in ((port, "PORT", sim_port), (sim_port, "SIM_PORT", port)):
        if not text.isdecimal() or not 0 < int(text) < 65536 or text == other:
            sys.exit(f"{name} must be a number from 1 to 65535, and PORT another than SIM_PORT")
        if is_taken(int(text)):
            free = max(int(port), int(sim_port)) % 65535 + 1
            sys.exit(f"Port {text} is taken by another program: end that, or type make demo {name}={free}")
    return int(port), int(sim_port)


def main() -> int:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    port, sim_port = ports(*sys.argv[1:])
    with (
        suppress(KeyboardInterrupt),
        GroqSim(KEYS, port=sim_port, latency=0.3) as groq,
        service(port, groq.url) as server,
    ):
        if answers(server, port):
            print(LINES.format(port=port, sim=groq.url, token=TOKEN), flush=True)
        while server.poll() is None:
            time.sleep(0.2)  # not wait(), which would not notice a signal that comes just as it begins
        return server.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
