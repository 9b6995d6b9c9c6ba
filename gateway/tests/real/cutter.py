"""A TCP relay before a pod that can cut one stream after a number of its events."""

import contextlib
import socket
import threading

EVENT = b"data: "


class Shears:
    """One cut, whichever of the relays comes to it first."""

    def __init__(self):
        self._lock = threading.Lock()
        self._after: int | None = None

    def open(self, after: int) -> None:
        """The next stream that has told so many events is cut behind them."""
        with self._lock:
            self._after = after

    def cuts(self, told: int) -> bool:
        with self._lock:
            if self._after is None or told <= self._after:
                return False
            self._after = None
            return True

    @property
    def are_open(self) -> bool:
        return self._after is not None


class Cutter:
    """Carries every byte as it is, but for the cut. Listens on a port of its own."""

    def __init__(self, target: str, shears: Shears):
        host, port = target.removeprefix("http://").split(":")
        self._target, self._shears, self._closed = (host, int(port)), shears, False
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            try:
                pod = socket.create_connection(self._target, timeout=5)
            except OSError:  # as if nobody listened here
                client.close()
                continue
            pod.settimeout(None)
            self._open |= {client, pod}
            for pump in (self._requests, self._answers):
                threading.Thread(target=self._run, args=(pump, client, pod), daemon=True).start()

    def _run(self, pump, client: socket.socket, pod: socket.socket) -> None:
        with contextlib.suppress(OSError):
            pump(client, pod)
        for one in (client, pod):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open -= {client, pod}

    def _requests(self, client: socket.socket, pod: socket.socket) -> None:
        while data := client.recv(65536):
            pod.sendall(data)

    def _answers(self, client: socket.socket, pod: socket.socket) -> None:
        told = 0
        while data := pod.recv(65536):
            told += data.count(EVENT)
            if self._shears.cuts(told):
                return  # without these bytes
            client.sendall(data)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._closed = True
        # A listener that is only closed stays open for as long as somebody waits in accept.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for one in list(self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
