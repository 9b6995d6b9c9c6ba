"""Whether the client is honest: an upstream that knows its own delay, and what the client says of it."""

import contextlib
import statistics
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import cost

DELAY_S = 0.2
TOLERANCE = 0.05
# A busy machine can be late, a dishonest client is wrong every time.
TRIES = 3
ANSWER = b'{"id":"x","object":"chat.completion","choices":[]}'


class Slow(BaseHTTPRequestHandler):
    """Answers after DELAY_S, and notes how long that was by its own clock."""

    protocol_version = "HTTP/1.1"
    # Head and body in one packet, or the client's delayed acknowledgement would count as ours.
    wbufsize = -1
    disable_nagle_algorithm = True
    took_ms: list[float] = []

    def do_POST(self):
        began = time.perf_counter()
        self.rfile.read(int(self.headers["content-length"]))
        time.sleep(DELAY_S)
        Slow.took_ms.append((time.perf_counter() - began) * 1e3)
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(ANSWER)))
        self.end_headers()
        self.wfile.write(ANSWER)

    def log_message(self, *_):
        pass


@contextlib.contextmanager
def upstream():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Slow)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def run(options) -> dict:
    """What both clocks say, in milliseconds; raises if the client is more than 5 % off."""
    for _try in range(TRIES):
        Slow.took_ms = []
        with upstream() as address:
            seen = cost.saturate(options.loadtest, address, cost.size(1, 4), 2)
        truth, measured = statistics.median(Slow.took_ms), seen["p50_us"] / 1e3
        off = measured / truth - 1
        if abs(off) <= TOLERANCE:
            return {"upstream_ms": truth, "client_ms": measured, "off_percent": off * 100}
    raise RuntimeError(f"the client measured {measured:.1f} ms where the upstream took {truth:.1f}")
