"""Bech32m (BIP-350), as much as it takes to write down a share that no init ever made."""

CHARACTERS = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
GENERATORS = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


def _polymod(values):
    state = 1
    for value in values:
        top, state = state >> 25, (state & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate(GENERATORS):
            if top >> bit & 1:
                state ^= generator
    return state


def _header(prefix):
    return [ord(c) >> 5 for c in prefix] + [0] + [ord(c) & 31 for c in prefix]


def decode(text):
    """The bytes of a text; its checksum is not looked at."""
    data = [CHARACTERS.index(c) for c in text.rpartition("1")[2][:-6]]
    bits = "".join(f"{value:05b}" for value in data)
    return bytes(int(bits[at:at + 8], 2) for at in range(0, len(bits) // 8 * 8, 8))


def encode(prefix, payload):
    """The text of bytes, with a right checksum."""
    bits = "".join(f"{byte:08b}" for byte in payload)
    bits += "0" * (-len(bits) % 5)
    data = [int(bits[at:at + 5], 2) for at in range(0, len(bits), 5)]
    check = _polymod(_header(prefix) + data + [0] * 6) ^ 0x2BC830A3
    data += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return f"{prefix}1" + "".join(CHARACTERS[value] for value in data)
