"""A subscriber of our own on a pod's publisher: what the gateway should have been told by now."""

import threading
from collections import Counter

import msgspec
import zmq


class Tap:
    """Blocks stored and the last batch's number, heard straight from the pod."""

    def __init__(self, port: int):
        self.stored = 0
        self.sequence: int | None = None
        self.kinds: Counter[str] = Counter()
        self._stop = threading.Event()
        self._socket = zmq.Context.instance().socket(zmq.SUB)
        self._socket.setsockopt(zmq.RECONNECT_IVL, 50)
        self._socket.setsockopt(zmq.RECONNECT_IVL_MAX, 200)
        self._socket.subscribe(b"")
        self._socket.connect(f"tcp://127.0.0.1:{port}")
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def _listen(self) -> None:
        while not self._stop.is_set():
            if not self._socket.poll(100):
                continue
            _, sequence, payload = self._socket.recv_multipart()
            for event in msgspec.msgpack.decode(payload)[1]:
                self.kinds[event["type"]] += 1
                if event["type"] == "BlockStored":
                    self.stored += len(event["block_hashes"])
            self.sequence = int.from_bytes(sequence, "big")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join()
        self._socket.close(0)
