"""A TCP relay before a pod's publisher, whose line can be cut, frozen or made to lose batches."""

import contextlib
import random
import socket
import threading

GREETING_BYTES = 64
MORE, LONG, COMMAND = 1, 2, 4


class Relay:
    """Carries every byte as it is, until it is told otherwise. Listens on a port of its own."""

    def __init__(self, target_port: int, seed: int = 1):
        self.target_port = target_port
        self.loss = 0.0
        self.lost = 0
        self.lost_sequence: int | None = None
        self._random = random.Random(seed)
        self._closed = False
        self._flows = threading.Event()
        self._flows.set()
        self._connected = True
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Ends every connection, and every new one at once, until `mend`."""
        self._connected = False
        self._hang_up()

    def freeze(self) -> None:
        """Connections stay, nothing comes through until `mend`; then all of it does."""
        self._flows.clear()

    def mend(self) -> None:
        self._connected = True
        self.loss = 0.0
        self._flows.set()

    def _hang_up(self) -> None:
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                if not self._connected:
                    raise ConnectionError("the line is cut")
                pod = socket.create_connection(("127.0.0.1", self.target_port), timeout=5)
            except OSError:  # as if nobody listened here
                client.close()
                continue
            pod.settimeout(None)
            self._open |= {client, pod}
            for pump, source, sink in ((self._plain, client, pod), (self._messages, pod, client)):
                threading.Thread(target=self._run, args=(pump, source, sink), daemon=True).start()

    def _run(self, pump, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError, EOFError):
            pump(source, sink)
        for one in (source, sink):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open -= {source, sink}

    def _plain(self, source: socket.socket, sink: socket.socket) -> None:
        while data := source.recv(65536):
            sink.sendall(data)

    def _messages(self, source: socket.socket, sink: socket.socket) -> None:
        """ZMTP 3: a greeting of 64 bytes, then frames; a message ends with a frame without MORE."""
        with source.makefile("rb") as reader:
            sink.sendall(_exactly(reader, GREETING_BYTES))
            frames: list[bytes] = []
            while True:
                flags, frame = _frame(reader)
                frames.append(frame)
                if flags & MORE:
                    continue
                self._flows.wait()
                if not flags & COMMAND and self._random.random() < self.loss:
                    self.lost += 1
                    self.lost_sequence = int.from_bytes(frames[1][-8:], "big")
                else:
                    sink.sendall(b"".join(frames))
                frames.clear()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closed = True
        self._flows.set()
        # A listener that is only closed stays open for as long as somebody waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._hang_up()


def _exactly(reader, count: int) -> bytes:
    data = reader.read(count)
    if len(data) < count:
        raise EOFError
    return data


def _frame(reader) -> tuple[int, bytes]:
    """(flags, the frame's bytes, head included)."""
    head = _exactly(reader, 1)
    size = _exactly(reader, 8 if head[0] & LONG else 1)
    return head[0], head + size + _exactly(reader, int.from_bytes(size, "big"))
