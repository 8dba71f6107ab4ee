"""The command line's door: `triptych` and `python -m triptych`."""

import os
import signal
import sys

__all__ = ["main"]


STOPPED = 130


def main() -> None:
    """Runs the command line and exits with its code: 0 done, 1 failed, 2 wrong usage, 130 cancelled."""
    try:
        from triptych.cli import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        code = STOPPED
    if code == STOPPED:  # a thread may still be in the middle of something: leave without waiting for it
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    main()
