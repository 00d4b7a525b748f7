"""Workers' common ancestor, while it imports."""

import subprocess
import sys

INTERRUPTED = """
import os, signal, time
from edgemeta import processes

if __name__ == "__main__":
    processes.prepare()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    time.sleep(0.5)
    os.killpg(0, signal.SIGINT)
    worker = processes.context().Process(target=print, args=("it began",), kwargs={"flush": True})
    worker.start()
    worker.join()
"""


def test_ctrl_c_in_the_middle_of_its_imports_is_not_heard(tmp_path):
    """A terminal sends it to every process of the command; this one would print fifteen lines of where it was."""
    (tmp_path / "interrupted.py").write_text(INTERRUPTED)
    command = [sys.executable, tmp_path / "interrupted.py"]
    done = subprocess.run(command, capture_output=True, text=True, start_new_session=True, check=True)
    assert done.stdout == "it began\n" and not done.stderr
