"""What the bare side's two processes and those who start them call things."""

from __future__ import annotations

from typing import Final

# Settings, from the environment.
BROKER: Final = "BARE_BROKER"
MODEL: Final = "BARE_MODEL"
DATABASE: Final = "BARE_DATABASE"
# Celery's queue and task, Valkey's channel, and the key that says a worker takes tasks.
QUEUE: Final = "bare"
TASK: Final = "bare.answer"
CHANNEL: Final = "bare.answers"
READY: Final = "bare.ready"
