"""The JSON texts of a valid event: plain most of the time, unusual but valid at times.

The stream accepts all of them; what it must reject is made in `malformed`.
"""

import json
from datetime import datetime, timedelta, timezone

from antenna_assets.simulator.malformed import json_object
from antenna_assets.simulator.scenario import EPOCH

SECOND = 1_000_000
PLAIN = 0.7
"""Styles below it are plain objects with whole seconds."""


def event_fields(amount: int, timestamp: str, app: str, id_: str, antenna: str) -> dict[str, str]:
    """Return the JSON text of each field, in the usual order."""
    return {
        "bytes": str(amount),
        "timestamp": timestamp,
        "app": f'"{app}"',
        "id": f'"{id_}"',
        "antenna_id": f'"{antenna}"',
    }


def event_text(style: float, time: int, amount: int, app: str, id_: str, antenna: str) -> tuple[int, str]:
    """Write an event in the form that `style` (0 to 1) selects.

    Returns:
        The timestamp that the text has, in microseconds since 1970, and the text.
    """
    if style < PLAIN:
        return time // SECOND * SECOND, json_object(
            event_fields(amount, str(time // SECOND), app, id_, antenna)
        )
    if style < 0.9:
        digits = 1 + int((style - 0.7) * 30)
        unit = 10 ** (6 - digits)
        time -= time % unit
        text = f"{time // SECOND}.{time % SECOND // unit:0{digits}d}"
        return time, json_object(event_fields(amount, text, app, id_, antenna))
    instant = EPOCH + timedelta(microseconds=time)
    if style < 0.98:
        text = instant.isoformat()
        if style < 0.95:
            text = text.replace("+00:00", "Z")
        return time, json_object(event_fields(amount, f'"{text}"', app, id_, antenna))
    unusual = _UNUSUAL[int((style - 0.98) * 50 * len(_UNUSUAL)) % len(_UNUSUAL)]
    return time, unusual(event_fields(amount, f'"{instant.isoformat()}"', app, id_, antenna), instant)


def _spaced(fields: dict[str, str], _instant: datetime) -> str:
    return "\n{ " + " ,\t".join(f'"{name}" : {text}' for name, text in fields.items()) + " }\r\n "


def _other_zone(fields: dict[str, str], instant: datetime) -> str:
    there = instant.astimezone(timezone(timedelta(hours=-5, minutes=-30)))
    return json_object({**fields, "timestamp": f'"{there.isoformat()}"'})


def _escaped(fields: dict[str, str], _instant: datetime) -> str:
    app = json.loads(fields["app"]).encode("utf-16-be")
    units = (int.from_bytes(app[place : place + 2], "big") for place in range(0, len(app), 2))
    return json_object({**fields, "app": '"' + "".join(f"\\u{unit:04x}" for unit in units) + '"'})


def _extended(fields: dict[str, str], _instant: datetime) -> str:
    extra = {
        "note": '"señal ☎ 📶"',
        "signal": "-71.5",
        "cell": '{"bytes":-1,"ids":[1,null,"x"]}',
        "roaming": "false",
    }
    return json_object({**extra, **fields})


def _reversed(fields: dict[str, str], _instant: datetime) -> str:
    return json_object(dict(reversed(fields.items())))


_UNUSUAL = (_spaced, _other_zone, _escaped, _extended, _reversed)
