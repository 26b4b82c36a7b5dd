"""A server made of h11, a strict parser of others', that answers with a digest of all that it was asked.

Equal answers therefore mean equal requests. The header x-shape says how to answer. Argument: the port.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import sys
import threading

import h11

_RECV_BYTES = 1 << 16


def serve(listening: socket.socket) -> None:
    while True:
        connection, _ = listening.accept()
        threading.Thread(target=converse, args=(connection,), daemon=True).start()


def converse(connection: socket.socket) -> None:
    peer = h11.Connection(h11.SERVER)
    with contextlib.closing(connection), contextlib.suppress(OSError):
        try:
            while answer_one(connection, peer):
                peer.start_next_cycle()
        except h11.RemoteProtocolError:
            connection.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def answer_one(connection: socket.socket, peer: h11.Connection) -> bool:
    """Read one request and answer it; whether another may follow."""
    digest = hashlib.sha256()
    shape = method = b""
    while True:
        event = peer.next_event()
        if event is h11.NEED_DATA:
            peer.receive_data(connection.recv(_RECV_BYTES))
        elif isinstance(event, h11.Request):
            method, shape = event.method, dict(event.headers).get(b"x-shape", b"")
            for part in (event.method, event.target, event.http_version, *event.headers.raw_items()):
                digest.update(repr(part).encode())
        elif isinstance(event, h11.Data):
            digest.update(event.data)
        elif isinstance(event, h11.EndOfMessage):
            digest.update(repr(list(event.headers)).encode())
            break
        else:  # the client has closed
            return False
    for part in response(shape, digest.hexdigest().encode()):
        if method == b"HEAD":  # no body, so no trailers either
            if isinstance(part, h11.Data):
                continue
            if isinstance(part, h11.EndOfMessage):
                part = h11.EndOfMessage()
        data = peer.send(part)
        assert data is not None
        connection.sendall(data)
    return peer.our_state is h11.DONE and peer.their_state is h11.DONE


def response(shape: bytes, digest: bytes) -> list[h11.Event]:
    bodies = [digest, digest * 100, b"end"]
    whole = b"".join(bodies)
    match shape:
        case b"chunked":
            head = h11.Response(status_code=200, headers=[("Transfer-Encoding", "chunked")])
            return [head, *(h11.Data(body) for body in bodies), h11.EndOfMessage(headers=[("X-Sum", digest)])]
        case b"until close":
            head = h11.Response(status_code=200, headers=[("Connection", "close")])
            return [head, h11.Data(whole), h11.EndOfMessage()]
        case b"nothing":
            return [h11.Response(status_code=204, headers=[("X-Sum", digest)]), h11.EndOfMessage()]
        case b"failure":
            head = h11.Response(status_code=503, headers=[("Content-Length", str(len(whole))), ("Retry-After", "1")])
            return [head, h11.Data(whole), h11.EndOfMessage()]
        case b"hints":
            hints = h11.InformationalResponse(status_code=103, headers=[("Link", "</a>")])
            head = h11.Response(status_code=200, headers=[("Content-Length", str(len(whole)))])
            return [hints, head, h11.Data(whole), h11.EndOfMessage()]
        case _:
            head = h11.Response(status_code=200, headers=[("Content-Length", str(len(whole)))])
            return [head, h11.Data(whole), h11.EndOfMessage()]


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", int(sys.argv[1])), backlog=128) as listening_:
        serve(listening_)
