"""What a message is in that is no bare JSON in UTF-8, where its first bytes say it."""


def encoding(value: bytes) -> str | None:
    """What a message is in, if it is known and no bare JSON in UTF-8."""
    if value.startswith(b"\xef\xbb\xbf"):
        return "a byte-order mark in front of the text"
    if value.startswith((b"\xff\xfe", b"\xfe\xff")):
        return "UTF-16 with a byte-order mark"
    even, odd = value[0:8:2], value[1:8:2]
    if len(odd) > 1 and (_only_nuls(even) != _only_nuls(odd)) and (0 not in even or 0 not in odd):
        return "UTF-16"
    schema = int.from_bytes(value[1:5])
    if value.startswith(b"\0") and len(value) > 5 and schema:
        return f"the frame of a schema registry with schema id {schema}"
    return None


def _only_nuls(value: bytes) -> bool:
    return not value.strip(b"\0")
