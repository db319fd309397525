"""quic.py - what a QUIC client sends first: a ClientHello in Initial packets (RFC 9001), cut over datagrams as a test likes.

AES and its counter mode are written out here: Python has none of its own, and a handful of packets needs no speed."""
import hashlib
import hmac

SALT = bytes.fromhex("38762cf7f55934b34d179ae6a4c80cadccbb7f0a")
SIZE = 1200


def _sbox():
    box, p, q = [0] * 256, 1, 1
    while True:                        # p runs through all of GF(2^8) by its generator 3, q through the inverses (FIPS 197 section 5.1.1)
        p = p ^ (p << 1 & 0xff) ^ (0x1b if p & 0x80 else 0)
        q ^= q << 1
        q ^= q << 2
        q ^= q << 4
        q &= 0xff
        q ^= 0x09 if q & 0x80 else 0
        x = q ^ (q << 1 | q >> 7) ^ (q << 2 | q >> 6) ^ (q << 3 | q >> 5) ^ (q << 4 | q >> 4)
        box[p] = (x & 0xff) ^ 0x63
        if p == 1:
            box[0] = 0x63
            return box


SBOX = _sbox()


def _double(x):
    return (x << 1 & 0xff) ^ (0x1b if x & 0x80 else 0)


def aes_block(key, block):
    words, factor = [list(key[i:i + 4]) for i in range(0, 16, 4)], 1
    for i in range(4, 44):
        w = words[i - 1]
        if i % 4 == 0:
            w = [SBOX[b] for b in w[1:] + w[:1]]
            w[0] ^= factor
            factor = _double(factor)
        words.append([a ^ b for a, b in zip(words[i - 4], w)])
    keys = [sum(words[i:i + 4], []) for i in range(0, 44, 4)]
    s = [a ^ b for a, b in zip(block, keys[0])]
    for r in range(1, 11):
        s = [SBOX[s[(i + 4 * (i % 4)) % 16]] for i in range(16)]     # SubBytes and ShiftRows
        if r < 10:
            mixed = []
            for c in range(0, 16, 4):
                col = s[c:c + 4]
                both = col[0] ^ col[1] ^ col[2] ^ col[3]
                mixed += [col[i] ^ both ^ _double(col[i] ^ col[(i + 1) % 4]) for i in range(4)]
            s = mixed
        s = [a ^ b for a, b in zip(s, keys[r])]
    return bytes(s)


def gcm_seal(key, nonce, plain, header):
    """NIST SP 800-38D with a nonce of twelve bytes."""
    h = int.from_bytes(aes_block(key, bytes(16)), "big")

    def times_h(x):
        z, v = 0, h
        for i in range(127, -1, -1):
            if x >> i & 1:
                z ^= v
            v = v >> 1 ^ (0xe1 << 120 if v & 1 else 0)
        return z

    def pad(data):
        return data + bytes(-len(data) % 16)
    stream = b"".join(aes_block(key, nonce + i.to_bytes(4, "big")) for i in range(2, 3 + len(plain) // 16))
    sealed = bytes(a ^ b for a, b in zip(plain, stream))
    y = 0
    text = pad(header) + pad(sealed) + (8 * len(header)).to_bytes(8, "big") + (8 * len(sealed)).to_bytes(8, "big")
    for i in range(0, len(text), 16):
        y = times_h(y ^ int.from_bytes(text[i:i + 16], "big"))
    first = int.from_bytes(aes_block(key, nonce + b"\0\0\0\1"), "big")
    return sealed + (y ^ first).to_bytes(16, "big")


def _label(secret, label, length):
    name = b"tls13 " + label
    info = length.to_bytes(2, "big") + bytes([len(name)]) + name + b"\0"
    return hmac.new(secret, info + b"\1", hashlib.sha256).digest()[:length]


def client_hello(name, share=1216):
    """With a post-quantum key share before the name."""
    host = name.encode()
    entry = b"\0" + len(host).to_bytes(2, "big") + host
    server_name = len(entry).to_bytes(2, "big") + entry
    extensions = b"".join(kind.to_bytes(2, "big") + len(body).to_bytes(2, "big") + body
                          for kind, body in ((43, b"\2\3\4"), (51, bytes(share)), (0, server_name)))
    body = b"\3\3" + bytes(32) + b"\0" + b"\0\2\x13\1" + b"\1\0" + len(extensions).to_bytes(2, "big") + extensions
    return b"\1" + len(body).to_bytes(3, "big") + body


def initial(cid, number, hello, *cuts):
    """One padded datagram with the CRYPTO frames of these (from, to) of the hello."""
    secret = _label(hmac.new(SALT, cid, hashlib.sha256).digest(), b"client in", 32)
    key, iv, hp = _label(secret, b"quic key", 16), _label(secret, b"quic iv", 12), _label(secret, b"quic hp", 16)
    frames = b"".join(b"\6" + (0x80000000 | a).to_bytes(4, "big") + (0x4000 | b - a).to_bytes(2, "big") + hello[a:b] for a, b in cuts)
    head = b"\xc3\0\0\0\1" + bytes([len(cid)]) + cid + b"\0\0"
    length = SIZE - len(head) - 2
    at = len(head) + 2
    head += (0x4000 | length).to_bytes(2, "big") + number.to_bytes(4, "big")
    plain = frames + bytes(length - 4 - 16 - len(frames))
    nonce = (int.from_bytes(iv, "big") ^ number).to_bytes(12, "big")
    packet = bytearray(head + gcm_seal(key, nonce, plain, head))
    mask = aes_block(hp, bytes(packet[at + 4:at + 20]))
    packet[0] ^= mask[0] & 0x0f
    for i in range(4):
        packet[at + i] ^= mask[1 + i]
    return bytes(packet)


def two_datagrams(name, cid=b"abcdefgh"):
    """A hello as Chrome sends it: frames out of order, the name cut over both datagrams."""
    hello = client_hello(name)
    cut = len(hello) - 6
    return [initial(cid, 0, hello, (cut, cut + 6), (0, 40), (700, 1200)), initial(cid, 1, hello, (1200, cut), (300, 700), (40, 300))]
