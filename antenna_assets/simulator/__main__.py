"""`python -m antenna_assets.simulator [RATE]`: events of this very moment, until SIGTERM or Ctrl-C.

For a demonstration that goes on. `antenna simulate` sends a given number of them, with answers.
"""

import sys

from antenna_assets.cli import err, say, stop_on_signals
from antenna_assets.errors import AntennaError
from antenna_assets.settings import load_settings
from antenna_assets.simulator.run import send_live
from antenna_assets.stack.services import kafka_bootstrap, kafka_config

RATE = 200.0
"""Events a second."""


def main(arguments: list[str]) -> int:
    """Send until stopped; every event is acknowledged, or the exit code is 1."""
    settings = load_settings()
    rate = float(arguments[0]) if arguments else RATE
    with stop_on_signals() as stop:
        say(f"{rate:g} events a second to topic {settings.topic}")
        sent = send_live(
            settings,
            bootstrap=kafka_bootstrap(settings),
            config=kafka_config(settings),
            rate=rate,
            stop=stop,
        )
    say(f"sent {sent.messages:,} events, all acknowledged")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AntennaError as error:
        err.print(f"error: {error}", soft_wrap=True, markup=False)
        sys.exit(1)
