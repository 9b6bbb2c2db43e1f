"""The ways in which one valid event can be written as JSON: plain most of the time, odd but valid at times.

Nothing here is rejected by the stream; what must be is in `malformed`.
"""

import json
from datetime import datetime, timedelta, timezone

from antenna_assets.simulator.malformed import rendered
from antenna_assets.simulator.scenario import EPOCH

SECOND = 1_000_000
PLAIN = 0.7
"""Below this style, a plain object with whole seconds."""


def as_fields(amount: int, timestamp: str, app: str, id_: str, antenna: str) -> dict[str, str]:
    return {
        "bytes": str(amount),
        "timestamp": timestamp,
        "app": f'"{app}"',
        "id": f'"{id_}"',
        "antenna_id": f'"{antenna}"',
    }


def written(style: float, time: int, amount: int, app: str, id_: str, antenna: str) -> tuple[int, str]:
    """One of the many ways to write the same event; with the timestamp that the text says, to the microsecond."""
    if style < PLAIN:
        return time // SECOND * SECOND, rendered(as_fields(amount, str(time // SECOND), app, id_, antenna))
    if style < 0.9:
        digits = 1 + int((style - 0.7) * 30)
        unit = 10 ** (6 - digits)
        time -= time % unit
        text = f"{time // SECOND}.{time % SECOND // unit:0{digits}d}"
        return time, rendered(as_fields(amount, text, app, id_, antenna))
    instant = EPOCH + timedelta(microseconds=time)
    if style < 0.98:
        text = instant.isoformat()
        if style < 0.95:
            text = text.replace("+00:00", "Z")
        return time, rendered(as_fields(amount, f'"{text}"', app, id_, antenna))
    odd = _ODD[int((style - 0.98) * 50 * len(_ODD)) % len(_ODD)]
    return time, odd(as_fields(amount, f'"{instant.isoformat()}"', app, id_, antenna), instant)


def _spaced(fields: dict[str, str], _instant: datetime) -> str:
    return "\n{ " + " ,\t".join(f'"{name}" : {text}' for name, text in fields.items()) + " }\r\n "


def _elsewhere(fields: dict[str, str], instant: datetime) -> str:
    there = instant.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    return rendered({**fields, "timestamp": f'"{there.isoformat()}"'})


def _escaped(fields: dict[str, str], _instant: datetime) -> str:
    app = json.loads(fields["app"]).encode("utf-16-be")
    units = (int.from_bytes(app[place : place + 2], "big") for place in range(0, len(app), 2))
    return rendered({**fields, "app": '"' + "".join(f"\\u{unit:04x}" for unit in units) + '"'})


def _extended(fields: dict[str, str], _instant: datetime) -> str:
    extra = {
        "note": '"señal ☎ 📶"',
        "signal": "-71.5",
        "cell": '{"bytes":-1,"ids":[1,null,"x"]}',
        "roaming": "false",
    }
    return rendered({**extra, **fields})


def _reversed(fields: dict[str, str], _instant: datetime) -> str:
    return rendered(dict(reversed(fields.items())))


_ODD = (_spaced, _elsewhere, _escaped, _extended, _reversed)
