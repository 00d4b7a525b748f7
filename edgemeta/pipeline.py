"""The whole story, top to bottom: profile a device, search under a budget, train, export, adapt, report.

Every command of the CLI is one function here and takes the same settings, as a config or as keywords:

    pipeline.search(run=Path("runs/mine"), latency_ms=0.06)

Each returns what there is to tell: `str` of it is the text that the command line prints, `.facts` the same as JSON
types. What a stage makes goes to the run folder, whole or not at all, and a stage that finds its result there goes on
from it.
"""

from __future__ import annotations

import math
import shutil
import sys
import warnings
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np

from edgemeta import config as configs
from edgemeta import terminal
from edgemeta.config import make
from edgemeta.data.episode import pool
from edgemeta.errors import Infeasible
from edgemeta.latency import profile as profiles
from edgemeta.latency.cost import cost
from edgemeta.latency.table import predictor as predictor_for
from edgemeta.learners import LEARNERS
from edgemeta.learners.group import Group
from edgemeta.learners.settings import recipe
from edgemeta.lowering import bundle as bundles
from edgemeta.nets.build import build
from edgemeta.processes import place, prepare
from edgemeta.report import page
from edgemeta.report.tables import table
from edgemeta.search.claims import Claims
from edgemeta.search.jobs import load_data, load_weights, run_job, run_test
from edgemeta.search.problem import Problem
from edgemeta.search.workers import worker_pool
from edgemeta.space.presets import LANDMARKS, landmarks
from edgemeta.space.space import Space
from edgemeta.stages import (
    assemble,
    device_side,
    explained,
    farm,
    imports,
    microcontroller,
    mobile,
    node,
    profiling,
    searching,
    summary,
    telling,
    trainings,
)
from edgemeta.stages import front as fronts
from edgemeta.stages import pick as picking
from edgemeta.stages import serve as serving
from edgemeta.stages.candidates import first_fitting, searched
from edgemeta.stages.meters import Meter
from edgemeta.stages.run_folder import RunFolder
from edgemeta.terminal import Told, told
from edgemeta.types import Arch, Cost, Profile, dotted

QUICK = {  # what `demo --quick` sets where the user does not
    "space": "tiny", "trials": 4, "rungs": (20, 40), "eval_episodes": 60, "episodes": 60, "test_episodes": 60,
    "latency_ms": math.inf, "ram_kib": math.inf, "flash_kib": math.inf,
}  # fmt: skip
DEMO_SHARE = 0.45  # of Conv4-64's latency: the demo's cap
FORMS = {"c": microcontroller, "ort": mobile, "node": node}  # of `export`, beside the bundle


def command(config_type: type, *, goes_on: type | None = None, locks: bool = False, shared: bool = False) -> Callable:
    """Let a stage be called with its config or with the settings as keywords.

    Settings of `goes_on` that are not given are those of the last search in the run folder: a user names the data once.
    A stage that `locks` has the run folder to itself. One that is `shared` is run by all processes of torchrun.
    """

    def decorate(stage: Callable[[Any], Told]) -> Callable[..., Told]:
        @wraps(stage)
        def called(config: Any = None, /, **settings: Any) -> Told:
            if not shared:
                trainings.require_alone(stage.__name__.rstrip("_"))
            if config is None:
                kept = assemble.kept_settings(make(config_type, settings), goes_on, settings) if goes_on else {}
                quick = QUICK if settings.get("quick") else {}
                config = make(config_type, kept | quick | settings)
            assemble.check(config)
            with RunFolder(config.run).locked() if locks and not place().rank else nullcontext():
                return stage(config)

        return called

    return decorate


@command(configs.Profile, locks=True)
def profile(config: configs.Profile) -> Told:
    """Time this machine, or another one; this machine's lands in the run folder, where `search` finds it."""
    if config.kit and not config.from_:
        return profiling.write_kit(config)
    folder = RunFolder(config.run)
    with folder.stage("profile"):
        if config.devices:
            return farm.profile_all(config, folder, assemble.space_of(config))
        measured, path = profiling.profiled(config, folder)
    return profiling.text(measured, path)


@command(configs.Import)
def import_(config: configs.Import) -> Told:
    """A profile of a public latency table, or of timings taken by hand."""
    return imports.run(config)


@command(configs.Devices)
def devices(config: configs.Devices) -> Told:
    """What `--device` can name."""
    return telling.devices({name: profiles.load(path) for name, path in profiles.available().items()})


@command(configs.Pick, locks=True)
def pick(config: configs.Pick) -> Told:
    """A checked bundle of the best network of the zoo under the caps, taught the user's classes: no training."""
    return picking.run(config, RunFolder(config.run))


@command(configs.Search, goes_on=configs.Task, locks=True)
def search(config: configs.Search) -> Told:
    """Find architectures under the caps, then write a checked and measured bundle of the best one that fits."""
    prepare()
    folder, space = RunFolder(config.run), assemble.space_of(config)
    with folder.stage("data"):
        trainings = [recipe(config.learner)]
        assemble.require_data(assemble.data_of(config), config.way, config.shot, trainings=trainings)
    with searching.joined(config) as claims:
        return _search(config, folder, space, claims)


def _search(config: configs.Search, folder: RunFolder, space: Space, claims: Claims | None) -> Told:
    with folder.stage("profile"):
        if claims and config.device == assemble.HOST:
            profile = searching.profile(config, folder, space, claims)
        else:
            profile = assemble.profile_of(config, folder, space)
    problem = assemble.problem_of(config, folder, space, profile)
    fronts.require(config, problem)
    with folder.stage("search"), worker_pool(config.workers) as executor:
        found, ranking = searching.run(config, folder, executor, claims, problem)
    if config.searcher == "metapolicy":
        folder.note("policy", explained.note(problem))
    here = assemble.meter_of(config, profile)
    with folder.stage("bundle"):
        candidates = [searched(trial.arch, trial.fidelity, problem) for trial in ranking]
        winner, refused = first_fitting(folder.bundle, candidates, problem, profile, measure=here)
        noted = summary.search_note(config, profile, ranking, winner, refused, found.infeasible)
        folder.note("search", noted)
        if trained := summary.trained_for(folder, noted, problem):
            _write_bundles(folder.bundle, noted, trained, problem, profile, measure=here)
        else:
            summary.drop_siblings(folder.bundle)  # they answered another search
    if not config.front:
        return telling.search(folder)
    with folder.stage("front"), worker_pool(config.workers) as executor:
        how = (config, folder, executor, claims)
        fronts.write(
            *(config, folder, problem, profile, ranking),
            lambda under: searching.run(*how, under)[1],
            measure=here,
        )
    return _joined([telling.search(folder), fronts.text(folder.read("front"))])


@command(configs.Train, goes_on=configs.Search, locks=True, shared=True)
def train(config: configs.Train) -> Told:
    """Meta-train the winner with each learner, starting from what the search knows, and test on held-out classes."""
    folder = RunFolder(config.run)
    with Group(assemble.accelerator(config.accelerator)) as group:
        arch, jobs = group.together(lambda: trainings.jobs_of(config, folder))
        with folder.stage("train") if group.leads else nullcontext():
            trainings.together(list(jobs.values()), group)
    if not group.leads:
        return Told()
    with folder.stage("train"), worker_pool(config.workers) as executor:
        missing = [job for job in jobs.values() if not Path(job.weights).exists()]
        each = max(1, config.workers // max(1, len(missing)))
        for future in [executor.submit(run_job, replace(job, workers=each)) for job in missing]:
            future.result()
        tests = [executor.submit(run_test, trainings.test_job(config, job)) for job in jobs.values()]
        bar = terminal.bar(tests, desc="test", unit="learner", progress=config.progress)
        rows = [row for future in bar for row in future.result()]
    weights = {name: job.weights for name, job in jobs.items()}
    trained = {"picks": arch.picks, "weights": weights, "episodes": config.episodes, "tests": rows}
    winner = (folder.read("search") or {}).get("winner", {}).get("picks")
    folder.note("train", trained | {"winner": winner, "data": str(assemble.data_of(config))})
    return told(table(telling.test_rows(rows)), trained | {"picks": dotted(arch.picks)})


@command(configs.Export, locks=True)
def export(config: configs.Export) -> Told:
    """A checked, measured bundle per trained learner; one that breaks a cap gives way to the next candidate.

    With `--c`, `--ort` or `--node` the bundle in other forms, too: that of `pick`, where there was no search.
    """
    folder = RunFolder(config.run)
    target = config.out or folder.bundle
    forms = {name: form for name, form in FORMS.items() if getattr(config, name) is not None}
    for name, form in forms.items():
        form.require(getattr(config, name))
    if folder.read("search") or not (forms and folder.read("pick") and target == folder.bundle):
        _export_bundles(config, folder, target)
    parts = [telling.exported(target)]
    for name, form in forms.items():
        with folder.stage(name):
            parts.append(form.write(config, folder, target))
    return _joined(parts)


def _joined(parts: Sequence[Told]) -> Told:
    """One after another, as one; each part has facts of other names."""
    return Told("\n".join(map(str, parts)), {name: own for part in parts for name, own in part.facts.items()})


def _export_bundles(config: configs.Export, folder: RunFolder, target: Path) -> None:
    noted = folder.need("search", "search")
    asked = {"run": config.run, "progress": config.progress} | ({"int8": True} if config.int8 else {})
    settings = make(configs.Search, noted["config"] | asked)
    space = assemble.space_of(settings)
    profile = assemble.profile_of(settings, folder, space)
    problem = assemble.problem_of(settings, folder, space, profile)
    trained = summary.trained_for(folder, noted, problem)
    with folder.stage("export"):
        _write_bundles(target, noted, trained, problem, profile, measure=assemble.meter_of(settings, profile))


def _write_bundles(
    target: Path, noted: dict, trained: dict | None, problem: Problem, profile: Profile, *, measure: Meter
) -> None:
    """The search's learner at `target`, the others beside it; what was trained longest first."""
    lines = {line[0].learner: line for line in summary.export_lines(noted, trained, problem)}
    for learner, candidates in lines.items():
        own = target if learner == problem.learner else summary.sibling(target, learner)
        try:
            outcome, refused = first_fitting(own, candidates, problem, profile, measure=measure)
        except Infeasible as error:
            if learner == problem.learner:
                raise
            if own in summary.bundles_of(target):  # it was under other caps
                shutil.rmtree(own)
            warnings.warn(f"no bundle for {learner}: {error}", stacklevel=2)
            continue
        if refused:
            arch = outcome.candidate.arch
            warnings.warn(f"{own.name}: {len(refused)} broke a cap when measured; fell back to {arch}", stacklevel=2)


@command(configs.Enroll)
def enroll(config: configs.Enroll) -> Told:
    """Teach the device runtime new classes."""
    return device_side.run("enroll", config.bundle, config.threads, folder=config.images, state=config.state, keep=None)


@command(configs.Predict)
def predict(config: configs.Predict) -> Told:
    """Let the device runtime name images."""
    asked: dict[str, Any] = {"images": [config.images], "state": config.state, "unknown": config.unknown}
    return device_side.run("predict", config.bundle, config.threads, **asked)


@command(configs.Bench)
def bench(config: configs.Bench) -> Told:
    """Time a bundle here, beside what its manifest says."""
    manifest = bundles.read(config.bundle)
    return telling.bench(manifest, bundles.measure(config.bundle, threads=config.threads))


@command(configs.Serve)
def serve(config: configs.Serve) -> Told:
    """Teach a bundle in a browser: a page on localhost, or a folder for any static web server."""
    return serving.run(config)


@command(configs.Report, locks=True)
def report(config: configs.Report) -> Told:
    """The page, from what the run folder holds."""
    folder = RunFolder(config.run)
    folder.need("search", "search")
    with folder.stage("report"):
        page.write(folder.report, summary.story(folder))
    return told(f"report: {folder.report}", {"report": folder.report})


@command(configs.Demo, locks=True)
def demo(config: configs.Demo) -> Told:
    """Everything, one stage after another."""
    config, facts = _with_cap(config), dict[str, Any]()
    shared = {name: getattr(config, name) for name in configs.names(configs.Common)}
    facts["search"] = _tell("the search, best first", search(config))
    facts["train"] = _tell("accuracy on held-out classes, in percent", train(config))
    facts["export"] = _tell("bundles", export(make(configs.Export, shared)))
    facts["on_device"] = _tell("the device's own answers beside torch's", _on_device(config))
    last = report(make(configs.Report, shared))
    return Told(last.text, facts | last.facts)


def _with_cap(config: configs.Demo) -> configs.Demo:
    """Where no latency cap is given, one that means the same on every machine: a share of what Conv4-64 takes."""
    folder, space = RunFolder(config.run), assemble.space_of(config)
    if config.quick and config.cap == Cost():
        print("no caps are set: --quick leaves out those of the demo; --latency-ms, --ram-kib, --flash-kib set them")
    if config.latency_ms < math.inf or not landmarks(space):
        return config
    with folder.stage("profile"):
        profile = assemble.profile_of(config, folder, space)
    whole = cost(space.ops(LANDMARKS["conv4-64"](space)), predictor_for(profile)).latency_ms
    cap_ms = float(f"{DEMO_SHARE * whole:.3g}")
    print(f"latency cap: {cap_ms} ms, {DEMO_SHARE} of the {whole:.3g} ms that Conv4-64 takes on {profile.device}")
    return make(configs.Demo, configs.as_dict(config) | {"latency_ms": cap_ms})


def _tell(title: str, result: Told) -> Mapping[str, Any]:
    """Show a stage's result while the next one runs, and pass on its facts."""
    print(f"\n{title}\n{terminal.painted(str(result), sys.stdout)}", flush=True)
    return result.facts


def _on_device(config: configs.Train) -> Told:
    """Let each bundle learn new classes with its own runtime, and hold its answers against torch's."""
    folder, space = RunFolder(config.run), assemble.space_of(config)
    judge, rows = pool(load_data(assemble.data_of(config)), "test"), []
    with folder.stage("device"):
        for target in terminal.bar(
            summary.bundles_of(folder.bundle), desc="on the device", unit="bundle", progress=config.progress
        ):
            manifest = bundles.read(target)
            facts: Any = manifest.facts
            net = build(space.ops(Arch(space.name, tuple(facts["picks"]))))
            learner = LEARNERS[manifest.learner.name](net)
            slow, rng = load_weights(folder.weights_at(facts["weights"])), np.random.default_rng(config.seed)
            task = {"way": config.way, "shot": 5, "episodes": 60}
            result = device_side.compare(target, learner, slow, judge, rng=rng, **task)
            rows.append({"bundle": target.name, "learner": learner.name, **result})
    folder.note("device", rows)
    return told(table(rows), {"bundles": rows})
