"""`edgemeta export --node FOLDER`: a bundle with the runtime for Node, which `npm install` makes complete."""

from __future__ import annotations

from pathlib import Path

from edgemeta import config as configs
from edgemeta.errors import BadBundle
from edgemeta.files import resource
from edgemeta.lowering import bundle as bundles
from edgemeta.lowering import manifest, replace
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told

DEVICE, PACKAGE = "edgemeta_device.mjs", "package.json"
MODULES = ("bundle.mjs", "images.mjs", "learner.mjs", "taught.mjs")  # the page's, which know no browser
INSTALLED = {"node_modules", "package-lock.json"}


def require(target: Path) -> None:
    """Refuse, before anything takes time, a folder that holds what this would delete."""
    there = {path.name for path in target.iterdir()} if target.is_dir() else set()
    if foreign := sorted(there - {DEVICE, PACKAGE, "page", "bundle", *INSTALLED}):
        raise BadBundle(f"{target} holds {foreign[0]}, not of a bundle for Node; move it or name another with --node")
    if target.exists() and not target.is_dir():
        raise BadBundle(f"{target} is a file; name another folder with --node")


def write(config: configs.Export, folder: RunFolder, bundle: Path) -> Told:
    assert config.node is not None
    replace.folder(config.node, files(bundle))
    install, enroll = "npm install --ignore-scripts", f"node {DEVICE} enroll bundle IMAGES"
    facts = {"folder": config.node, "install": install, "enroll": enroll}
    return told(f"Node: {config.node}: {install}, then {enroll}", {"node": facts})


def files(bundle: Path) -> dict[str, bytes]:
    """By path: the runtime, the package that names what it needs, and the bundle with the manifest's files."""
    web, graphs = resource("export") / "web", bundles.read(bundle).graphs.values()
    own = {DEVICE: (web / DEVICE).read_bytes(), PACKAGE: (web / "node.json").read_bytes()}
    own |= {f"page/{name}": (web / "page" / name).read_bytes() for name in MODULES}
    return own | {f"bundle/{name}": (bundle / name).read_bytes() for name in (manifest.NAME, *(g.file for g in graphs))}
