"""A worker that waits with everything imported.

python -m worker.node.spare APP CELERY-ARGUMENTS…

Importing torch and transformers is most of what a fresh worker takes to start. A spare has done it when the
worker before it dies; told to go on its standard input, it becomes the worker. At the input's end it ends.
"""

from __future__ import annotations

import importlib
import runpy
import sys

from worker.node.children import GO, end_with_parent


def main(arguments: list[str]) -> int:
    """Waits, then runs Celery with these arguments; gives the exit status when it is not needed."""
    app, *celery = arguments
    end_with_parent()
    module = importlib.import_module(app)
    warm_up = getattr(module, "warm_up", None)
    if warm_up is not None:
        warm_up()
    if sys.stdin.buffer.readline() != GO:
        return 0
    sys.argv = ["celery", *celery]
    runpy.run_module("celery", run_name="__main__", alter_sys=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
