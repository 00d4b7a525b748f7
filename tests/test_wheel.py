"""The wheel alone is enough: installed into a clean environment, away from the checkout, it runs the whole road."""

from __future__ import annotations

import ast
import functools
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

from edgemeta import __version__

ROOT = Path(__file__).resolve().parents[1]
SHIPPED = {"edgemeta": "edgemeta", "profiles": "edgemeta/_profiles", "export": "edgemeta/_export"}
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that sees neither the checkout, nor this process's import path, nor its caches."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    environment |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg", "HOME": str(cwd)}  # caches of its own, too
    done = subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command} exited with {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("dist")
    build = ["-m", "pip", "wheel", "-q", "--disable-pip-version-check", "--no-deps", "--no-build-isolation"]
    run(sys.executable, *build, "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("edgemeta-*.whl"))


@pytest.fixture(scope="module")
def clean(wheel, tmp_path_factory) -> Path:
    """The bin/ folder of an environment with the wheel installed.

    Its dependencies are those of the environment the tests run in, seen through a .pth file: a second torch would
    cost a gigabyte. A folder named in a .pth file has its own .pth files left unread, so an editable install of the
    checkout stays out of sight.
    """
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder, with_pip=False, symlinks=True)
    python = folder / "bin" / "python"
    install = ["-m", "pip", "--disable-pip-version-check", "--python", python, "install", "-q", "--no-deps"]
    run(sys.executable, *install, wheel, cwd=folder)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip())
    paths = dict.fromkeys(sysconfig.get_path(kind) for kind in ("purelib", "platlib"))
    (site / "dependencies.pth").write_text("\n".join(paths) + "\n")
    return folder / "bin"


def test_every_shipped_file_is_in_the_wheel(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder, place in SHIPPED.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        missing = [path for path in files if f"{place}/{path.relative_to(ROOT / folder).as_posix()}" not in names]
        assert missing == []


def test_nothing_else_is_in_the_wheel(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names} == {"edgemeta", f"edgemeta-{__version__}.dist-info"}
    assert not [name for name in names if "__pycache__" in name or "/tests/" in name]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_dependencies_are_what_the_code_imports(wheel):
    """Each import of the package has a requirement, and each requirement an import."""
    archive = zipfile.ZipFile(wheel)
    metadata = archive.read(f"edgemeta-{__version__}.dist-info/METADATA").decode()
    required = re.findall(r"^Requires-Dist: ([\w-]+)(?!.*extra ==)", metadata, re.MULTILINE)
    extras = re.findall(r"^Requires-Dist: ([\w-]+)(?=.*extra ==)", metadata, re.MULTILINE)
    imported = set()
    for name in archive.namelist():
        if name.startswith("edgemeta/") and name.endswith(".py"):
            imported |= third_party(ast.parse(archive.read(name)))
    own = {canonical(path.stem) for path in (ROOT / "export" / "python").glob("*.py")}  # they lie side by side
    assert imported - own <= {canonical(name) for name in [*required, *extras]}
    assert {canonical(name) for name in required} <= imported


def third_party(tree: ast.AST) -> set[str]:
    """Distributions behind the absolute imports of a module."""
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and not node.level}
    tops = {name.split(".")[0] for name in names} - sys.stdlib_module_names - {"edgemeta"}
    return {canonical(owners().get(top, [top])[0]) for top in tops}


@functools.cache
def owners():
    """Module -> distributions, of everything that is installed: reading that takes a while."""
    return importlib.metadata.packages_distributions()


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def test_the_clean_environment_holds_its_own_copy(clean, tmp_path):
    place = Path(run(clean / "python", "-c", "import edgemeta; print(edgemeta.__file__)", cwd=tmp_path).strip())
    assert place.is_relative_to(clean.parent) and not place.is_relative_to(ROOT)


def test_version(clean, tmp_path):
    assert __version__ in run(clean / "edgemeta", "--version", cwd=tmp_path)


def test_devices_lists_the_profiles_inside_the_wheel(clean, tmp_path):
    shown = run(clean / "edgemeta", "devices", cwd=tmp_path)
    profiles = [path.stem for path in (ROOT / "profiles").glob("*.json")]
    assert profiles and all(name in shown for name in profiles)


PACKED = """
import json
from edgemeta.search import knowledge, zoo
found = zoo.read()
networks = len([found.weights(member) for member in found.members])
print(json.dumps({"networks": networks, "slot": knowledge.shipped().slots[0][0]}))
"""


@pytest.fixture(scope="module")
def packed(clean, tmp_path_factory) -> dict:
    """What the installed package finds in itself."""
    return json.loads(run(clean / "python", "-c", PACKED, cwd=tmp_path_factory.mktemp("packed")))


def test_the_trained_networks_are_in_the_wheel_and_small(wheel, packed):
    info = zipfile.ZipFile(wheel).getinfo("edgemeta/zoo/edge-1x28x28.safetensors")
    assert 0 < info.file_size <= 5_000_000
    assert packed["networks"] >= 4


def test_the_policy_of_the_meta_learned_searcher_is_in_the_wheel(packed):
    assert "stage" in packed["slot"]


@pytest.mark.timeout(240)
def test_a_first_bundle_needs_no_training(clean, tmp_path):
    from PIL import Image

    for label, shade in (("dark", 40), ("light", 90)):
        (tmp_path / "images" / label).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (28, 28), shade + i).save(tmp_path / "images" / label / f"{i}.png")
    shown = run(clean / "edgemeta", "pick", "--device", "null", "--images", "images", "--run", "run", cwd=tmp_path)
    assert "chosen" in shown and (tmp_path / "run" / "bundle" / "manifest.json").exists()
    assert (tmp_path / "run" / "state.npz").exists() and not (tmp_path / ".cache" / "edgemeta").exists()


@pytest.mark.timeout(240)
def test_demo_runs_outside_the_checkout(clean, tmp_path):
    """The whole road on the data that ships, with as few timings and as little training as it takes."""
    folder = tmp_path / "run"
    run(clean / "edgemeta", "profile", "--space=tiny", "--nets=4", "--seconds=3", "--run", folder, cwd=tmp_path)
    little = ["--trials=2", "--rungs=2,4", "--eval-episodes=4", "--episodes=4", "--test-episodes=2", "--workers=1"]
    run(clean / "edgemeta", "demo", "--quick", *little, "--run", folder, cwd=tmp_path)
    manifest = json.loads((folder / "bundle" / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["costs"]["measured"]
    assert "<html" in (folder / "report.html").read_text(encoding="utf-8").lower()
