"""
Runs a module as a child process that never outlives its parent: ``python -m config.child FD MODULE [ARGUMENT …]``.

FD is the reading end of a pipe whose writing end the parent alone holds: when the parent is gone, however it went,
the pipe ends. On Linux the kernel tells it too, also to what the module itself forks.
"""

import os
import runpy
import signal
import sys
import threading
import time

GRACE = 5
EX_CONFIG = 78


def follow_parent(fd):
    """End this process as soon as its parent is gone: asked first, and by force some seconds later."""
    if sys.platform == "linux":
        _end_with_parent()
        os.register_at_fork(after_in_child=_end_with_parent)
    else:
        os.register_at_fork(after_in_child=_watch_parent_id)
    threading.Thread(target=_watch_pipe, args=[fd], name="parent", daemon=True).start()


def _watch_pipe(fd):
    os.read(fd, 1)
    _end()


def _watch_parent_id():
    def watch(parent=os.getppid()):  # noqa: B008
        while os.getppid() == parent:
            time.sleep(1)
        _end()

    threading.Thread(target=watch, name="parent", daemon=True).start()


def _end():
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE)
    os._exit(1)


def _end_with_parent():
    import ctypes

    PR_SET_PDEATHSIG = 1
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def main():
    fd, module = int(sys.argv[1]), sys.argv[2]
    follow_parent(fd)
    sys.argv = [module, *sys.argv[3:]]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except Exception as error:
        # By name: Django is not imported for children that do without it.
        if type(error).__name__ != "ImproperlyConfigured":
            raise
        sys.exit(_say(f"Comptoir cannot start: {error}"))


def _say(line):
    print(line, file=sys.stderr, flush=True)
    return EX_CONFIG


if __name__ == "__main__":
    main()
