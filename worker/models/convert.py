"""The process that reads model files of other kinds: without network, and with no more rights than it needs.

python -m worker.models.convert SOURCE TARGET      SOURCE: a .gguf file; TARGET: an empty folder of its own

What stands between a hostile file and the node: a process of its own; a network namespace with nothing in it,
where the kernel allows one; no new privileges; bounds on memory, time, file size and open files; and an audit
hook that ends the process when anything in Python opens a socket, starts a program or writes elsewhere. The
last one does not hold against native code: that is what the others are for.
"""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from pathlib import Path
from typing import Any, Final

from worker.models.errors import ModelError
from worker.models.gguf import convert

_NEW_USER: Final = 0x1000_0000
_NEW_NET: Final = 0x4000_0000
_NO_NEW_PRIVS: Final = 38
_CPU_SECONDS: Final = 7_200
_OPEN_FILES: Final = 256
_GIB: Final = 1 << 30
_LEAST_MEMORY: Final = 8 * _GIB
# Unpacked to float32 and then to bfloat16, a 4-bit file takes about 12 times its size.
_MEMORY_PER_BYTE: Final = 16
_REFUSED: Final = ("socket.", "subprocess.", "os.exec", "os.fork", "os.posix_spawn", "os.system", "ctypes.")
_WRITING: Final = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def main(arguments: list[str]) -> int:
    """Converts; gives the exit status. What went wrong is the last line of stderr."""
    source, target = Path(arguments[0]).resolve(), Path(arguments[1]).resolve()
    shut_in(source.stat().st_size)
    sys.addaudithook(_guard(target))
    try:
        convert(source, target, _say)
    except ModelError as error:
        sys.stderr.write(f"{error.code.value}\t{error.detail}\n")
        return 3
    except (ValueError, KeyError, IndexError, OSError, MemoryError, RuntimeError) as error:
        what = f"{type(error).__name__}: {error}"
        sys.stderr.write(f"model_incomplete\t{source.name} is not readable: {what}.\n")
        return 3
    return 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")


def shut_in(source_bytes: int) -> bool:
    """Gives up rights for good; whether the network is out of reach of native code too."""
    memory = max(_LEAST_MEMORY, _MEMORY_PER_BYTE * source_bytes)
    bounds = {
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_CPU: _CPU_SECONDS,
        resource.RLIMIT_NOFILE: _OPEN_FILES,
        resource.RLIMIT_FSIZE: memory,
        resource.RLIMIT_AS: memory,
    }
    for name, bound in bounds.items():
        hard = resource.getrlimit(name)[1]
        least = bound if hard == resource.RLIM_INFINITY else min(bound, hard)
        resource.setrlimit(name, (least, least))
    libc = ctypes.CDLL(None, use_errno=True)
    if not sys.platform.startswith("linux"):
        return False
    libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0)
    return bool(libc.unshare(_NEW_USER | _NEW_NET) == 0)


def _guard(target: Path) -> Any:
    inside = str(target) + os.sep

    def refuse(event: str, args: tuple[Any, ...]) -> None:
        if event.startswith(_REFUSED) or (event == "open" and _writes_elsewhere(args, inside)):
            sys.stderr.write(f"model_unsafe_file\treading it tried {event} {args[:1]}, which is refused.\n")
            sys.stderr.flush()
            os._exit(4)

    return refuse


def _writes_elsewhere(args: tuple[Any, ...], inside: str) -> bool:
    path, _mode, flags = args
    if not isinstance(path, str | bytes | os.PathLike) or not flags & _WRITING:
        return False
    return not os.path.realpath(os.fsdecode(path)).startswith(inside)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
