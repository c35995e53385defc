"""The entry point. It imports almost nothing, so that Ctrl-C is quiet while the rest is being imported."""

import os
import signal
import sys

# How often a waiting thread checks before it sleeps; 2000 checks take about 50 microseconds. The default of PyTorch's
# OpenMP (libgomp) is 300,000, or several milliseconds. If another program runs, two threads often share a core, and
# the one that spins blocks the one that works: a step then takes 30 times as long.
SPINS = "2000"


def main() -> None:
    _wait_briefly()
    before = signal.getsignal(signal.SIGINT)
    if before is signal.default_int_handler:  # Ctrl-C is not ignored, as it is in background jobs
        signal.signal(signal.SIGINT, _leave)  # until ``app.main`` installs its own handler
    try:
        from vidcvae.cli import app

        app.main()
    finally:
        signal.signal(signal.SIGINT, before)


def _wait_briefly() -> None:
    """Shorten the spinning of OpenMP threads, before PyTorch reads the variables; keeps what the user has set."""
    if "torch" not in sys.modules and not os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"}:
        os.environ["GOMP_SPINCOUNT"] = SPINS
        os.environ["KMP_BLOCKTIME"] = "0"  # for Intel's and LLVM's OpenMP, in milliseconds; the default is 200


def _leave(*_: object) -> None:
    os._exit(130)  # errors.EXIT_INTERRUPTED; at once, because an interrupted import may raise anything


if __name__ == "__main__":
    main()
