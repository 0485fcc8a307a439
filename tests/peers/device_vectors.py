#!/usr/bin/env python3
"""An independent reading of docs/device-protocol.md: recomputes every golden frame and datagram.

It shares no code with the box: postcard, HMAC and the layouts are written out here from the text. Needs the package
`cryptography` for ed25519; everything else is the standard library.

    device_vectors.py            compare tests/golden/{frames,datagrams}/*/ with what the text says
    device_vectors.py --write    write the .hex files of cases whose case.json was added or changed
"""

import argparse
import hashlib
import hmac
import json
import struct
import sys
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

GOLDEN = Path(__file__).resolve().parent.parent / "golden"

# ---- postcard, as far as the messages need it ------------------------------------------------------------------------


def varint(number):
    """An unsigned LEB128: seven bits a byte, the lowest first, the top bit says that more follow."""
    out = bytearray()
    while number >= 0x80:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def blob(data):
    return varint(len(data)) + data


def text(string):
    return blob(string.encode())


def boolean(value):
    return b"\x01" if value else b"\x00"


def raw(length):
    def encode(hex_string):
        data = bytes.fromhex(hex_string)
        assert len(data) == length, (hex_string, length)
        return data

    return encode


def outcome(name):
    return varint(["ok", "failed", "expired", "unknown"].index(name))


MESSAGES = [
    ("BoxHello", [("box_id", text), ("nonce", raw(32)), ("now_ms", varint)]),
    ("DeviceHello", [("device_id", text), ("boot_id", raw(16)), ("last_seq", varint), ("nonce", raw(32)), ("mac", raw(32))]),
    ("BoxProof", [("mac", raw(32))]),
    (
        "Command",
        [
            ("id", raw(16)),
            ("seq", varint),
            ("issued_at_ms", varint),
            ("expires_at_ms", varint),
            ("possible_duplicate", boolean),
            ("kind", text),
            ("body", lambda hex_string: blob(bytes.fromhex(hex_string))),
        ],
    ),
    ("Accepted", [("id", raw(16))]),
    ("Done", [("id", raw(16)), ("outcome", outcome), ("detail", text)]),
    ("Ping", [("n", varint)]),
    ("Pong", [("n", varint)]),
    ("Bye", [("reason", text)]),
]


def body_of(message):
    names = [name for name, _ in MESSAGES]
    number = names.index(message["type"])
    fields = MESSAGES[number][1]
    assert set(message) == {"type"} | {name for name, _ in fields}, message
    return varint(number) + b"".join(encode(message[name]) for name, encode in fields)


# ---- frames ----------------------------------------------------------------------------------------------------------


def mac(key, *parts):
    return hmac.new(key, b"".join(parts), hashlib.sha256).digest()


def handshake(session):
    key = bytes.fromhex(session["command_key"])
    box_nonce = bytes.fromhex(session["box_nonce"])
    device_nonce = bytes.fromhex(session["device_nonce"])
    return {
        "device_mac": mac(key, b"comptoir-device-1", box_nonce, device_nonce, session["device_id"].encode()).hex(),
        "box_mac": mac(key, b"comptoir-box-1", device_nonce, box_nonce, session["box_id"].encode()).hex(),
        "session_key": mac(key, b"comptoir-session-1", box_nonce, device_nonce).hex(),
    }


def frame_of(case, session):
    """The frame a case describes; the bad ones say at which step they leave the path."""
    version = bytes([case.get("version", 1)])
    body = bytes.fromhex(case["body"]) if "body" in case else body_of(case["message"])
    content = version + body
    if seal := case.get("seal"):
        direction = {"to_device": b"\x00", "to_box": b"\x01"}[seal["direction"]]
        key = bytes.fromhex(session["session_key"])
        tag = mac(key, direction, struct.pack(">Q", seal["counter"]), content)[:16]
        content += tag
    if "flip_bit" in case:
        changed = bytearray(content)
        changed[case["flip_bit"] // 8] ^= 1 << case["flip_bit"] % 8
        content = bytes(changed)
    content = content[: case.get("keep", len(content))]
    return struct.pack(">I", case.get("length", len(content))) + content


# ---- datagrams -------------------------------------------------------------------------------------------------------


def short_text(string):
    data = string.encode()
    return bytes([len(data)]) + data


def datagram_of(case):
    kind = case["type"]
    out = case.get("magic", "CMPT").encode() + bytes([case.get("version", 1), case.get("number", 0)])
    nonce = bytes.fromhex(case["nonce"])
    if kind == "WHO_IS_BOX":
        out = out[:5] + bytes([case.get("number", 1)]) + nonce
        out = out.ljust(256, b"\x00")
    elif kind == "BOX_HERE":
        signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["box_secret"]))
        public = signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        out = out[:5] + bytes([case.get("number", 2)]) + nonce
        out += bytes([len(case["ports"])]) + b"".join(struct.pack(">H", port) for port in case["ports"])
        out += short_text(case["box_id"]) + struct.pack(">H", case["front_port"]) + public
        out = signed(out, signer, public)
    elif kind == "WHO_ARE_DEVICES":
        signer = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(case["box_secret"]))
        public = signer.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        out = out[:5] + bytes([case.get("number", 3)]) + nonce + public
        out = signed(out, signer, public).ljust(256, b"\x00")
    elif kind == "DEVICE_HERE":
        out = out[:5] + bytes([case.get("number", 4)]) + nonce
        out += short_text(case["device_id"]) + struct.pack(">H", case["command_port"])
        out += mac(bytes.fromhex(case["command_key"]), b"comptoir-here-1", out)
    else:
        raise ValueError(kind)
    if "flip_bit" in case:
        changed = bytearray(out)
        changed[case["flip_bit"] // 8] ^= 1 << case["flip_bit"] % 8
        out = bytes(changed)
    out = out[: case.get("keep", len(out))] + bytes.fromhex(case.get("append", ""))
    return out


def signed(content, signer, public):
    signature = signer.sign(content)
    Ed25519PublicKey.from_public_bytes(public).verify(signature, content)
    return content + signature


def refuses_a_changed_signature(case):
    """ed25519 really is checked here: a BOX_HERE with one bit changed does not verify."""
    good = datagram_of(case)
    key = Ed25519PublicKey.from_public_bytes(good[-96:-64])
    changed = bytearray(good[:-64])
    changed[10] ^= 1
    try:
        key.verify(good[-64:], bytes(changed))
    except InvalidSignature:
        return True
    return False


# ---- the golden files ------------------------------------------------------------------------------------------------


def compare(path, data, write):
    """One hex file: 32 bytes a line."""
    shown = "".join(data[at : at + 32].hex() + "\n" for at in range(0, len(data), 32))
    if write:
        path.write_text(shown)
        return []
    if not path.exists():
        return [f"{path.name} is missing"]
    if path.read_text() != shown:
        return [f"{path.name} differs from what the text says, which is {data.hex()}"]
    return []


def check(write):
    """One line a vector, `ok NAME` or `FAILED NAME: why`; how many failed."""
    session = json.loads((GOLDEN / "frames" / "session.json").read_text())
    results = [("handshake", [
        f"{name} is {session[name]}, the text says {value}"
        for name, value in handshake(session).items() if session[name] != value
    ])]
    for case_path in sorted((GOLDEN / "frames").glob("*/case.json")):
        case = json.loads(case_path.read_text())
        problems = compare(case_path.parent / "frame.hex", frame_of(case, session), write)
        results.append((f"frame {case_path.parent.name}", problems))
    for case_path in sorted((GOLDEN / "datagrams").glob("*/case.json")):
        case = json.loads(case_path.read_text())
        problems = compare(case_path.parent / "datagram.hex", datagram_of(case), write)
        if case["type"] == "BOX_HERE" and "error" not in case and not refuses_a_changed_signature(case):
            problems.append("a changed BOX_HERE verifies")
        results.append((f"datagram {case_path.parent.name}", problems))
    for name, problems in results:
        print(f"FAILED vector {name}: {'; '.join(problems)}" if problems else f"ok vector {name}")
    return sum(1 for _, problems in results if problems)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="write the .hex files instead of comparing them")
    return 1 if check(parser.parse_args().write) else 0


if __name__ == "__main__":
    sys.exit(main())
