"""Messages at random: bytes, damaged events, any JSON; and messages of a megabyte."""

import json
import random
from datetime import UTC, datetime

from hypothesis import strategies as st

from antenna_assets_tests.messages import NOW, VALID

SNIPPETS = (
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"\\",
        b"\0",
        b"\xff",
        b"\xc3\xa9",
        b" ",
        b"\n",
        b"-",
        b".",
        b"e9",
        b"0",
    ),
    *(
        b"null",
        b"true",
        b"NaN",
        b"\\u0000",
        b"\\ud800",
        b"\xe3\x80\x80",
        b"//",
        b"/**/",
        b'{"a":1}',
        b"\xef\xbb\xbf",
    ),
)
VALUES = (
    *(
        "0",
        "-0",
        "-1",
        "1.5",
        "5.0",
        "1e3",
        "1E400",
        "-1e400",
        "68719476736",
        "68719476737",
        "9" * 19,
        "9" * 20,
        "9" * 39,
    ),
    *(
        "true",
        "false",
        "null",
        "[]",
        "{}",
        '""',
        '" "',
        '"12"',
        '"a"',
        r'"\u0000"',
        r'"\ud83d\ude00"',
        r'"\udc00"',
        "[1]",
    ),
    *(f'"{"x" * size}"' for size in (64, 65, 256, 257)),
    *(f'"{"é" * size}"' for size in (32, 33, 128, 129)),
    *(
        r'"\u3000"',
        r'"\u200b"',
        '{"a":1,"a":2}',
        '{"bytes":1}',
        "01",
        "1.",
        ".5",
        "'a'",
        "NaN",
        '"\t"',
        '"]"',
        '"}"',
    ),
)


def random_time(rng: random.Random, now: int, back: int) -> str:
    """A time as JSON: in the usual profiles of ISO-8601 or otherwise, now and then a step beside them."""
    return _usual_time(rng, now, back) if rng.random() < 0.5 else _other_time(rng, now, back)


def _other_time(rng: random.Random, now: int, back: int) -> str:
    seconds = now + rng.choice((0, 299, 300, 301, -3_024_000, -3_024_001, -3600, rng.randint(-back, 1000)))
    digits = "".join(rng.choices("0123456789", k=rng.choice((1, 3, 6, 6, 7, 9, 12, 30))))
    moment = datetime.fromtimestamp(seconds, UTC)
    zone = rng.choice(("Z", "+00:00", "+0200", "-03:30", "+14:00", "-18:00", "+19:00", "+01:99", "", "+1"))
    return rng.choice(
        (
            str(seconds),
            f"{seconds}.{digits}",
            f"{str(seconds)[0]}.{str(seconds)[1:]}{digits[:6]}e9",
            f"{seconds}{digits}E-{len(digits)}",
            f'"{moment:%Y-%m-%dT%H:%M:%S}{zone}"',
            f'"{moment:%Y-%m-%dT%H:%M:%S}.{digits}{zone}"',
            f'"{moment:%Y}-{rng.randint(0, 13):02}-{rng.randint(0, 32):02}T{rng.randint(0, 25):02}:{rng.randint(0, 61):02}:00Z"',
        )
    )


def _usual_time(rng: random.Random, now: int, back: int) -> str:
    moment = datetime.fromtimestamp(now + rng.choice((0, 299, 301, rng.randint(-back, 1000))), UTC)
    day, clock = rng.choice(
        (
            *(("%Y-%m-%d", "%H:%M:%S"), ("%Y-%m-%d", "%H:%M"), ("%Y%m%d", "%H%M%S"), ("%Y%m%d", "%H%M")) * 3,
            *(("%Y-%m-%d", "%H%M%S"), ("%Y%m%d", "%H:%M"), ("%Y-%m-%d", "%H"), ("%Y%m%d", "%H")),
        )
    )
    digits = "".join(rng.choices("0123456789", k=rng.choice((0, 1, 3, 6, 9, 10))))
    fraction = rng.choice((f".{digits}", f",{digits}")) if clock[-1] == "S" and rng.random() < 0.6 else ""
    zone = rng.choice(
        ("Z", "z", "+02", "-03", "+0200", "-0330", "+14:00", "-18") * 2 + ("+19", "+1", "+020", "", " Z")
    )
    between = rng.choice(("T", "T", "T", " ", " ", " ", "t", ""))
    return f'"{moment:{day}}{between}{moment:{clock}}{fraction}{zone}"'


def random_message(rng: random.Random, now: int = NOW, back: int = 4_000_000) -> bytes:
    """Bytes at random, or an event with some damage, mostly of the `back` seconds before `now`."""
    if rng.random() < 0.03:
        return rng.randbytes(rng.randint(0, 40))
    if rng.random() < 0.05:
        return b"".join(rng.choices(SNIPPETS, k=rng.randint(1, 12)))
    pairs = [
        ("bytes", str(rng.choice((0, 1, 2**36, 2**36 + 1, rng.randint(-5, 10**9))))),
        ("timestamp", random_time(rng, now, back)),
        (
            "app",
            json.dumps(rng.choice(("web", "vidéo", "x y", "\U0001f600")), ensure_ascii=rng.random() < 0.5),
        ),
        ("id", f'"{rng.randint(0, 99):08}"'),
        ("antenna_id", f'"{rng.randint(0, 9)}"'),
    ]
    while rng.random() < 0.3:
        place = rng.randrange(len(pairs))
        pairs[place] = (pairs[place][0], rng.choice(VALUES))
    if rng.random() < 0.15:
        pairs.insert(rng.randint(0, len(pairs)), ("x", rng.choice(VALUES)))
    if rng.random() < 0.05:
        pairs.append(rng.choice(pairs))
    if pairs and rng.random() < 0.05:
        pairs.pop(rng.randrange(len(pairs)))
    if rng.random() < 0.2:
        rng.shuffle(pairs)
    value = (
        "{" + rng.choice((",", ", ", " ,\n")).join(f'"{name}":{text}' for name, text in pairs) + "}"
    ).encode()
    while rng.random() < 0.3:
        place = rng.randint(0, len(value))
        damage = rng.randrange(4)
        if damage == 0:
            value = value[:place] + rng.choice(SNIPPETS) + value[place:]
        elif damage == 1:
            value = value[:place] + value[place + rng.randint(1, 3) :]
        elif damage == 2:
            value = value[:place] + bytes([rng.randrange(256)]) + value[place + 1 :]
        else:
            value += rng.choice(SNIPPETS)
    return value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)
EVENT = st.fixed_dictionaries(
    {
        "bytes": st.integers(-1, 2**36 + 1) | JSON,
        "timestamp": st.floats(NOW - 4_000_000, NOW + 400) | st.integers(NOW - 4_000_000, NOW + 400) | JSON,
        "app": st.text(max_size=300) | JSON,
        "id": st.text(max_size=70),
        "antenna_id": st.text(max_size=70) | JSON,
    },
    optional={"extra": JSON},
)
MESSAGE = st.binary(max_size=60) | st.builds(
    lambda value, ascii: json.dumps(value, ensure_ascii=ascii).encode(errors="surrogatepass"),
    EVENT | JSON,
    st.booleans(),
)


def names(count: int) -> list[str]:
    return [f'"n{number}":1' for number in range(count)]


LARGE = {
    "many names, one of them twice": (
        VALID.replace(b"}", ("," + ",".join([*names(85_000), '"n7":1', '"n3":1']) + "}").encode()),
        "duplicate_field",
    ),
    "many names, each of them twice": (
        VALID.replace(b"}", ("," + ",".join(names(42_000) * 2) + "}").encode()),
        "duplicate_field",
    ),
    "many names": (VALID.replace(b"}", ("," + ",".join(names(85_000)) + "}").encode()), None),
    "many nested names, one of them twice": (
        VALID.replace(b"}", (',"x":{' + ",".join([*names(85_000), '"n7":1']) + "}}").encode()),
        "not_json",
    ),
    "many names and junk": (b"{" + ",".join(names(85_000)).encode() + b"} junk", "trailing_data"),
    "many names without an end": (b"{" + ",".join(names(85_000)).encode(), "not_json"),
    "many values": (b"[" + b"1," * 490_000 + b"1]", "not_an_object"),
    "many brackets": (b"]" * 990_000, "not_json"),
    "many quotes": (b'"' * 990_000, "not_json"),
    "white space": (b" " * 990_000, "blank"),
    "white space of two bytes": ("\u00a0".encode() * 495_000, "blank"),
    "a long text": (VALID.replace(b"web", b"x" * 990_000), "too_long"),
    "a long text of white space": (VALID.replace(b"web", b" " * 990_000), "blank"),
    "a long time": (VALID.replace(b"1795343400", b'"' + b"9" * 990_000 + b'"'), "wrong_type"),
    "a long wrong type": (VALID.replace(b'"u-1"', b"[" + b"1," * 300_000 + b"1]"), "wrong_type"),
    "bytes that are not UTF-8": (b"\xff" * 990_000, "not_utf8"),
}
