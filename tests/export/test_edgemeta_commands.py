"""The runtime's command line, in processes where torch and edgemeta cannot be imported."""

from __future__ import annotations

import ast
import json
import shutil
import signal
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from edgemeta.lowering.bundle import RUNTIME

RUN = (
    "import os, runpy, sys; sys.modules['torch'] = sys.modules['edgemeta'] = None; sys.argv = sys.argv[1:]; "
    "sys.path.insert(0, os.path.dirname(sys.argv[0])); runpy.run_path(sys.argv[0], run_name='__main__')"
)


def command(*arguments):
    return [sys.executable, "-c", RUN, *map(str, arguments)]


def run(*arguments):
    """The copy of the runtime inside a bundle, in a process of its own."""
    done = subprocess.run(command(*arguments), capture_output=True, text=True, timeout=50)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def save_pictures(root, images):
    for name, several in images.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i, image in enumerate(several):
            Image.fromarray(255 - image).save(root / name / f"{i}.png")
    return root


@pytest.fixture
def state(runtime, folder, tmp_path, draw):
    device = runtime.Device(folder)
    device.enroll(draw(4))
    device.save(tmp_path / "state.npz")
    return tmp_path / "state.npz"


@pytest.mark.parametrize("name", RUNTIME)
def test_python_3_9_reads_it(folder, name):
    assert ast.parse((folder / name).read_text(), feature_version=(3, 9)).body


def test_the_whole_story_without_torch(folder, tmp_path, draw):
    script, state = folder / "edgemeta_device.py", tmp_path / "state.npz"
    shots = save_pictures(tmp_path / "shots", draw(4, size=24))
    (shots / "low" / "broken.png").write_bytes(b"not an image")
    enrolled = run(script, "enroll", folder, shots, "--state", state)
    assert enrolled.returncode == 0 and "12 images enrolled" in enrolled.stdout
    assert "broken.png" in enrolled.stderr and "skipped 1 of 13" in enrolled.stderr
    queries = save_pictures(tmp_path / "queries", draw(5, size=24, seed=1))
    (queries / "low" / "0.png").rename(queries / "low" / "\udcff.png")  # names may hold any bytes
    predicted = run(script, "predict", folder, queries, "--state", state)
    assert predicted.returncode == 0 and len(predicted.stdout.splitlines()) == 15
    right, total = predicted.stderr.split(" are ")[0].split(" of ")
    assert int(total) == 15 and int(right) >= 10 and "\\udcff.png\tlow" in predicted.stdout


def test_two_processes_teach_one_state(folder, runtime, tmp_path, draw):
    teachers = []
    for name in ("left", "low"):
        shots = save_pictures(tmp_path / f"of {name}", {name: draw(4)[name]})
        arguments = command(folder / "edgemeta_device.py", "enroll", folder, shots, "--state", tmp_path / "state.npz")
        teachers.append(subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True))
    told = [teacher.communicate()[1] for teacher in teachers]
    assert not any(teacher.returncode for teacher in teachers)
    assert sorted(told) == ["", "one class alone is the answer to every image; teach another\n"]  # of the first
    device = runtime.Device(folder)
    device.load(tmp_path / "state.npz")
    assert device.counts == {"left": 4, "low": 4}


def test_info_and_forget(runtime, folder, state, capsys):
    assert runtime.main(["forget", str(folder), "left", "low", "--state", str(state)]) == 0
    assert capsys.readouterr().out == 'forgotten; examples by class: {"right": 4}\n'
    assert runtime.main(["info", str(folder), "--state", str(state)]) == 0
    told = dict(line.split(None, 1) for line in capsys.readouterr().out.splitlines())
    assert told["learner"].startswith("protonet") and told["classes"].strip() == '{"right": 4}'
    assert told["kept"].strip() == "examples" and "bright ink" in told["images"]


def test_json_has_what_the_text_has(runtime, folder, state, tmp_path, draw, capsys):
    """One document on stdout, whatever is said on stderr."""
    shots = save_pictures(tmp_path / "shots", draw(2))
    (shots / "low" / "broken.png").write_bytes(b"not an image")
    commands = {
        "enroll": [folder, shots, "--state", state],
        "predict": [folder, shots, "--state", state, "--unknown", "0.9"],
        "forget": [folder, "left", "--state", state],
        "info": [folder, "--state", state],
    }
    found = {}
    for name, arguments in commands.items():
        assert runtime.main([name, *map(str, arguments), "--json"]) == 0
        found[name] = json.loads(capsys.readouterr().out)
        assert found[name]["command"] == name
    assert found["enroll"]["examples"] == {"left": 6, "low": 6, "right": 6} and found["enroll"]["images"] == 6
    assert [text.count("broken.png") for text in found["enroll"]["skipped"] + found["predict"]["skipped"]] == [1, 1]
    answers = found["predict"]["answers"]
    assert len(answers) == 6 and any(own["class"] is None for own in answers)
    assert {own["most_like"] for own in answers} <= {"left", "low", "right"}
    assert found["predict"]["folders"]["images"] == 6
    assert found["info"]["examples"] == found["forget"]["examples"] == {"low": 6, "right": 6}
    assert found["info"]["learner"]["name"] == "protonet"
    assert runtime.main(["forget", str(folder), "left", "--state", str(state), "--json"]) == 2
    told = capsys.readouterr()
    assert told.out == "" and told.err.count("\n") == 1 and told.err.startswith("error: no class 'left'")


def test_info_takes_a_manifest_that_says_little(runtime):
    assert dict(runtime.commands.about({"id": "0" * 64, "facts": [], "costs": None}))["bundle"] == "0" * 16


def test_more_shots_as_sums(runtime, folder, tmp_path, draw, capsys):
    shots, state = save_pictures(tmp_path / "shots", draw(2)), tmp_path / "state.npz"
    for keep in (["--keep", "sums"], []):  # summed up once, it stays so
        assert runtime.main(["enroll", str(folder), str(shots), "--state", str(state), *keep]) == 0
    told = capsys.readouterr()
    assert '"left": 4' in told.out and told.err == ""
    again = ["enroll", str(folder), str(shots), "--state", str(state), "--keep", "examples"]
    assert runtime.main(again) == 0
    assert "keeps sums, from which no examples come back: --keep is passed over" in capsys.readouterr().err
    assert runtime.main(["info", str(folder), "--state", str(state)]) == 0
    assert "kept           sums" in capsys.readouterr().out


def test_unknown(runtime, folder, state, tmp_path, draw, capsys):
    queries = save_pictures(tmp_path / "queries", {"low": draw(10, seed=1)["low"]})
    arguments = ["predict", str(folder), str(queries), "--state", str(state)]
    assert runtime.main(["forget", str(folder), "low", "--state", str(state)]) == 0
    capsys.readouterr()
    assert runtime.main([*arguments, "--unknown"]) == 0
    names = [line.split("\t")[1] for line in capsys.readouterr().out.splitlines()]
    assert len(names) == 10 and names.count("unknown") >= 9
    assert runtime.main([*arguments, "--unknown", "2"]) == 2
    assert (
        capsys.readouterr().err == "error: unknown=2.0 is no share of the examples; give 0 or more, and less than 1\n"
    )


def test_nothing_is_unknown_after_one_example_a_class(runtime, folder, tmp_path, draw, capsys):
    shots, state = save_pictures(tmp_path / "shots", draw(1)), str(tmp_path / "state.npz")
    assert runtime.main(["enroll", str(folder), str(shots), "--state", state]) == 0
    capsys.readouterr()
    assert runtime.main(["predict", str(folder), str(shots), "--state", state, "--unknown"]) == 0
    told = capsys.readouterr()
    assert [line.split("\t")[1] for line in told.out.splitlines()] == ["left", "low", "right"]
    assert told.err.startswith("nothing is called unknown: no class has two examples")


def test_watching_a_folder(runtime, folder, state, tmp_path, draw):
    frames = save_pictures(tmp_path / "frames", {"": draw(1)["low"]})
    options = ["--state", state, "--every", "0.05"]
    watch = command(folder / "edgemeta_device.py", "watch", folder, frames, *options)
    process = subprocess.Popen(watch, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr.readline().startswith("watching ")
        save_pictures(tmp_path / "new", {"": draw(1, seed=1)["left"]})
        (frames / "half.png").write_bytes((tmp_path / "new" / "0.png").read_bytes()[:60])  # a camera at work
        assert "half.png is not a readable image" in process.stderr.readline()
        (tmp_path / "new" / "0.png").rename(frames / "half.png")
        assert process.stdout.readline().split("\t")[:2] == [str(frames / "half.png"), "left"]
        device = runtime.Device(folder)
        with device.updating(state):  # taught meanwhile
            device.enroll(draw(4)["left"], "LEFT")
            device.forget("left")
        save_pictures(frames, {"deeper": draw(1, seed=2)["left"]})
        assert process.stdout.readline().split("\t")[:2] == [str(frames / "deeper" / "0.png"), "LEFT"]
        process.send_signal(signal.SIGINT)
        assert process.communicate(timeout=50) == ("", "") and process.returncode == 0
    finally:
        process.kill()
        process.communicate()


def test_mistakes_are_one_line_and_code_2(runtime, folder, state, tmp_path, draw, capsys):
    (tmp_path / "empty").mkdir()
    bare = save_pictures(tmp_path / "bare", draw(1))
    (bare / "nothing").mkdir()
    mixed = save_pictures(tmp_path / "mixed", {"low": draw(1)["low"]})
    (mixed / "texts").mkdir()
    (mixed / "texts" / "notes.txt").write_text("no image")
    before, at = state.read_bytes(), ["--state", state]
    mistakes = {
        "missing": ["info", tmp_path / "nothing"],
        "is not a folder": ["enroll", folder, tmp_path / "nothing"],
        "has no folders of images": ["enroll", folder, tmp_path / "empty", *at],
        "class 'nothing'": ["enroll", folder, bare, *at],
        "class 'texts'": ["enroll", folder, mixed, *at],
        "keep='all' is unknown": ["enroll", folder, mixed, "--keep", "all", *at],
        "none.npz is missing": ["predict", folder, mixed, "--state", tmp_path / "none.npz"],
        "no readable image": ["predict", folder, tmp_path / "empty", *at],
        "no class 'nobody'": ["forget", folder, "left", "nobody", *at],
        "is not a folder;": ["watch", folder, tmp_path / "nothing", *at],
    }
    for message, arguments in mistakes.items():
        assert runtime.main(list(map(str, arguments))) == 2
        told = capsys.readouterr()
        assert message in told.err.splitlines()[-1] and told.err.splitlines()[-1].startswith("error: ")
        assert sum(not line.startswith("skipped") for line in told.err.splitlines()) == 1 and told.out == ""
    assert state.read_bytes() == before
    for arguments in ([], ["teach"], ["predict"], ["info", str(folder), "--threads", "many"]):
        with pytest.raises(SystemExit) as ended:
            runtime.main(arguments)
        told = capsys.readouterr().err
        assert ended.value.code == 2 and told.startswith("error: ") and told.count("\n") == 1


def test_a_closed_pipe_is_no_mistake(folder, state, tmp_path, draw):
    queries = save_pictures(tmp_path / "queries", draw(3))
    arguments = command(folder / "edgemeta_device.py", "predict", folder, queries, "--state", state)
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        process.stdout.close()
        assert "Traceback" not in process.stderr.read() and process.wait(20) == 0


def test_a_file_that_was_not_copied_is_named(folder, tmp_path):
    shutil.copy(folder / "edgemeta_device.py", tmp_path)
    done = run(tmp_path / "edgemeta_device.py", "info", folder)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("error: no module edgemeta_commands; copy all files")


def test_a_script_in_the_bundles_folder(folder, draw):
    code = "from edgemeta_device import Device, DeviceError; print(Device('.').names)"
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, timeout=50)
    assert done.returncode == 0 and done.stdout == "[]\n"
    assert np.all([(folder / name).exists() for name in RUNTIME])
