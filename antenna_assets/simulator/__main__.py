"""`python -m antenna_assets.simulator [RATE]`: live events until SIGTERM or Ctrl-C, for a demonstration.

`antenna simulate` sends a given number of events, with answers.
"""

import signal
import sys
import threading

from antenna_assets.domain.counted import counted
from antenna_assets.errors import AntennaError
from antenna_assets.settings import load_settings
from antenna_assets.simulator.run import send_live
from antenna_assets.simulator.send import Target
from antenna_assets.stack.services import kafka_bootstrap, kafka_config

RATE = 200.0
"""Events per second."""


def main(arguments: list[str]) -> int:
    """Send until stopped. Fails unless every event is acknowledged."""
    settings = load_settings()
    rate = float(arguments[0]) if arguments else RATE
    stop = threading.Event()

    def handle(number: int, _frame: object) -> None:
        # A second signal ends the process at once.
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, handle)
    sys.stderr.write(f"{rate:g} events per second to topic {settings.topic}\n")
    target = Target(kafka_bootstrap(settings), settings.topic, kafka_config(settings))
    sent = send_live(target, rate=rate, stop=stop)
    sys.stderr.write(f"sent {counted(sent.messages, 'event')}, all acknowledged\n")
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except AntennaError as error:
        sys.exit(f"error: {error}")
