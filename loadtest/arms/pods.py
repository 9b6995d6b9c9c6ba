"""What stands behind an arm: cheap pods that only answer, and simulated ones that have a cache."""

from pathlib import Path

from .arm import Arm, Program, fetch, free_port


def cheap(loadtest: Path, scratch: Path, count: int = 4) -> tuple[Arm, list[str]]:
    """Cheap pods in one process, and their addresses."""
    server = Program("upstream", [loadtest, "upstream", "--pods", count],
                     scratch / "upstream.log")
    line = server.wait(lambda: server.log.read_text().strip(), "listening")
    return Arm("upstream", "", [server]), line.split(",")


class Simulated:
    """Simulated pods, each with an address of its own, so that all can publish at the same port.

    That is how pods are in a cluster, and an Endpoint Picker expects it.
    """

    def __init__(self, loadtest: Path, scratch: Path, count: int, blocks: int):
        self.kv_port = free_port("127.0.1.1")
        self.programs, self.urls = [], []
        for number in range(1, count + 1):
            pod = Program(f"pod-{number}", [
                loadtest, "simulate", "--host", f"127.0.1.{number}", "--port", 0,
                "--num-blocks", blocks, "--kv-events-port", self.kv_port, "--enable-scale-out"],
                scratch / f"pod-{number}.log")
            self.programs.append(pod)
            self.urls.append(pod.wait(lambda log=pod.log: log.read_text().strip(), "listening"))
        self.addresses = [url.removeprefix("http://") for url in self.urls]

    def pages(self) -> list[str]:
        """Every pod's `/metrics`."""
        pages = [fetch(f"{url}/metrics") for url in self.urls]
        if not all(pages):
            raise RuntimeError("a pod told no metrics")
        return [page.decode() for page in pages]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for program in self.programs:
            program.stop()
