"""The readers of `tools/bench/fuzz.py`, led by what code an input reaches. Needs atheris: `pip install atheris`.

    python tools/fuzz_atheris.py manifest -max_total_time=600

The reader is one of profile, manifest, state, settings, data; what follows are options of libFuzzer. Sound files and
some spoiled ones are the first inputs. An error that is not ours, or a hang, ends it with a traceback, and libFuzzer
leaves the input in a file `crash-...`.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from random import Random

sys.path.insert(0, str(Path(__file__).resolve().parent / "bench"))
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import atheris

with atheris.instrument_imports(include=["edgemeta", "edgemeta_device", "edgemeta_files", "edgemeta_learned"]):
    import fuzz

SPOILED = 50  # first inputs that are not sound


def main() -> None:
    asked = sys.argv[1] if len(sys.argv) > 1 else ""
    with tempfile.TemporaryDirectory() as place:
        found = fuzz.targets(Path(place))
        if asked not in found:
            sys.exit(f"no reader {asked!r}; one of {', '.join(found)} comes first")
        target, corpus, rng = found[asked], Path(place) / "corpus", Random(0)
        corpus.mkdir()
        inputs = [*target.seeds, *(target.mutate(rng.choice(target.seeds), rng) for _ in range(SPOILED))]
        for n, data in enumerate(inputs):
            (corpus / f"{n}").write_bytes(data)

        def once(data: bytes) -> None:
            verdict, why, _ = fuzz._tried(target, data, Path(place))
            if verdict == "foreign":
                raise RuntimeError(why)

        atheris.Setup([sys.argv[0], *sys.argv[2:], str(corpus)], once)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
