"""Two vLLM servers in float32, each behind a relay that can cut a stream, and Hearth before them."""

import contextlib
from dataclasses import dataclass, field

from cutter import Cutter, Shears
from harness import World
from hearth import Hearth
from pods import Server
from processes import free_port, get


@dataclass
class Surviving(World):
    shears: Shears = field(default_factory=Shears)
    hearth: Hearth | None = None
    stack: contextlib.ExitStack | None = None

    def metric(self, name: str) -> float:
        """The sum of a metric of Hearth's, by the beginning of its line."""
        page = get(f"{self.hearth.admin_url}/metrics")[1].splitlines()
        lines = [line for line in page if line.startswith(name)]
        if not lines:
            raise KeyError(name)
        return sum(float(line.split()[-1]) for line in lines)

    def restart(self, number: int) -> None:
        """A new process where a dead one was; returns when Hearth sends to it again."""
        self.pods[number].group.kill()
        self.pods[number] = server(self.stack, number, self.pods[number].port)
        self.pods[number].wait_ready()


def server(stack: contextlib.ExitStack, number: int, port: int) -> Server:
    return stack.enter_context(Server(f"survive-{number}", "survive", port))


@contextlib.contextmanager
def surviving(stage: str, options):
    with contextlib.ExitStack() as stack:
        world = Surviving(stage, "", [server(stack, number, free_port()) for number in (0, 1)])
        world.stack = stack
        for pod in world.pods:
            pod.wait_ready()
        relays = [stack.enter_context(Cutter(pod.url, world.shears)) for pod in world.pods]
        urls = [relay.url for relay in relays]
        world.hearth = stack.enter_context(Hearth(options.hearth, urls))
        world.hearth.wait_ready()
        world.gateway = world.hearth.url
        yield world
