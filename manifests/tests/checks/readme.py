"""Every command of manifests/README.md, in order, as a reader would paste it."""

import os
import re
import shutil
import subprocess

from cluster import BIN
from harness import check, expect
from world import MANIFESTS, World

BLOCK = re.compile(r"^```sh kube\n(.*?)^```", re.MULTILINE | re.DOTALL)


@check("readme/every_command_does_what_it_says", stage="readme", limit_s=150)
def commands(world: World) -> None:
    blocks = BLOCK.findall((MANIFESTS / "README.md").read_text())
    expect(len(blocks) >= 5, f"{len(blocks)} blocks")
    path = world.cluster.folder / "bin"
    path.mkdir()
    shutil.copy(world.hearth, path / "hearth")
    env = {k: v for k, v in os.environ.items() if not k.startswith("HEARTH_")}
    env |= {"PATH": f"{path}:{BIN}:{env['PATH']}", "KUBECONFIG": str(world.cluster.kubeconfig)}
    for block in blocks:
        done = subprocess.run(["bash", "-euxo", "pipefail", "-c", block], cwd=MANIFESTS.parent,
                              env=env, text=True, capture_output=True, timeout=60)
        expect(done.returncode == 0, done.stderr[-400:])
