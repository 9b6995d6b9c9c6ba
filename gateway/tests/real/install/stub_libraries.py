"""Builds an empty stand-in for every CUDA library that torch links against.

The index carries only the CUDA build of torch, whose libtorch_cpu.so itself asks the loader for
libcudart and a dozen others (2.7 GB of wheels). A CPU server never calls them, but Python opens
extension modules with RTLD_NOW, so every name has to resolve. Each stub exports the symbols asked
of it, under the version nodes asked for, and every function answers 100 (cudaErrorNoDevice):
torch.cuda.is_available() is then simply False.

usage: stub_libraries.py SITE_PACKAGES        (needs gcc; run by setup.sh)
"""

import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

from elftools.elf.elffile import ELFFile

# Served by the system or by the interpreter itself.
SYSTEM = ("libc.", "libm.", "libdl.", "libpthread.", "librt.", "libgcc_s.", "libstdc++.", "ld-linux",
          "libgomp", "libnuma", "libpython")
NO_DEVICE = 100


class Library:
    """What one shared object needs and gives."""

    def __init__(self, path: Path):
        with path.open("rb") as file:
            elf = ELFFile(file)
            self.needed = self._needed(elf)
            # file -> version names, and version index -> (file, version name)
            self.versions, by_index = self._versions(elf)
            self.defined, self.wanted = self._symbols(elf, by_index)

    @staticmethod
    def _needed(elf):
        dynamic = elf.get_section_by_name(".dynamic")
        return {tag.needed for tag in dynamic.iter_tags("DT_NEEDED")} if dynamic else set()

    @staticmethod
    def _versions(elf):
        per_file, by_index = defaultdict(set), {}
        section = elf.get_section_by_name(".gnu.version_r")
        for need, versions in section.iter_versions() if section else ():
            for version in versions:
                per_file[need.name].add(version.name)
                by_index[version["vna_other"]] = (need.name, version.name)
        return per_file, by_index

    @staticmethod
    def _symbols(elf, by_index):
        defined, wanted = set(), set()
        symbols = elf.get_section_by_name(".dynsym")
        indices = elf.get_section_by_name(".gnu.version")
        for number, symbol in enumerate(symbols.iter_symbols() if symbols else ()):
            if not symbol.name:
                continue
            if symbol["st_shndx"] != "SHN_UNDEF":
                defined.add(symbol.name)
            elif symbol["st_info"]["bind"] != "STB_WEAK":
                index = indices.get_symbol(number)["ndx"] if indices else None
                wanted.add((symbol.name, by_index.get(index)))
        return defined, wanted


def plan(libraries: dict[str, Library]) -> dict[str, dict[str, set[str]]]:
    """stub file -> version node ("" for none) -> symbols."""
    needed = set().union(*(library.needed for library in libraries.values()))
    stubs = sorted(n for n in needed if n not in libraries and not n.startswith(SYSTEM))
    out = {name: defaultdict(set) for name in stubs}
    for library in libraries.values():
        for file, versions in library.versions.items():
            for version in versions if file in out else ():
                out[file][version]  # an asked-for node must exist even when it stays empty
    defined = set().union(*(library.defined for library in libraries.values()))
    for library in libraries.values():
        for symbol, version in library.wanted:
            if version is not None:
                file, name = version
                if file in out:
                    out[file][name].add(symbol)
            elif symbol not in defined and not symbol.startswith(("Py", "_Py")):
                # Unversioned names are looked up in every loaded library: any stub will do.
                out[stubs[0]][""].add(symbol)
    return out


def build(target: Path, soname: str, nodes: dict[str, set[str]]) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        source, script = Path(scratch, "stub.c"), Path(scratch, "stub.map")
        names = sorted(set().union(*nodes.values()))
        body = "".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in names)
        source.write_text(body or "int hearth_stub;\n")
        versions = {version: names for version, names in sorted(nodes.items()) if version}
        script.write_text("".join(
            f"{version} {{ {'global: ' + '; '.join(sorted(names)) + ';' if names else ''} }};\n"
            for version, names in versions.items()))
        command = ["gcc", "-shared", "-fPIC", "-w", "-fno-builtin", f"-Wl,-soname,{soname}",
                   "-o", str(target), str(source)]
        if versions:
            command.append(f"-Wl,--version-script,{script}")
        subprocess.run(command, check=True)


def main() -> None:
    directory = Path(sys.argv[1], "torch", "lib")
    found = sorted(directory.glob("*.so*"))
    libraries = {path.name: Library(path) for path in found}
    stubs = plan(libraries)
    for soname, nodes in stubs.items():
        build(directory / soname, soname, nodes)
    print(f"{len(stubs)} stub libraries in {directory}")


if __name__ == "__main__":
    main()
