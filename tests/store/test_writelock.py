from __future__ import annotations

import fcntl
import os
import signal
import time
from pathlib import Path

from gateway.store.writelock import WriteLock


def test_a_process_that_was_forked_does_not_keep_it(tmp_path: Path) -> None:
    """As when a worker is killed while it may write, and what a plugin forked lives on."""
    path = tmp_path / "lock"
    lock = WriteLock(path)
    lock.acquire()
    ready, tell = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(tell, b".")
        time.sleep(600)
        os._exit(0)
    try:
        assert os.read(ready, 1) == b"."
        lock.close()
        with path.open("rb") as other:
            fcntl.flock(other, fcntl.LOCK_EX | fcntl.LOCK_NB)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(ready)
        os.close(tell)
