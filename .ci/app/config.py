"""An app's own configuration."""

import os

broker_url = result_backend = os.environ["APP_REDIS"]
imports = ("tasks",)
lowtide = {"max_wait": "1s", "poll_min": "500ms", "tick": "200ms"}
