"""The command line as a user meets it: one line for each mistake, exit code 2, never a traceback."""

import errno
import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from edgemeta import pipeline
from edgemeta.cli import COMMANDS, main
from edgemeta.config import make


def fails(capsys, *arguments: str) -> str:
    """The one line on stderr of a command that exits with 2."""
    try:
        code = main(arguments)
    except SystemExit as stopped:
        code = stopped.code
    shown = capsys.readouterr().err.strip()
    assert code == 2 and "Traceback" not in shown and "\n" not in shown, shown
    return shown


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["serch"], "invalid choice: 'serch'; did you mean 'search'?"),
        (["search", "--latencyms", "3"], "unrecognized arguments: --latencyms 3; did you mean '--latency-ms'?"),
        (["devices", "extra"], "unrecognized arguments: extra; see edgemeta devices --help"),
        (["predict", "--unknown", "5"], "unknown = 5.0: a share of examples; give 0 or more, and below 1"),
        (["predict", "--unknown", "nan"], "unknown = nan: should be 0 or more"),
        (["profile", "--threads", "many"], "threads = 'many': should be a whole number"),
        (["import"], "no file to import: name it"),
        (["import", "table.npz"], "choose one of: fbnet, nb201, ofa, timings; give --format"),
        (["import", "--format", "nb201"], "no file to import: name it"),
        pytest.param(
            ["search", "--storage", "postgresql://nobody@127.0.0.1:1/x", "--device", "null"],
            "cannot reach postgresql://",
            marks=pytest.mark.skipif(find_spec("psycopg") is None, reason="extra `postgresql` is not installed"),
        ),
        (["search", "--latency-ms", "1", "--searcher", "evolutoin"], "did you mean 'evolution'?"),
        (["search", "--latency", "1"], "did you mean '--latency-ms'?; see edgemeta search --help"),
        (["search", "--learner", "protonets"], "did you mean 'protonet'?"),
        (["search", "--space", "edg"], "did you mean 'edge'?"),
        (["search", "--data", "glyph"], "did you mean 'glyphs'?"),
        (["search", "--latency-ms", "fast"], "latency_ms = 'fast'"),
        (["search", "--latency-ms", "-1"], "should be greater than 0"),
        (["search", "--latency-ms", "nan"], "latency_ms = nan"),
        (["search", "--in-shape", "1,28"], "in_shape = '1,28': should be channels,height,width, such as 1,28,28"),
        (["search", "--seed", "-1"], "seed = -1: should be from 0"),
        (["search", "--seed", str(2**63)], "should be from 0"),
        (["search", "--way", "1"], "give at least 2"),
        (["bench", "--threads", "100000"], "should be at most 256"),
        (["search", "--rungs", "60,20"], "should rise"),
        (["train", "--mix", "digits,glyfs"], "unknown data 'glyfs'; did you mean 'glyphs'?"),
        (["train", "--patience", "-1"], "patience = -1: should be 0 or more"),
        (
            ["search", "--energy-mj", "3", "--device", "null"],
            "energy of 'null' is not measured; leave --energy-mj out",
        ),
        (["search", "--energy-mj", "0"], "should be greater than 0"),
        (["search", "--device", "raspbery", "--latency-ms", "1"], "raspbery"),
        (["search", "--config", "absent.toml"], "cannot read config absent.toml"),
        (["train"], "run `edgemeta search --run"),
        (["export"], "run `edgemeta search --run"),
        (["report"], "run `edgemeta search --run"),
        (["pick", "--device", "null", "--images", "absent"], "absent does not exist; name a folder"),
        (["pick", "--latency-ms", "0"], "should be greater than 0"),
        (["pick", "--zoo", "absent", "--images", "."], "cannot read the zoo absent"),
        (["bench", "--bundle", "absent"], "absent is no bundle: it holds no manifest.json; name one with --bundle"),
        (["enroll", "--bundle", "absent", "--images", "x"], "absent"),
    ],
)
def test_mistakes_are_answered_in_one_line(capsys, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    assert says in fails(capsys, *arguments)


def test_a_mistake_leaves_nothing_behind(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    fails(capsys, "search", "--searcher", "nosuch")
    assert list(tmp_path.iterdir()) == []


def test_config_file_and_flags_meet(capsys, tmp_path):
    config = tmp_path / "c.toml"
    config.write_text('searcher = "random"\n[search]\nsearcher = "nosuch"\n')
    assert "unknown searcher 'nosuch'" in fails(capsys, "search", "--config", str(config))
    config.write_text("latency = 3\n")
    assert "unknown setting 'latency'; did you mean" in fails(capsys, "search", "--config", str(config))
    config.write_text("latency_ms = \n")
    assert "is not valid TOML" in fails(capsys, "search", "--config", str(config))
    config.write_bytes(b'searcher = "\xff"')
    assert "is not valid TOML" in fails(capsys, "search", "--config", str(config))
    config.write_text("search = 3\n")
    assert "should be a table, [search]" in fails(capsys, "search", "--config", str(config))
    config.write_text("[serch]\ntrials = 3\n")
    assert "table [serch]; did you mean 'search'?" in fails(capsys, "search", "--config", str(config))


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_defaults_units_and_choices(capsys, command):
    with pytest.raises(SystemExit) as stopped:
        main([command, "--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert stopped.value.code == 0
    if "--latency-ms" in shown:
        assert "in ms" in shown and "in KiB" in shown
    if "--searcher" in shown:
        assert "random, evolution" in shown
    if command != "devices":
        assert "(default:" in shown and "(default: )" not in shown


def test_help_does_not_wait_for_torch():
    code = "import sys, edgemeta.cli as c\ntry: c.main(['--version'])\nexcept SystemExit: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_the_quick_demo_asks_for_less():
    from edgemeta.pipeline import QUICK

    usual, quick = make(COMMANDS["demo"], {}), make(COMMANDS["demo"], QUICK)
    for less in ("trials", "rungs", "eval_episodes", "episodes", "test_episodes"):
        assert getattr(quick, less) < getattr(usual, less)


def test_devices_are_listed(capsys):
    assert main(["devices"]) == 0
    shown = capsys.readouterr().out
    assert "null" in shown and "host" in shown


def test_note_files_are_json(tmp_path):
    from edgemeta.stages.run_folder import RunFolder

    folder = RunFolder(tmp_path)
    with folder.stage("one"):
        folder.note("thing", {"a": 1})
    assert json.loads((tmp_path / "thing.json").read_text()) == {"a": 1} and list(folder.read("stages")) == ["one"]


def test_what_is_not_there_is_told_before_torch(tmp_path):
    """Seconds earlier than the stages would say it."""
    code = "import sys, edgemeta.cli as c; c.main(['bench', '--bundle', 'absent']); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout == "False\n" and "absent is no bundle" in done.stderr


def test_a_bundle_is_taught_before_it_is_asked(capsys, tmp_path):
    (tmp_path / "manifest.json").write_text("[]")
    (tmp_path / "images").mkdir()
    images = ["--images", str(tmp_path / "images"), "--bundle", str(tmp_path)]
    absent = tmp_path / "absent.npz"
    assert "nothing is taught yet; `edgemeta enroll` does" in fails(capsys, "predict", *images, "--state", str(absent))
    absent.touch()
    shown = fails(capsys, "predict", *images, "--state", str(absent))
    assert "the manifest is damaged (it holds no JSON object)" in shown
    assert "the manifest holds no JSON object" in fails(capsys, "bench", "--bundle", str(tmp_path))


def test_a_folder_that_may_not_be_read_is_one_line(capsys, monkeypatch):
    def denied(**settings):
        raise PermissionError(errno.EACCES, "Permission denied", "private/cats")

    monkeypatch.setattr(pipeline, "devices", denied)
    assert "cannot use private/cats: Permission denied; see that" in fails(capsys, "devices")
