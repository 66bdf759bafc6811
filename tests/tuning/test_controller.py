from __future__ import annotations

import contextlib
import functools
import gc
import logging
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nbt.errors import NbtError
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.budget import OUT_OF_TIME, Budget
from nbt.tuning.controller import SearchController
from nbt.tuning.pruners.base import PositionHalvingPruner, Pruner, make_pruner
from nbt.tuning.relative_cost import CostModel
from nbt.tuning.samplers.bayesian import BayesianSampler
from nbt.tuning.space.space import Space
from nbt.tuning.storage.records import INTERRUPTED, StudyObserver, StudyRecord, TrialRecord
from nbt.tuning.storage.studies import list_studies, resolve_storage
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from nbt.tuning.transferred_priors import make_sampler
from tests.tuning.fakes import (
    EPOCHS,
    DriverKilled,
    FakeClock,
    FakeEngine,
    RecordingObserver,
    config,
    copy_searched_study,
    final_accuracy,
    kill,
    make_controller,
    open_fake_study,
    run_search,
    simulate,
    states,
)
from tests.tuning.synthetic import target, transferred_priors


def test_observers_receive_the_location_of_a_trial(tmp_path: Path) -> None:
    recorder = RecordingObserver()
    with open_fake_study(tmp_path, "3") as store:
        controller = make_controller(store, "3", observers=[recorder])
        spec = controller.next_trial()
        assert spec is not None
        controller.on_placed(spec, {"node": "alpha", "gpu_index": "1"})
        controller.close()
    assert ("trial_placed", 0, {"node": "alpha", "gpu_index": "1"}) in recorder.events


class TestSearch:
    def test_baseline_recipes_come_first_then_the_sampler(self, tmp_path: Path) -> None:
        record = run_search(tmp_path, "7")
        origins = [trial.origin for trial in record.trials]
        baselines = ["anchor: default recipe", "anchor: linear probe", "anchor: L2-SP", "anchor: FAST"]
        assert origins == [*baselines, *["sampler"] * 3]
        assert record.trials[0].settings == Space.load("non_binary").default(EPOCHS)
        assert record.trials[1].settings.frozen_depth == 1
        assert len({str(trial.settings) for trial in record.trials}) == 7

    def test_sampler_and_baseline_recipes_can_be_replaced(self, tmp_path: Path) -> None:
        seeds: list[int] = []

        def sampler(seed: int) -> optuna.samplers.BaseSampler:
            seeds.append(seed)
            return optuna.samplers.RandomSampler(seed=seed)

        recipe = Space.load("non_binary").default(EPOCHS).replace(head_lr=0.5)
        replaced = run_search(tmp_path / "a", "4", sampler=sampler, baselines=[("other", recipe)])
        assert [trial.origin for trial in replaced.trials] == ["anchor: other", *["sampler"] * 3]
        assert replaced.trials[0].settings == recipe
        without = run_search(tmp_path / "b", "4", sampler=sampler, baselines=())
        assert {trial.origin for trial in without.trials} == {"sampler"}
        assert [trial.settings for trial in without.trials][:3] == [trial.settings for trial in replaced.trials][1:]
        assert len(set(seeds)) == 4, "they are derived from the seed of the study and the number of the proposal"

    def test_a_full_trial_is_complete_with_its_best_accuracy(self, tmp_path: Path) -> None:
        record = run_search(tmp_path, "3")
        trial = record.trials[0]
        assert trial.state == "complete"
        assert [result.epoch for result in trial.curve] == list(range(1, EPOCHS + 1))
        assert trial.val_accuracy == trial.curve[-1].val_accuracy
        assert trial.val_loss == trial.curve[-1].val_loss
        assert trial.started is not None and trial.finished is not None
        assert trial.started.tzinfo is not None and trial.started <= trial.finished

    def test_the_sampler_improves_over_time(self, tmp_path: Path) -> None:
        record = run_search(tmp_path, "45")
        sampled = [final_accuracy(trial.settings) for trial in record.trials if trial.origin == "sampler"]
        assert sum(sampled[-12:]) / 12 > sum(sampled[:10]) / 10 + 0.1

    def test_the_same_seed_gives_the_same_proposals(self, tmp_path: Path) -> None:
        first, second = (run_search(tmp_path / name, "13") for name in ("a", "b"))
        assert [trial.settings for trial in first.trials] == [trial.settings for trial in second.trials]

    def test_seeds_differ_between_trials_and_studies(self, tmp_path: Path) -> None:
        seeds = []
        for name, seed in (("a", 0), ("b", 1), ("c", 0)):
            engine = FakeEngine()
            with open_fake_study(tmp_path / name, "4", seed=seed) as store:
                engine.run(make_controller(store, "4"))
            seeds.append([spec.seed for spec in engine.specs])
        assert len(set(seeds[0])) == 4
        assert seeds[0] == seeds[2]
        assert not set(seeds[0]) & set(seeds[1])

    def test_specifications_have_keys_and_checkpoints_and_keep_the_split(self, tmp_path: Path) -> None:
        engine = FakeEngine()
        run_search(tmp_path, "2", engine)
        assert [spec.key for spec in engine.specs] == ["trial-0000", "trial-0001"]
        assert engine.specs[0].checkpoint == tmp_path / "checkpoints" / "trial-0000.pt"
        assert engine.specs[0].split_seed is None
        assert not engine.specs[0].evaluate_test
        assert not engine.specs[0].train_on_all

    def test_baseline_recipes_outside_the_space_are_skipped(self, tmp_path: Path) -> None:
        (tmp_path / "s.yaml").write_text(
            "dimensions:\n  momentum: {kind: float, low: 0, high: 0.9, neutral: 0.9}\nfixed: {batch_size: 16}\n"
        )
        with open_fake_study(tmp_path, "3") as store:
            FakeEngine().run(make_controller(store, "3", space=Space.load(tmp_path / "s.yaml")))
            record = store.record()
        assert [trial.origin for trial in record.trials] == ["sampler"] * 3
        assert {trial.settings.batch_size for trial in record.trials} == {16}

    def test_a_trial_that_is_stopped_after_its_last_epoch_is_complete(self, tmp_path: Path) -> None:
        """Checks streams, which report the epochs of the last task at its end, when the time may be used up, too."""
        engine = FakeEngine(outcome=lambda spec, curve: TrialOutcome(curve=curve, stopped="time budget used up"))
        record = run_search(tmp_path, "1", engine)
        assert [(trial.state, len(trial.curve)) for trial in record.trials] == [("complete", EPOCHS)]

    def test_facts_are_stored_in_json_types(self, tmp_path: Path) -> None:
        import numpy as np

        facts = {"device": "cpu", "memory": np.int64(3), "path": tmp_path, "odd": math.nan, "list": np.arange(2)}
        engine = FakeEngine(outcome=lambda spec, curve: TrialOutcome(curve=curve, facts=facts))
        record = run_search(tmp_path, "1", engine)
        assert record.trials[0].facts == {
            "device": "cpu",
            "memory": 3,
            "path": str(tmp_path),
            "odd": None,
            "list": [0, 1],
        }


class TestBudget:
    @pytest.mark.parametrize("workers", [1, 3])
    def test_without_pruning_it_is_exact(self, tmp_path: Path, workers: int) -> None:
        record = run_search(tmp_path, "7", FakeEngine(workers=workers))
        assert states(record.trials) == ["complete"] * 7
        assert record.epochs_spent == record.epochs_budget == 7 * EPOCHS

    @settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(workers=st.integers(1, 4), trials=st.integers(1, 5), kills=st.lists(st.integers(1, 20), max_size=2))
    def test_it_is_never_exceeded(
        self, tmp_path_factory: pytest.TempPathFactory, workers: int, trials: int, kills: list[int]
    ) -> None:
        folder = tmp_path_factory.mktemp("budget")
        for kill_after in kills:
            engine = FakeEngine(workers=workers, kill_after=kill_after, keep_checkpoints=2)
            store = open_fake_study(folder, str(trials))
            with contextlib.suppress(DriverKilled):
                engine.run(make_controller(store, str(trials), pruner="asha", checkpoints=folder / "checkpoints"))
            kill(store)
        engine = FakeEngine(workers=workers, keep_checkpoints=2)
        record = run_search(folder, str(trials), engine, pruner="asha")
        kept = [len(trial.curve) for trial in record.trials if trial.end != "interrupted"]
        assert record.epochs_spent == sum(kept) <= trials * EPOCHS, "epochs that were repeated count once"
        assert "running" not in states(record.trials)
        assert trials * EPOCHS - record.epochs_spent < EPOCHS

    def test_pruned_trials_leave_epochs_for_more_trials(self, tmp_path: Path) -> None:
        record = run_search(tmp_path, "20", pruner="asha")
        counts = record.counts()
        assert counts["pruned"] > 0
        assert sum(counts.values()) > 20
        assert 20 * EPOCHS - EPOCHS < record.epochs_spent <= 20 * EPOCHS
        assert record.epochs_spent == sum(len(trial.curve) for trial in record.trials)

    def test_a_larger_budget_continues_the_search(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "2")
        engine = FakeEngine()
        record = run_search(tmp_path, "5", engine)
        assert len(engine.specs) == 3
        assert len(record.trials) == 5
        assert record.budget == "5"
        run_search(tmp_path, "4", engine)
        assert len(engine.specs) == 3

    def test_a_time_budget_limits_the_trials(self, tmp_path: Path) -> None:
        clock = FakeClock()
        engine = FakeEngine(clock=clock)
        record = run_search(tmp_path, "20s", engine, clock=clock)
        assert states(record.trials) == ["complete"] * 3
        assert record.seconds_spent == 18
        assert record.epochs_budget is None

    def test_a_time_budget_stops_running_trials(self, tmp_path: Path) -> None:
        clock = FakeClock()
        engine = FakeEngine(clock=clock, simulate=lambda spec: slow(spec, 1.0 if spec.key == "trial-0000" else 4.0))
        record = run_search(tmp_path, "20s", engine, clock=clock)
        assert states(record.trials) == ["complete", "pruned"]
        assert record.trials[1].reason == OUT_OF_TIME
        assert len(record.trials[1].curve) == 1, "after its first epoch it is known that it cannot end in time"

    def test_time_counts_all_sessions(self, tmp_path: Path) -> None:
        clock = FakeClock()
        engine = FakeEngine(clock=clock, interrupt_after=EPOCHS + 1)
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path, "20s", engine, clock=clock)
        clock.now += 10_000
        record = run_search(tmp_path, "20s", FakeEngine(clock=clock), clock=clock)
        assert record.seconds_spent <= 20
        assert record.counts()["complete"] == 3

    def test_a_session_without_trials_takes_no_time(self, tmp_path: Path) -> None:
        clock = FakeClock()
        before = run_search(tmp_path, "3", FakeEngine(clock=clock), clock=clock).seconds_spent
        with open_fake_study(tmp_path, "3") as store:
            controller = make_controller(store, "3", clock=clock)
            clock.now += 30.0
            FakeEngine(clock=clock).run(controller)
            controller.close()
            assert store.record().seconds_spent == before > 0

    def test_time_survives_a_kill(self, tmp_path: Path) -> None:
        clock = FakeClock()
        store = open_fake_study(tmp_path, "1h")
        with pytest.raises(DriverKilled):
            FakeEngine(clock=clock, kill_after=25).run(make_controller(store, "1h", clock=clock))
        kill(store)
        with open_fake_study(tmp_path, "1h") as store:
            assert 15 <= make_controller(store, "1h", clock=clock).seconds <= 25


def slow(spec: TrialSpec, seconds: float) -> list[EpochResult]:
    return [EpochResult(r.epoch, r.train_loss, r.val_loss, r.val_accuracy, seconds) for r in simulate(spec)]


class TestEnds:
    def test_pruned_trials_are_stored_as_pruned_and_never_as_complete(self, tmp_path: Path) -> None:
        engine = FakeEngine()
        record = run_search(tmp_path, "10", engine, pruner="asha")
        pruned = [trial for trial in record.trials if trial.state == "pruned"]
        assert len(pruned) == len(engine.stopped) > 0
        for trial in record.trials:
            full = len(trial.curve) == EPOCHS
            assert trial.state == ("complete" if full else "pruned")
        assert all("not among the best half" in trial.reason for trial in pruned)
        assert record.ranked() and all(len(trial.curve) == EPOCHS for trial in record.ranked())

    def test_baseline_recipes_are_never_pruned(self, tmp_path: Path) -> None:
        falling = {"trial-0000": 0.9, "trial-0001": 0.5, "trial-0002": 0.1}

        def curve(spec: TrialSpec) -> list[EpochResult]:
            level = falling.get(spec.key, 0.2)
            return [EpochResult(e, 1.0, 1.0, level, 1.0) for e in range(1, EPOCHS + 1)]

        record = run_search(tmp_path, "6", FakeEngine(simulate=curve), pruner="asha")
        assert states(record.trials)[:3] == ["complete"] * 3
        assert "pruned" in states(record.trials)[3:]

    def test_a_diverged_trial_is_a_result(self, tmp_path: Path) -> None:
        def curve(spec: TrialSpec) -> list[EpochResult]:
            if spec.key != "trial-0001":
                return simulate(spec)
            return [*simulate(spec)[:1], EpochResult(2, math.nan, None, 0.0, 1.0, diverged=True)]

        record = run_search(tmp_path, "3", FakeEngine(simulate=curve), pruner="asha")
        trial = record.trials[1]
        assert (trial.state, trial.val_accuracy, trial.diverged) == ("complete", 0.0, True)
        assert len(trial.curve) == 2
        assert record.ranked()[-1].number == 1
        assert record.epochs_spent == 2 * EPOCHS + 2

    def test_a_failed_trial_is_recorded_and_the_search_continues(self, tmp_path: Path) -> None:
        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome | None:
            if spec.key != "trial-0001":
                return None
            return TrialOutcome(error="ValueError: damaged image", traceback="Traceback ...")

        record = run_search(tmp_path, "4", FakeEngine(outcome=outcome, simulate=simulate))
        assert states(record.trials) == ["complete", "failed", "complete", "complete"]
        assert record.trials[1].reason == "ValueError: damaged image"
        assert record.trials[1].facts["traceback"] == "Traceback ..."
        assert len(record.trials[1].curve) == EPOCHS  # the reported epochs are kept
        assert not list((tmp_path / "checkpoints").glob("*"))

    def test_three_equal_failures_in_a_row_end_the_search(self, tmp_path: Path) -> None:
        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome:
            return TrialOutcome(error=f"RuntimeError: {spec.key} tried 0x7f{len(curve)}a, {spec.seed / 7} MiB")

        with pytest.raises(NbtError, match="3 trials in a row failed in the same way: RuntimeError: trial-0002"):
            run_search(tmp_path, "9", FakeEngine(outcome=outcome))
        with open_fake_study(tmp_path, "9") as store:
            assert states(store.record().trials) == ["failed"] * 3

    def test_trials_whose_failures_ended_the_search_run_again(self, tmp_path: Path) -> None:
        """Once the cause is fixed, the search ends as one that never failed."""
        undisturbed = run_search(tmp_path / "undisturbed", "6")

        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome | None:
            failed = int(spec.key[-4:]) >= 2
            return TrialOutcome(error=f"PermissionError: [Errno 13] {spec.key}") if failed else None

        for _ in range(2):
            with pytest.raises(NbtError, match="3 trials in a row failed in the same way"):
                run_search(tmp_path, "6", FakeEngine(outcome=outcome))
        record = run_search(tmp_path, "6")
        assert states(record.trials) == ["complete"] * 2 + ["failed"] * 6 + ["complete"] * 4
        assert [trial.facts.get("continues") for trial in record.trials[5:11]] == [2, 3, 4, 5, 6, 7]
        completed = [trial for trial in record.trials if trial.state == "complete"]
        assert [trial.settings for trial in completed] == [trial.settings for trial in undisturbed.trials]
        assert record.epochs_spent == undisturbed.epochs_spent

    def test_different_failures_or_a_success_in_between_do_not_end_the_search(self, tmp_path: Path) -> None:
        errors = {0: "a", 1: "a", 2: "b", 3: "a", 4: "a", 5: None, 6: "a", 7: "a"}

        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome | None:
            error = errors[int(spec.key[-4:])]
            return None if error is None else TrialOutcome(error=error)

        record = run_search(tmp_path, "8", FakeEngine(outcome=outcome))
        assert record.counts() == {"complete": 1, "pruned": 0, "failed": 7, "interrupted": 0, "running": 0}

    def test_a_trial_without_validation_fails(self, tmp_path: Path) -> None:
        def curve(spec: TrialSpec) -> list[EpochResult]:
            return [EpochResult(e, 1.0, None, None, 1.0) for e in range(1, EPOCHS + 1)]

        record = run_search(tmp_path, "1", FakeEngine(simulate=curve))
        assert states(record.trials) == ["failed"]
        assert "validation images" in record.trials[0].reason


class TestRequeue:
    @pytest.mark.parametrize("checkpoints", [0, 1])
    def test_the_same_trial_runs_again_and_counts_once(self, tmp_path: Path, checkpoints: int) -> None:
        engine = FakeEngine(workers=2, requeue_once={"trial-0001"}, keep_checkpoints=checkpoints)
        record = run_search(tmp_path, "4", engine)
        specs = [spec for spec in engine.specs if spec.key == "trial-0001"]
        assert len(specs) == 2
        assert specs[0] == specs[1]
        assert record.counts()["failed"] == 0
        assert [result.epoch for result in record.trials[1].curve] == list(range(1, EPOCHS + 1))
        assert engine.epochs == 4 * EPOCHS + (1 if checkpoints == 0 else 0)
        assert record.epochs_spent == 4 * EPOCHS, "a repeated epoch counts once"
        assert record.counts()["complete"] == 4

    def test_a_requeued_trial_is_interrupted_at_the_end_of_the_session(self, tmp_path: Path) -> None:
        with open_fake_study(tmp_path, "1") as store:
            controller = make_controller(store, "1", checkpoints=tmp_path / "checkpoints")
            spec = controller.next_trial()
            assert spec is not None
            controller.on_epoch(spec, simulate(spec)[0])
            controller.on_abandoned(spec)
            controller.close()
            controller.close()
            assert store.record().trials[0].reason == INTERRUPTED


class TestResume:
    def test_a_killed_search_resumes_its_trial(self, tmp_path: Path) -> None:
        first = FakeEngine(kill_after=2 * EPOCHS + 3)
        store = open_fake_study(tmp_path, "5")
        with pytest.raises(DriverKilled):
            first.run(make_controller(store, "5", checkpoints=tmp_path / "checkpoints"))
        kill(store)
        del store
        gc.collect()
        second = FakeEngine()
        record = run_search(tmp_path, "5", second)
        assert states(record.trials) == ["complete", "complete", "failed", "complete", "complete", "complete"]
        assert record.trials[2].reason == INTERRUPTED
        resumed = record.trials[3]
        assert resumed.settings == record.trials[2].settings
        assert resumed.origin == "anchor: L2-SP"
        assert resumed.facts["continues"] == 2
        assert second.specs[0].checkpoint == tmp_path / "checkpoints" / "trial-0002.pt"
        assert second.specs[0].seed == first.specs[2].seed
        assert [result.epoch for result in resumed.curve] == list(range(1, EPOCHS + 1))
        assert record.epochs_spent == first.epochs + second.epochs == 5 * EPOCHS
        assert len(record.trials[2].curve) == 3

    def test_without_a_checkpoint_a_trial_restarts_and_its_epochs_count_once(self, tmp_path: Path) -> None:
        store = open_fake_study(tmp_path, "3")
        with pytest.raises(DriverKilled):
            FakeEngine(kill_after=3, keep_checkpoints=0).run(make_controller(store, "3"))
        kill(store)
        engine = FakeEngine(keep_checkpoints=0)
        record = run_search(tmp_path, "3", engine)
        assert states(record.trials) == ["failed", "complete", "complete", "complete"]
        assert record.epochs_spent == 3 * EPOCHS
        assert [trial.epochs_spent for trial in record.trials] == [3, EPOCHS - 3, EPOCHS, EPOCHS]
        assert engine.specs[0].key == "trial-0001"

    @pytest.mark.parametrize("killed_after", [1, 5, EPOCHS])
    def test_the_last_trial_of_a_budget_is_not_lost(self, tmp_path: Path, killed_after: int) -> None:
        """It repeats the epochs since its checkpoint, also if only its outcome was not stored."""
        store = open_fake_study(tmp_path, "1")
        with pytest.raises(DriverKilled):
            FakeEngine(kill_after=killed_after, keep_checkpoints=2).run(
                make_controller(store, "1", checkpoints=tmp_path / "checkpoints")
            )
        kill(store)
        record = run_search(tmp_path, "1", FakeEngine(keep_checkpoints=2))
        assert record.epochs_spent == EPOCHS
        assert states(record.trials) == ["failed", "complete"]
        assert [result.epoch for result in record.trials[1].curve] == list(range(1, EPOCHS + 1))

    def test_a_search_that_is_killed_repeatedly(self, tmp_path: Path) -> None:
        """Each session trains one more epoch of the same trial, and no epoch is counted twice."""
        for _ in range(4):
            store = open_fake_study(tmp_path, "2")
            with pytest.raises(DriverKilled):
                FakeEngine(kill_after=1).run(make_controller(store, "2", checkpoints=tmp_path / "checkpoints"))
            kill(store)
        record = run_search(tmp_path, "2")
        assert states(record.trials) == ["failed"] * 4 + ["complete"] * 2
        assert len({str(trial.settings) for trial in record.trials[:5]}) == 1
        assert [trial.facts.get("continues") for trial in record.trials] == [None, None, None, None, 3, None]
        assert [result.epoch for result in record.trials[4].curve] == list(range(1, EPOCHS + 1))
        assert record.epochs_spent == 2 * EPOCHS
        assert [trial.epochs_spent for trial in record.trials] == [1, 1, 1, 1, EPOCHS - 4, EPOCHS]

    def test_ctrl_c_keeps_all_results(self, tmp_path: Path) -> None:
        recorder = RecordingObserver()
        engine = FakeEngine(workers=2, interrupt_after=3 * EPOCHS)
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path, "6", engine, observers=(recorder,))
        with open_fake_study(tmp_path, "6") as store:
            trials = store.record().trials
        interrupted = [trial for trial in trials if trial.state == "failed"]
        assert interrupted
        assert {trial.reason for trial in interrupted} == {INTERRUPTED}
        assert {trial.end for trial in interrupted} == {"interrupted"}
        assert [trial.number for trial in recorder.trials][-len(interrupted) :] == [t.number for t in interrupted]
        record = run_search(tmp_path, "6", FakeEngine(workers=2))
        counts = {"complete": 6, "pruned": 0, "failed": 0, "interrupted": len(interrupted), "running": 0}
        assert record.counts() == list_studies(resolve_storage(None, tmp_path))[0].trials == counts
        assert record.epochs_spent == 6 * EPOCHS
        assert sum(trial.epochs_spent for trial in record.trials) == record.epochs_spent

    @pytest.mark.parametrize("kill_after", [2, 4 * EPOCHS, 5 * EPOCHS + 3])
    @pytest.mark.parametrize(("pruner", "guided"), [("asha", False), ("positions", False), ("fit", True)])
    def test_a_killed_search_ends_as_one_that_was_not(
        self, tmp_path: Path, kill_after: int, pruner: str, guided: bool
    ) -> None:
        """The order of proposals, their seeds, what the pruner stops, and the curves are the same."""
        space = Space.load("non_binary")

        def search(folder: Path, kills: list[int]) -> list[object]:
            for kill_after in [*kills, None]:
                surrogate = transferred_priors().surrogate(target(epochs=EPOCHS), space)
                pruners: dict[str, Callable[[], Pruner]] = {
                    "asha": lambda: make_pruner("asha", EPOCHS),
                    "positions": PositionHalvingPruner,
                    "fit": lambda: transferred_priors().pruner(target(epochs=EPOCHS), length=EPOCHS, seed=0),
                }
                store = open_fake_study(folder, "7")
                controller = SearchController(
                    store,
                    space,
                    budget=Budget.parse("7"),
                    pruner=pruners[pruner](),
                    sampler=functools.partial(make_sampler, surrogate) if guided else None,
                    checkpoints=folder / "checkpoints",
                )
                with contextlib.suppress(DriverKilled):
                    FakeEngine(kill_after=kill_after, keep_checkpoints=4).run(controller)
                record = store.record()
                kill(store)
            assert record.epochs_spent == sum(len(t.curve) for t in record.trials if t.end != "interrupted")
            return [(t.settings, t.origin, t.state, t.reason, t.curve) for t in record.trials if t.end != "interrupted"]

        undisturbed = search(tmp_path / "undisturbed", [])
        assert search(tmp_path / "killed", [kill_after, 3]) == undisturbed

    def test_a_resumed_search_repeats_no_proposal(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "6")
        record = run_search(tmp_path, "12")
        assert len({str(trial.settings) for trial in record.trials}) == 12

    def test_an_interrupted_attempt_is_no_competitor_of_its_trial(self, tmp_path: Path) -> None:
        store = open_fake_study(tmp_path, "4")
        with pytest.raises(DriverKilled):
            FakeEngine(kill_after=3).run(make_controller(store, "4", pruner="asha"))
        assert "completed_rung_0" in store.trials()[0].system_attrs
        kill(store)
        with open_fake_study(tmp_path, "4") as store:
            assert list(store.trials()[0].system_attrs) == ["fixed_params"]

    def test_rungs_of_resumed_trials_use_the_accuracy_at_the_rung(self, tmp_path: Path) -> None:
        """Checks a trial that resumes after a rung."""
        store = open_fake_study(tmp_path, "4")
        with pytest.raises(DriverKilled):
            FakeEngine(kill_after=3).run(
                make_controller(store, "4", pruner="asha", checkpoints=tmp_path / "checkpoints")
            )
        kill(store)
        with open_fake_study(tmp_path, "4") as store:
            FakeEngine().run(make_controller(store, "4", pruner="asha", checkpoints=tmp_path / "checkpoints"))
            resumed = store.trials()[1]
            assert resumed.system_attrs["completed_rung_0"] == resumed.intermediate_values[2]
            assert sorted(resumed.intermediate_values) == list(range(1, EPOCHS + 1))

    def test_no_trial_stays_running_or_queued(self, tmp_path: Path) -> None:
        store = open_fake_study(tmp_path, "3")
        make_controller(store, "3").next_trial()
        store.study.enqueue_trial({"head_lr": 0.5})
        store.study.ask()
        store.study.enqueue_trial({"head_lr": 0.5})
        kill(store)
        record = run_search(tmp_path, "3")
        assert record.counts() == {"complete": 3, "pruned": 0, "failed": 0, "interrupted": 1, "running": 0}
        with open_fake_study(tmp_path, "3") as store:
            assert all(trial.state.is_finished() for trial in store.trials())

    def test_a_killed_process(self, tmp_path: Path) -> None:
        code = (
            "import os, pathlib, sys\n"
            "from tests.tuning.fakes import *\n"
            "folder = pathlib.Path(sys.argv[1])\n"
            "store = open_fake_study(folder, '3')\n"
            "try:\n"
            "    FakeEngine(kill_after=8).run(make_controller(store, '3', checkpoints=folder / 'checkpoints'))\n"
            "except DriverKilled:\n"
            "    os._exit(9)\n"
        )
        root = Path(__file__).resolve().parents[2]
        done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], cwd=root, check=False)
        assert done.returncode == 9
        record = run_search(tmp_path, "3")
        assert states(record.trials) == ["complete", "failed", "complete", "complete"]
        assert record.epochs_spent == 3 * EPOCHS


class FailingObserver(StudyObserver):
    def __init__(self) -> None:
        self.calls = 0

    def epoch_finished(self, number: int, result: EpochResult, spent: float) -> None:
        self.calls += 1
        raise RuntimeError("no display")


class TestObservers:
    def test_they_receive_all_events_in_order(self, tmp_path: Path) -> None:
        recorder = RecordingObserver()
        run_search(tmp_path, "2", observers=(recorder,))
        events = recorder.events
        assert events[0] == ("study_started",)
        assert events[1] == ("trial_started", 0, "anchor: default recipe")
        assert events[2] == ("epoch_finished", 0, 1, 1)
        assert events[EPOCHS + 2] == ("trial_finished", 0, "complete")
        assert events[-2] == ("epoch_finished", 1, EPOCHS, 2 * EPOCHS)
        assert isinstance(recorder.trials[0], TrialRecord)
        assert recorder.records[0].budget == "2"

    def test_a_failing_observer_is_logged_once_and_the_search_continues(
        self, tmp_path: Path, caplog: pytest.LogCaptureFixture
    ) -> None:
        failing, recorder = FailingObserver(), RecordingObserver()
        with caplog.at_level(logging.WARNING, logger="nbt"):
            record = run_search(tmp_path, "2", observers=(failing, recorder))
        assert record.counts()["complete"] == 2
        assert failing.calls == 2 * EPOCHS
        assert len(recorder.trials) == 2
        assert [message for message in caplog.messages if "FailingObserver failed" in message] == [
            "FailingObserver failed at epoch_finished (RuntimeError: no display); the search continues"
        ]


def test_a_second_driver_is_refused(tmp_path: Path) -> None:
    with open_fake_study(tmp_path, "2"):
        with pytest.raises(NbtError, match="is being searched already"):
            open_fake_study(tmp_path, "2")
        with open_fake_study(tmp_path, "2", name="other") as other:
            assert other.config == config(name="other")
    open_fake_study(tmp_path, "2").close()


class TestAutomaticBudget:
    def search(self, path: Path, gains: list[float | None], *, max_budget: int = 20) -> StudyRecord:
        """Searches; `gains` are those expected after each number of finished trials, the last one after all others."""
        space = Space.load("non_binary")
        surrogate = PriorSurrogate(Target(epochs=EPOCHS), space)

        class Sampler(BayesianSampler):
            def expected_gain(self, study: optuna.Study) -> float | None:
                finished = len([trial for trial in study.get_trials() if trial.state.is_finished()])
                return gains[min(finished, len(gains) - 1)]

        def make(seed: int) -> BayesianSampler:
            return Sampler(surrogate, space, length=EPOCHS, images=100, seed=seed)

        with open_fake_study(path, "auto") as store:
            controller = SearchController(
                store,
                space,
                budget=Budget.parse("auto", max_budget=max_budget),
                pruner=make_pruner("none", EPOCHS),
                sampler=make,
            )
            FakeEngine().run(controller)
            controller.close()
            return store.record()

    def test_it_ends_when_the_expected_gain_is_small(self, tmp_path: Path) -> None:
        record = self.search(tmp_path, [0.1, 0.1, 0.1, 0.1, 0.1, 0.0011, 0.0007])
        assert len(record.trials) == 6
        assert record.ended == "a further trial is expected to gain 0.07 points, less than 0.1"
        again = self.search(tmp_path, [0.0007])
        assert len(again.trials) == 6, "a resumed search ends at once"
        assert again.ended == record.ended

    def test_baseline_recipes_run_in_any_case(self, tmp_path: Path) -> None:
        assert len(self.search(tmp_path, [0.0]).trials) == 4

    def test_it_goes_on_while_the_gain_is_unknown_up_to_its_limit(self, tmp_path: Path) -> None:
        record = self.search(tmp_path, [None], max_budget=7)
        assert len(record.trials) == 7
        assert record.ended == "the limit of its budget is used up"


VARIED = Space.parse(
    """
dimensions:
  head_lr: {kind: float, low: 0.001, high: 1, log: true, neutral: 0.01}
  epochs: {kind: int, low: 2, high: 12, log: true, neutral: 6}
same_as: {body_lr: head_lr}
""",
    source="varied",
)


class TestTrialsOfDifferentLengths:
    @pytest.mark.parametrize("guided", [True, False])
    def test_the_budget_counts_epochs_and_no_trial_is_cut_off(self, tmp_path: Path, guided: bool) -> None:
        surrogate = PriorSurrogate(Target(epochs=EPOCHS), VARIED)
        make = (lambda seed: make_sampler(surrogate, seed)) if guided else None
        record = run_search(tmp_path, "10", space=VARIED, sampler=make)
        lengths = [trial.settings.epochs for trial in record.trials]
        assert lengths[0] == EPOCHS, "the default recipe has the neutral length"
        assert len(set(lengths)) > 2
        assert all(trial.state == "complete" and len(trial.curve) == trial.settings.epochs for trial in record.trials)
        assert 10 * EPOCHS - 2 < record.epochs_spent <= 10 * EPOCHS

    def test_an_interrupted_search_resumes_with_their_lengths(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            run_search(tmp_path, "6", FakeEngine(interrupt_after=20, keep_checkpoints=1), space=VARIED)
        record = run_search(tmp_path, "6", space=VARIED)
        complete = [trial for trial in record.trials if trial.state == "complete"]
        assert all(len(trial.curve) == trial.settings.epochs for trial in complete)
        assert record.epochs_spent <= 6 * EPOCHS


class TestCosts:
    """Half of a training step of the full network is left when three of four equal units are frozen."""

    MODEL = CostModel(units=(0.25,) * 4, validation=0.25)

    def search(self, tmp_path: Path, budget: str, engine: FakeEngine | None = None, **options: Any) -> StudyRecord:
        surrogate = PriorSurrogate(Target(epochs=EPOCHS), Space.load("non_binary"))
        options = {"sampler": lambda seed: make_sampler(surrogate, seed, cost_model=self.MODEL), **options}
        return run_search(tmp_path, budget, engine, cost_model=self.MODEL, **options)

    @pytest.mark.parametrize("guided", [True, False])
    def test_cheap_trials_leave_budget_for_more(self, tmp_path: Path, guided: bool) -> None:
        record = self.search(tmp_path, "10", **({} if guided else {"sampler": None}))
        costs = [self.MODEL.training(trial.settings, len(trial.curve)) for trial in record.trials]
        assert record.budget_spent == pytest.approx(sum(costs), rel=0.02), "features of frozen units are computed once"
        assert 9.0 < record.cost <= 10.0
        assert len(record.trials) > 10 or not guided, "TPE does not know the costs"

    def test_the_last_proposals_fit_into_the_rest_of_the_budget(self, tmp_path: Path) -> None:
        record = self.search(tmp_path, "12")
        assert all(trial.state == "complete" for trial in record.trials), "none is cut off"

    def test_a_resumed_search_knows_what_was_spent(self, tmp_path: Path) -> None:
        with pytest.raises(KeyboardInterrupt):
            self.search(tmp_path, "6", FakeEngine(interrupt_after=30, keep_checkpoints=1))
        record = self.search(tmp_path, "6")
        assert record.trials[1].settings.frozen_depth == 1.0 and record.trials[1].epoch_cost < 0.3
        assert 5.0 < record.cost <= 6.0
