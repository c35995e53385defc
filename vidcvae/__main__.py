"""The entry point. It imports next to nothing, so that Ctrl-C is quiet while the rest is still being imported."""

import os
import signal


def main() -> None:
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where Ctrl-C is ignored, as in background jobs
        signal.signal(signal.SIGINT, _leave)  # until ``app.main`` can do better
    try:
        from vidcvae.cli import app

        app.main()
    finally:
        signal.signal(signal.SIGINT, before)


def _leave(*_: object) -> None:
    os._exit(130)  # errors.EXIT_INTERRUPTED; at once, because an import that is cut short may end in any error


if __name__ == "__main__":
    main()
