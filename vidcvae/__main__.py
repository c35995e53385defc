"""The entry point. It imports next to nothing, so that Ctrl-C is quiet while the rest is still being imported."""

import os
import signal
import sys

# How often a thread that waits for another one looks, before it sleeps: about 50 microseconds. PyTorch's own OpenMP
# (libgomp) looks 300,000 times, several milliseconds. Beside another program two threads often share one core, where
# the one that looks keeps the one that works from working: a step then takes 30 times as long.
SPINS = "2000"


def main() -> None:
    _wait_briefly()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # not where Ctrl-C is ignored, as in background jobs
        signal.signal(signal.SIGINT, _leave)  # until ``app.main`` can do better
    try:
        from vidcvae.cli import app

        app.main()
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_briefly() -> None:
    """Before PyTorch is loaded, which reads this once; what the user has set stays as it is."""
    if "torch" not in sys.modules and not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS
        os.environ["KMP_BLOCKTIME"] = "0"  # Intel's and LLVM's, in milliseconds: 200 if nothing is said


def _leave(*_: object) -> None:
    os._exit(130)  # errors.EXIT_INTERRUPTED; at once, because an import that is cut short may end in any error


if __name__ == "__main__":
    main()
