"""The image cannot be built here; its file can be linted, and what it would hold be run alone."""

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from harness import check, expect, expect_equal
from processes import CACHE
from world import MANIFESTS, World, note

CONTAINERFILE = MANIFESTS.parent / "Containerfile"
# glibc and libgcc: all that the base has of shared libraries.
OF_THE_BASE = re.compile(r"/(ld-linux[^/]*|lib(c|m|gcc_s|pthread|dl|rt|resolv)\.so[^/]*)$")


@check("image/the_containerfile_has_nothing_to_complain_of", stage="manifests")
def lint(_: World) -> None:
    hadolint = CACHE / "kube" / "python" / "bin" / "hadolint"
    done = subprocess.run([hadolint, CONTAINERFILE], text=True, capture_output=True)
    expect_equal((done.returncode, done.stdout), (0, ""), "hadolint")


@check("image/every_image_of_ours_is_a_target_and_none_runs_as_root", stage="manifests")
def targets(_: World) -> None:
    text = CONTAINERFILE.read_text()
    built = set(re.findall(r"-t (\S+)", text))
    named = {image for file in MANIFESTS.rglob("*.yaml")
             for image in re.findall(r"image: (hearth\S*)", file.read_text())}
    expect_equal(named, built, "images")
    expect_equal(text.count("USER 65532:65532"), len(built), "users by number")


@check("image/the_binary_needs_no_more_than_the_base_has", stage="manifests")
def alone(world: World) -> None:
    listed = subprocess.run(["ldd", world.hearth], check=True, text=True, capture_output=True)
    libraries = re.findall(r"(/\S+)", listed.stdout)
    strange = [path for path in libraries if not OF_THE_BASE.search(path)]
    expect(not strange, f"libraries that the base lacks: {strange}")
    if os.geteuid() != 0:
        note("not root: not run in a root of its own")
        return
    with tempfile.TemporaryDirectory() as root:
        for path in libraries:
            (Path(root) / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, Path(root) / path[1:])
        shutil.copy(world.hearth, Path(root) / "hearth")
        shutil.copy(MANIFESTS / "base" / "hearth.yaml", root)
        os.chmod(root, 0o755)
        for args in (["--version"], ["check-config", "/hearth.yaml"]):
            done = subprocess.run(["chroot", "--userspec=65532:65532", root, "/hearth", *args],
                                  text=True, capture_output=True, env={"PATH": os.environ["PATH"]})
            expect(done.returncode == 0, f"hearth {args[0]}: {done.stderr}")
