"""The inventory of a farm: what it says, and mistakes in one line."""

import pytest

from edgemeta.errors import BadConfig
from edgemeta.latency import inventory

FILE = """
[defaults]
user = "pi"
tries = 2
threads = 2
[pi4-1]
host = "192.168.1.11"
port = 2222
[pi4-2]
[zero]
like = "slow"
threads = 1
python = "/opt/venv/bin/python"
"""


@pytest.fixture
def read(tmp_path):
    def call(text: str | bytes):
        path = tmp_path / "devices.toml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return inventory.read(path)

    return call


def test_a_table_wins_over_the_defaults_and_names_the_host(read):
    one, two, zero = read(FILE).devices
    assert one.target.arguments == ["-p", "2222", "-l", "pi", "--", "192.168.1.11"]
    assert two.target.arguments == ["-l", "pi", "--", "pi4-2"] and str(two.target) == "pi4-2"
    assert (one.threads, zero.threads, zero.tries) == (2, 1, 2) and zero.target.python == "/opt/venv/bin/python"


def test_devices_are_found_by_kind_or_by_name(read):
    found = read(FILE)

    def names(devices):
        return [device.name for device in devices]

    assert names(found.alike("pi4")) == ["pi4-1", "pi4-2"] and names(found.alike("pi4-2")) == ["pi4-2"]
    assert names(found.alike("slow")) == names(found.alike("zero")) == ["zero"]
    assert names(found.only(("zero", "pi4-1", "zero"))) == ["pi4-1", "zero"] and len(found.only(())) == 3


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[a]\nprot = 22\n", "[a] has an unknown key 'prot'; did you mean 'port'?"),
        ("[defaults]\nhost = 'a'\n[a]\n", "[defaults] has an unknown key 'host'"),
        ("[a]\nname = 'b'\n", "unknown key 'name'"),
        ("[a]\nport = 0\n", "[a] port = 0: input should be greater than or equal to 1"),
        ("[defaults]\nprecision = 'fp16'\n[a]\n", "[defaults] precision = 'fp16'"),
        ("[a]\nthreads = true\n", "[a] threads = True"),
        ("[defaults]\n", "names no device"),
        ("port = 22\n[a]\n", "port = 22 stands in no table"),
        ("['../a']\n", "[../a]: a device's name is of letters"),
        ("[a\n", "is not valid TOML"),
        (b"\xff", "is not valid TOML"),
    ],
)
def test_mistakes_are_told_with_file_and_table(read, text, says):
    with pytest.raises(BadConfig) as error:
        read(text)
    assert says in str(error.value) and "devices.toml" in str(error.value) and "\n" not in str(error.value)


def test_unknown_devices_and_those_that_are_not_alike_are_refused(read):
    with pytest.raises(BadConfig, match="no device 'pi5'; did you mean 'pi4'?"):
        read(FILE).alike("pi5")
    with pytest.raises(BadConfig, match=r"\[pi4-1\] and \[pi4-2\] are both pi4, but threads is 2 and 4"):
        read(FILE.replace("[pi4-2]", "[pi4-2]\nthreads = 4")).alike("pi4")
    with pytest.raises(BadConfig, match="cannot read absent.toml"):
        inventory.read("absent.toml")
