"""Damage to files, drawn from a seed: what happens on disks and wires, and what a hostile hand would write."""

import json

JSON_BYTES = b'0123456789{}[],:" -.eE\\\n\t\x00FIUn'
NUMBERS = (
    0,
    1,
    -1,
    2,
    7,
    8,
    255,
    2**31 - 1,
    2**31,
    2**32 - 1,
    2**53,
    2**62,
    2**63 - 1,
    2**63,
    2**64 - 1,
    2**64,
    10**30,
)
VALUES = (
    *NUMBERS,
    None,
    True,
    False,
    0.0,
    1.0,
    1.5,
    "",
    "F32",
    "I64",
    "F8_E4M3",
    "x",
    [],
    {},
    [0],
    [0, 4],
    [[]],
    "\x00",
    "\ud800",
)


def flip(data, draw):
    i = draw.randrange(len(data))
    return data[:i] + bytes([data[i] ^ 1 << draw.randrange(8)]) + data[i + 1 :]


def cut(data, draw):
    return data[: draw.randrange(len(data))]


def longer(data, draw):
    return data + draw.randbytes(draw.randint(1, 40))


def drop(data, draw):
    i = draw.randrange(len(data))
    return data[:i] + data[i + draw.randint(1, 12) :]


def insert(data, draw):
    i = draw.randrange(len(data))
    return data[:i] + bytes(draw.choices(JSON_BYTES, k=draw.randint(1, 3))) + data[i:]


def twice(data, draw):
    i = draw.randrange(len(data))
    return data[:i] + data[i : i + draw.randint(1, 64)] + data[i:]


def number(data, draw):
    """Overwrite a place with a number that breaks things, as 4 or 8 bytes."""
    size = draw.choice((4, 8))
    value = draw.choice(NUMBERS) % 2 ** (8 * size)
    i = draw.randrange(max(1, len(data) - size))
    return data[:i] + value.to_bytes(size, "little") + data[i + size :]


RAW = (flip, flip, flip, cut, longer, drop, insert, twice, number, number)


def damaged(data, draw):
    """Return the bytes with one to three of the above."""
    for _ in range(draw.randint(1, 3)):
        if data:
            data = draw.choice(RAW)(data, draw)
    return data


def edited(value, draw):
    """Return a JSON value with one place of it replaced, doubled, renamed or removed."""
    if isinstance(value, dict) and value and draw.random() < 0.9:
        key = draw.choice(list(value))
        kind = draw.randrange(8)
        if kind == 0:
            return {k: v for k, v in value.items() if k != key}
        if kind == 1:
            return {**value, draw.choice(("", "x", "dtype", "shape", "__metadata__", "\ud800", "é")): value[key]}
        return {**value, key: edited(value[key], draw)}
    if isinstance(value, list) and value and draw.random() < 0.8:
        i = draw.randrange(len(value))
        kind = draw.randrange(6)
        if kind == 0:
            return value[:i] + value[i + 1 :]
        if kind == 1:
            return value[: i + 1] + value[i:]
        return [*value[:i], edited(value[i], draw), *value[i + 1 :]]
    if type(value) is int and draw.random() < 0.6:
        return value + draw.choice((-8, -4, -1, 1, 4, 8))
    return draw.choice(VALUES)


def header_damaged(data, draw):
    """Return a safetensors file with its header edited as JSON, or as text, and its length made right again."""
    length = int.from_bytes(data[:8], "little")
    header, rest = data[8 : 8 + length], data[8 + length :]
    kind = draw.randrange(4)
    if kind < 2:
        content = json.loads(header)
        for _ in range(kind + 1):
            content = edited(content, draw)
        header = json.dumps(content, ensure_ascii=draw.random() < 0.5).encode(errors="surrogatepass")
    elif kind == 2:
        header = damaged(header, draw)
    else:  # white space is allowed between the parts, and nowhere else
        i = draw.choice([i for i, byte in enumerate(header) if byte in b'{}[],:"'])
        header = header[:i] + draw.choice((b" ", b"\n", b"\t", b"\r", b"\x0b", b"\xc2\xa0")) + header[i:]
    if draw.random() < 0.2:
        rest = damaged(rest, draw)
    return len(header).to_bytes(8, "little") + header + rest
