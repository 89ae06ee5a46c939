"""The server side of a websocket (RFC 6455): one client, binary messages, blocking."""

import base64
import hashlib
import socket
import struct

_MAGIC = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
BINARY, CLOSE, PING, PONG = 2, 8, 9, 10


class Closed(Exception):
    """The client has gone."""


def _read_head(connection: socket.socket) -> bytes:
    head = b""
    while b"\r\n\r\n" not in head:
        chunk = connection.recv(4096)
        if not chunk:
            raise Closed
        head += chunk
    return head


def handshake(connection: socket.socket, refuse: str | None = None) -> None:
    """Answer the upgrade request; ``refuse`` is a status line to refuse it with."""
    head = _read_head(connection)
    request, *lines = head.decode("latin-1").split("\r\n")
    headers = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    if refuse is None and request.split(" ")[1] != "/sc2api":
        refuse = "404 Not Found"
    if refuse is not None:
        connection.sendall(f"HTTP/1.1 {refuse}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        raise Closed
    accept = base64.b64encode(hashlib.sha1(headers["sec-websocket-key"].encode() + _MAGIC).digest()).decode()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + accept.encode() + b"\r\n\r\n"
    )


class Channel:
    """Messages over an open websocket."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.buffer = bytearray()

    def _take(self, size: int) -> bytes:
        while len(self.buffer) < size:
            chunk = self.connection.recv(1 << 16)
            if not chunk:
                raise Closed
            self.buffer += chunk
        data = bytes(self.buffer[:size])
        del self.buffer[:size]
        return data

    def receive(self) -> bytes:
        """The next message; control frames are answered on the way."""
        message = b""
        while True:
            first, second = self._take(2)
            length = second & 127
            if length == 126:
                (length,) = struct.unpack(">H", self._take(2))
            elif length == 127:
                (length,) = struct.unpack(">Q", self._take(8))
            if not second & 128:
                raise Closed  # RFC 6455, 5.1: a client's frames are masked
            mask = self._take(4)
            payload = self._take(length)
            repeated = (mask * (length // 4 + 1))[:length]
            payload = (int.from_bytes(payload, "big") ^ int.from_bytes(repeated, "big")).to_bytes(length, "big")
            opcode = first & 15
            if opcode == CLOSE:
                raise Closed
            if opcode == PING:
                self.send(payload, PONG)
            elif opcode != PONG:
                message += payload
                if first & 128:
                    return message

    def send(self, payload: bytes, opcode: int = BINARY) -> None:
        """One unmasked frame."""
        if len(payload) < 126:
            head = struct.pack(">BB", 128 | opcode, len(payload))
        elif len(payload) < 1 << 16:
            head = struct.pack(">BBH", 128 | opcode, 126, len(payload))
        else:
            head = struct.pack(">BBQ", 128 | opcode, 127, len(payload))
        self.connection.sendall(head + payload)
