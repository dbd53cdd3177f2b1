"""How gunicorn serves the app. Platforms may overrule it with GUNICORN_CMD_ARGS, as Render does with its port."""

import ctypes
import gc
import os
import resource
import sys
from contextlib import suppress

from promptlord.config import Config
from promptlord.errors import ConfigError

DESCRIPTORS = 8192  # for 4,096 connections and 1,000 calls at once, with some to spare

try:
    settings = Config.load()
except ConfigError as error:
    sys.exit(f"❌ {error}")

wsgi_app = "app:app"
bind = f"0.0.0.0:{settings.port}"
workers = settings.workers
worker_class = "promptlord.gunicorn_worker.Worker"
# Each call to Groq holds one of THREADS while it waits; half as many again wait for clients that send or read slowly.
threads = settings.threads * 3 // 2
keepalive = 100  # seconds; Heroku's router keeps idle connections for 90 and would meet closed ones
timeout = 60  # seconds without a sign of life from the worker; no bound on a request
graceful_timeout = 29  # seconds for what is in flight at SIGTERM; Heroku kills after 30
control_socket_disable = True
sendfile = False  # it wants a socket that blocks, and would wait for a slow client without end
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a slow disk would count as silence

# Each connection takes a file descriptor, and so does each call to Groq and each upload on disk.
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
if 0 <= soft < DESCRIPTORS:  # negative: as many as it likes
    soft = min(hard, DESCRIPTORS) if hard >= 0 else DESCRIPTORS
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
worker_connections = min(max(soft - 2 * settings.threads - 64, 64), 4096) if soft >= 0 else 4096

with suppress(AttributeError):  # glibc's alone: it keeps what each thread has freed for that thread, up to megabytes
    for option, value in ((-8, 2), (-1, 1 << 17)):  # M_ARENA_MAX; M_TRIM_THRESHOLD, bytes
        ctypes.CDLL(None).mallopt(option, value)


def post_fork(server, worker):  # type: ignore[no-untyped-def]
    gc.disable()  # what is imported is no garbage: up to a twentieth of a start, and 1.3 MB of memory
    # One core for all of a lone worker's threads. Python runs one at a time; on several cores they wait for each other
    # at every system call, five times for an event of a stream, at twice the price. Many that share a Redis are left to
    # the system, which has them wait less for it: two served 938 requests a second, and bound to cores 603.
    if settings.redis_url:
        return
    with suppress(AttributeError, OSError):  # Linux' alone, and not everywhere
        cores = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, {cores[(os.getppid() + worker.age) % len(cores)]})


def post_worker_init(worker):  # type: ignore[no-untyped-def]
    worker.request_timeout = settings.request_timeout
    gc.freeze()  # nor does it become garbage later
    gc.enable()
