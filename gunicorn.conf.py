"""How gunicorn serves the app. Platforms may overrule it with GUNICORN_CMD_ARGS, as Render does with its port."""

import os
import sys

from promptlord.config import Config
from promptlord.errors import ConfigError

try:
    settings = Config.load()
except ConfigError as error:
    sys.exit(f"❌ {error}")

wsgi_app = "app:app"
bind = f"0.0.0.0:{settings.port}"
workers = 1  # the pool is in memory, so there can be only one of it, whatever WEB_CONCURRENCY says
worker_class = "promptlord.gunicorn_worker.Worker"
threads = settings.threads  # each call to Groq holds one while it waits
keepalive = 100  # seconds; Heroku's router keeps idle connections for 90 and would meet closed ones
timeout = 60  # seconds without a sign of life from the worker; no bound on a request
graceful_timeout = 29  # seconds for what is in flight at SIGTERM; Heroku kills after 30
control_socket_disable = True
if os.path.isdir("/dev/shm"):
    worker_tmp_dir = "/dev/shm"  # a heartbeat on a slow disk would count as silence
