"""Ids: text, time-ordered, made by the program; a short prefix names the kind."""

BASE32 = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's alphabet, lower case
RANDOM_BYTES = 16


def make_id(prefix: str, now: float, entropy: bytes) -> str:
    """Return `prefix` + 10 characters of milliseconds + 26 of 128 random bits: ids sort by the moment they were made.

    `entropy` is 16 random bytes, so that an id cannot be guessed.
    """
    return prefix + encode(int(now * 1000), 10) + encode(int.from_bytes(entropy[:RANDOM_BYTES]), 26)


def encode(number: int, length: int) -> str:
    """Return `number` in `length` Crockford base-32 digits, the most significant first."""
    digits = []
    for _ in range(length):
        number, digit = divmod(number, 32)
        digits.append(BASE32[digit])
    return "".join(reversed(digits))
