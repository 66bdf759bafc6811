from __future__ import annotations

from pathlib import Path

import pytest

from nbt.errors import NbtError, UsageError
from nbt.settings import TransferSettings
from nbt.training.results import EpochResult, TrialOutcome, TrialSpec
from nbt.tuning.baseline_recipes import DEFAULT_RECIPE, default_recipe
from nbt.tuning.finals import finals as finals_module
from nbt.tuning.finals.finals import Finals, recommended_final
from nbt.tuning.relative_cost import cost_model
from nbt.tuning.run_scores import RunScore, paired_difference
from nbt.tuning.space.applicability import unconditional_space
from nbt.tuning.space.space import Space
from nbt.tuning.storage import codec
from nbt.tuning.storage.candidates import CandidateRecord
from nbt.tuning.storage.codec import final_key
from nbt.tuning.storage.reader import validation_design
from nbt.tuning.storage.records import StudyRecord
from nbt.tuning.storage.studies import read_study, resolve_storage
from nbt.tuning.surrogate.backbone_surrogate import BackboneSurrogate
from nbt.tuning.surrogate.prior_surrogate import PriorSurrogate
from nbt.tuning.target import Target
from tests.tuning.fakes import (
    DATASET,
    EPOCHS,
    DriverKilled,
    FakeEngine,
    RecordingObserver,
    copy_searched_study,
    final_accuracy,
    hashed_uniform,
    kill,
    open_fake_study,
    run_search,
)
from tests.tuning.synthetic import profile


def levels(**by_origin: float):
    """Returns a `simulate` with constant curves per finalist ("default", "t0004") plus an effect of the fold."""

    def simulate(spec: TrialSpec) -> list[EpochResult]:
        origin = spec.key.split("-")[1]
        level = by_origin.get("t" + origin, by_origin["default"]) + 0.1 * hashed_uniform(spec.fold)
        level += 0.001 * hashed_uniform(spec.fold, spec.key)
        return [EpochResult(e, 1.0, 1.0, level, 1.0) for e in range(1, EPOCHS + 1)]

    return simulate


class TestRuns:
    def test_seeds_and_folds_are_new_and_shared(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "5")
        engine = FakeEngine()
        with open_fake_study(tmp_path, "5") as store:
            finals = Finals(store, seeds=3, checkpoints=tmp_path / "checkpoints")
            engine.run(finals)
            record = store.record()
        assert finals.finished
        by_key = {spec.key: spec for spec in engine.specs}
        assert len(by_key) == len(engine.specs)
        assert {spec.seed for spec in engine.specs} == {1, 2, 3}
        assert {(spec.split_seed, spec.fold) for spec in engine.specs} == {(record.config.seed, i) for i in (1, 2, 3)}
        assert all(spec.fold == spec.seed - record.config.seed for spec in engine.specs)
        assert by_key["final-default-seed-1"].settings == TransferSettings(epochs=EPOCHS)
        assert by_key["final-default-seed-1"].checkpoint == tmp_path / "checkpoints" / "final-default-seed-1.pt"
        assert not any(spec.evaluate_test or spec.train_on_all for spec in engine.specs)
        seeds = [tuple(run.seed for run in final.runs) for final in record.finals]
        assert set(seeds) == {(1, 2, 3)}
        assert {run.fold for final in record.finals for run in final.runs} == {1, 2, 3}

    @pytest.mark.parametrize(("budget", "finalists", "runs"), [("4", 2, 3), ("24", 2, 3), ("28", 4, 3), ("60", 4, 5)])
    def test_finals_and_last_training_cost_at_most_half_of_what_the_trials_cost(
        self, tmp_path: Path, budget: str, finalists: int, runs: int
    ) -> None:
        search = copy_searched_study(tmp_path, budget)
        engine = FakeEngine(simulate=levels(default=0.5))  # without a difference, all folds run
        with open_fake_study(tmp_path, budget) as store:
            engine.run(Finals(store))
            record = store.record()
        assert {len(final.runs) for final in record.finals} == {runs} and len(record.finals) == finalists
        model = cost_model(record)
        trials = sum(model.training(trial.settings, trial.trained) for trial in search.trials)
        costs = sorted(model.training(spec.settings) for spec in engine.specs)
        last_training = model.retraining * (costs[0] + costs[-1])
        assert (sum(costs) + last_training <= trials / 2) == (budget != "4"), "the least finals cost more"

    def test_a_run_that_is_given_back_after_the_last_one_does_not_lose_the_decision(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "5")
        with open_fake_study(tmp_path, "5") as store:
            finals, simulate = Finals(store), levels(default=0.5)
            specs = list(iter(finals.next_trial, None))
            of_trial = [spec for spec in specs if spec.settings != default_recipe(EPOCHS)]
            failed, given_back = of_trial[:2]
            assert (failed.settings, failed.fold, given_back.fold) == (given_back.settings, 1, 2)
            finals.on_done(failed, TrialOutcome(curve=(), error="no more memory"))
            for spec in specs:
                if spec not in (failed, given_back):
                    finals.on_done(spec, TrialOutcome(curve=tuple(simulate(spec))))
            assert finals.finished and store.record().recommended is None, "a run is still in flight"
            finals.on_abandoned(given_back)
            assert store.record().recommended == DEFAULT_RECIPE

    def test_the_record_contains_the_decision(self, tmp_path: Path) -> None:
        search = copy_searched_study(tmp_path, "28")
        best = search.ranked()[0]
        simulate = levels(default=0.5, **{f"t{best.number:04d}": 0.8})
        with open_fake_study(tmp_path, "28") as store:
            FakeEngine(simulate=simulate).run(Finals(store))
        record = read_study(resolve_storage(None, tmp_path), "fake")
        assert record.recommended == record.finals[0].name == f"trial {best.number}"
        assert record.finals[0].trial == best.number
        assert record.finals[0].settings == best.settings
        assert len(record.finals[0].runs) == 3  # a clear lead needs no more
        assert record.finals[0].validation.low < record.finals[0].validation.mean < record.finals[0].validation.high
        assert record.finals[0].versus_default.mean == pytest.approx(0.3, abs=0.01)
        assert record.finals[0].versus_default.low > 0
        assert f"Trial {best.number} is better than the default recipe by" in record.verdict
        assert "Nothing is better" not in record.verdict
        default = record.final(DEFAULT_RECIPE)
        assert default is not None and default.versus_default is None and default.dropped == ""
        assert [final.dropped for final in record.finals if final.name.startswith("trial")][1:] == [
            f"worse than trial {best.number} after 3 seeds"
        ] * 2
        assert recommended_final(record) == record.finals[0]
        assert record.epochs_spent == search.epochs_spent

    def test_the_default_recipe_is_recommended_if_it_is_the_best(self, tmp_path: Path) -> None:
        numbers = [trial.number for trial in copy_searched_study(tmp_path, "5").ranked()]
        worse = {f"t{number:04d}": 0.3 for number in numbers}
        with open_fake_study(tmp_path, "5") as store:
            FakeEngine(simulate=levels(default=0.5, **worse)).run(Finals(store))
            record = store.record()
        assert record.recommended == DEFAULT_RECIPE
        assert record.finals[0].name == DEFAULT_RECIPE
        assert record.verdict.startswith("The default recipe is recommended")

    def test_training_from_scratch_is_recommended_if_the_weights_have_no_advantage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """All trials count as trainings from scratch; they end within noise below the default recipe."""
        numbers = [trial.number for trial in copy_searched_study(tmp_path, "5").ranked()]
        default = default_recipe(EPOCHS)
        monkeypatch.setattr(finals_module, "is_from_scratch", lambda settings: settings != default)
        useless = Target.of({}, profile(0.1, 0.1, samples=500), EPOCHS)
        surrogate = PriorSurrogate(useless, unconditional_space(Space.load("non_binary")))
        simulate = levels(default=0.5, **{f"t{number:04d}": 0.499 for number in numbers})
        with open_fake_study(tmp_path, "5") as store:
            FakeEngine(simulate=simulate).run(Finals(store, surrogate=surrogate))
            record = store.record()
        assert str(record.recommended).startswith("trial ")
        assert record.verdict.endswith("the pretrained weights have no advantage over random ones.")

    @pytest.mark.parametrize(("other", "is_preferred"), [(0.1, True), (0.6, False)])
    def test_training_from_scratch_is_preferred_if_no_backbone_has_an_advantage(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: float, is_preferred: bool
    ) -> None:
        """As above, with a second backbone whose probe has the accuracy `other`."""
        numbers = [trial.number for trial in copy_searched_study(tmp_path, "5").ranked()]
        default = default_recipe(EPOCHS)
        monkeypatch.setattr(finals_module, "is_from_scratch", lambda settings: settings != default)
        targets = {
            name: Target.of({}, profile(accuracy, 0.1, samples=500), EPOCHS)
            for name, accuracy in (("", 0.1), ("other", other))
        }
        records = [CandidateRecord(name=name, parameters=1000, cost=1.0) for name in ("net", "other net")]
        space = unconditional_space(Space.load("non_binary")).with_backbones(["other"])
        simulate = levels(default=0.5, **{f"t{number:04d}": 0.499 for number in numbers})
        with open_fake_study(tmp_path, "5") as store:
            FakeEngine(simulate=simulate).run(Finals(store, surrogate=BackboneSurrogate(targets, records, space)))
            record = store.record()
        assert (record.recommended != DEFAULT_RECIPE) is is_preferred
        assert ("have no advantage over random ones" in record.verdict) is is_preferred

    def test_finalists_that_cannot_be_distinguished_run_all_seeds(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "60")

        def simulate(spec: TrialSpec) -> list[EpochResult]:
            return [EpochResult(e, 1.0, 1.0, 0.4 + 0.2 * hashed_uniform(spec.key), 1.0) for e in range(1, EPOCHS + 1)]

        with open_fake_study(tmp_path, "60") as store:
            FakeEngine(simulate=simulate, workers=3).run(Finals(store, seeds=4))
            record = store.record()
        assert {len(final.runs) for final in record.finals if not final.dropped} == {4}
        assert record.recommended == DEFAULT_RECIPE or "cannot be distinguished" in record.verdict

    @pytest.mark.parametrize("seeds", [0, 1])
    def test_a_single_fold_is_refused_because_it_gives_no_interval(self, tmp_path: Path, seeds: int) -> None:
        copy_searched_study(tmp_path, "4")
        with (
            open_fake_study(tmp_path, "4") as store,
            pytest.raises(
                UsageError, match=f"--final-seeds: {seeds} final run per recipe gives no interval.*2 or more"
            ),
        ):
            Finals(store, seeds=seeds)

    def test_runs_on_splits_of_version_0_1_are_not_mixed_with_folds(self, tmp_path: Path) -> None:
        best = copy_searched_study(tmp_path, "4").ranked()[0]
        default = default_recipe(EPOCHS)
        curve = {s: codec.encode_curve([EpochResult(EPOCHS, 1.0, 1.0, s, 1.0)]) for s in (0.25, 0.75)}
        entries = [
            {"name": n, "trial": t, "settings": s.to_dict(), "seeds": [1, 2], "dropped": "", "default": s == default}
            for n, t, s in ((f"trial {best.number}", best.number, best.settings), (DEFAULT_RECIPE, 0, default))
        ]
        with open_fake_study(tmp_path, "4") as store:
            for seed in (1, 2):
                store.put(final_key(best.settings, seed), curve[0.75])
                store.put(final_key(default, seed), curve[0.25])
            store.put(codec.FINALS, {"candidates": entries, "recommended": entries[0]["name"], "verdict": "better"})
            old = store.record()
            engine = FakeEngine()
            engine.run(Finals(store, seeds=3))
            new = store.record()
        assert [final.validation.mean for final in old.finals] == [0.75, 0.25]
        assert {run.fold for final in old.finals for run in final.runs} == {None}
        assert len(engine.specs) == 6
        assert {(len(final.runs), run.fold) for final in new.finals for run in final.runs} == {(3, 1), (3, 2), (3, 3)}

    def test_the_cheaper_recipe_is_recommended_if_nothing_beats_the_default_recipe(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "28")
        with open_fake_study(tmp_path, "28") as store:
            FakeEngine(simulate=levels(default=0.5)).run(Finals(store))
            record = store.record()
        model = cost_model(record)
        costs = {final.name: model.epoch(final.settings) for final in record.finals}
        assert min(costs.values()) < 0.9  # else the test shows nothing
        assert record.recommended == min(costs, key=costs.__getitem__)
        assert "Nothing is better than the default recipe beyond noise" in record.verdict
        assert "because it is cheaper" in record.verdict

    def test_observers(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        recorder = RecordingObserver()
        with open_fake_study(tmp_path, "4") as store:
            FakeEngine().run(Finals(store, seeds=3, observers=(recorder,)))
        runs = [event for event in recorder.events if event[0] == "final_run_finished"]
        names = tuple(dict.fromkeys(name for _, name, _ in runs))
        assert recorder.events[0] == ("finals_started", len(runs), names) and len(names) == 2
        assert ("final_run_finished", DEFAULT_RECIPE, 1) in runs

    def test_a_diverged_run_counts_as_accuracy_0(self, tmp_path: Path) -> None:
        search = copy_searched_study(tmp_path, "3")
        best = search.ranked()[0].number

        def simulate(spec: TrialSpec) -> list[EpochResult]:
            if f"{best:04d}" in spec.key:
                return [EpochResult(1, float("inf"), None, 0.0, 1.0, diverged=True)]
            return levels(default=0.5)(spec)

        with open_fake_study(tmp_path, "3") as store:
            FakeEngine(simulate=simulate).run(Finals(store))
            record = store.record()
        assert record.final(f"trial {best}").validation.mean == 0
        assert record.recommended != f"trial {best}"


class TestFailures:
    def run_failing(self, folder: Path, *failing: str) -> StudyRecord:
        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome | None:
            fails = any(part in spec.key for part in failing)
            return TrialOutcome(error="RuntimeError: broken") if fails else None

        with open_fake_study(folder, "4") as store:
            FakeEngine(outcome=outcome).run(Finals(store, seeds=3))
            return store.record()

    def test_a_finalist_that_fails_is_dropped(self, tmp_path: Path) -> None:
        best = copy_searched_study(tmp_path, "4").ranked()[0].number
        record = self.run_failing(tmp_path, f"final-{best:04d}-seed-2")
        final = record.final(f"trial {best}")
        assert final.dropped == "a final run failed: RuntimeError: broken"
        assert record.recommended != final.name

    def test_without_the_default_recipe_there_is_no_comparison(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        record = self.run_failing(tmp_path, "default")
        assert record.final(DEFAULT_RECIPE) is None
        assert "could not be run" in record.verdict

    def test_it_ends_with_an_error_if_all_finalists_fail(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        with pytest.raises(NbtError, match="no final run succeeded; the last one: RuntimeError: broken"):
            self.run_failing(tmp_path, "final")
        with open_fake_study(tmp_path, "4") as store, pytest.raises(NbtError, match="no recommendation yet"):
            recommended_final(store.record())


class TestResume:
    def finals(self, folder: Path, engine: FakeEngine, seeds: int = 3) -> tuple[Finals, StudyRecord]:
        with open_fake_study(folder, "4") as store:
            finals = Finals(store, seeds=seeds, checkpoints=folder / "checkpoints")
            engine.run(finals)
            return finals, store.record()

    def test_finished_runs_are_not_repeated_after_a_kill(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        third = FakeEngine()
        store = open_fake_study(tmp_path, "4")
        first = FakeEngine(kill_after=3 * EPOCHS + 2)
        with pytest.raises(DriverKilled):
            first.run(Finals(store, seeds=3, checkpoints=tmp_path / "checkpoints"))
        kill(store)
        second = FakeEngine()
        _, record = self.finals(tmp_path, second)
        assert first.specs[3].key == second.specs[0].key
        assert not {spec.key for spec in first.specs[:3]} & {spec.key for spec in second.specs}
        assert first.epochs + second.epochs == EPOCHS * sum(len(final.runs) for final in record.finals)
        finals, _ = self.finals(tmp_path, third)
        assert finals.finished and third.specs == []

    def test_a_damaged_run_is_repeated(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        self.finals(tmp_path, FakeEngine())
        with open_fake_study(tmp_path, "4") as store:
            store.put(final_key(default_recipe(EPOCHS), 2, 2), {"epoch": [1]})
        engine = FakeEngine()
        finals, _ = self.finals(tmp_path, engine)
        assert [spec.key for spec in engine.specs] == ["final-default-seed-2"]
        assert finals.finished

    def test_runs_are_repeated_after_ctrl_c_and_out_of_memory(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        with pytest.raises(KeyboardInterrupt):
            self.finals(tmp_path, FakeEngine(workers=2, interrupt_after=EPOCHS + 1))
        engine = FakeEngine(workers=2, requeue_once={"final-default-seed-3"})
        finals, record = self.finals(tmp_path, engine)
        assert finals.finished
        assert sum(spec.key == "final-default-seed-3" for spec in engine.specs) == 2
        assert {len(final.runs) for final in record.finals} == {3}

    def test_a_larger_number_of_seeds_only_adds_runs(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        self.finals(tmp_path, FakeEngine(), seeds=2)
        engine = FakeEngine()
        _, record = self.finals(tmp_path, engine, seeds=3)
        assert {spec.seed for spec in engine.specs} == {3}
        assert {len(final.runs) for final in record.finals} == {3}
        _, record = self.finals(tmp_path, FakeEngine(), seeds=2)
        assert {len(final.runs) for final in record.finals} == {2}

    def test_finalists_with_stored_runs_stay_finalists_after_a_larger_budget(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        _, before = self.finals(tmp_path, FakeEngine())
        first = before.finals[0] if before.finals[0].trial is not None else before.finals[1]

        def lucky(spec: TrialSpec) -> list[EpochResult]:  # every later trial looks better than it is
            level = final_accuracy(spec.settings) if spec.key.startswith("final") else 0.99
            return [EpochResult(e, 1.0, 1.0, level, 1.0) for e in range(1, EPOCHS + 1)]

        run_search(tmp_path, "12", FakeEngine(simulate=lucky))
        engine = FakeEngine(simulate=lucky)
        with open_fake_study(tmp_path, "12") as store:
            engine.run(Finals(store, seeds=3))
            record = store.record()
        kept = record.final(first.name)
        assert kept is not None and kept.settings == first.settings and kept.runs == first.runs
        assert len(record.finals) >= 3, "a trial of the larger budget is a finalist, too"
        assert not any(spec.settings == first.settings for spec in engine.specs)
        with open_fake_study(tmp_path, "12") as store:
            assert Finals(store, seeds=3).finished, "resuming it again adds no runs"

    def test_finalists_with_fewer_runs_stay_when_more_seeds_are_allowed(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "28")
        with open_fake_study(tmp_path, "28") as store:
            FakeEngine(simulate=levels(default=0.5)).run(Finals(store, seeds=2))
            first = store.record()
        # The trials of a larger budget are the better ones.
        run_search(tmp_path, "60", FakeEngine(simulate=levels(default=0.85)))
        with open_fake_study(tmp_path, "60") as store:
            FakeEngine(simulate=levels(default=0.5)).run(Finals(store, seeds=3))
            second = store.record()
        assert {final.settings for final in first.finals} <= {final.settings for final in second.finals}
        assert {len(final.runs) for final in second.finals} == {3}

    def test_a_longer_search_keeps_the_runs_of_remaining_finalists(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        self.finals(tmp_path, FakeEngine())
        run_search(tmp_path, "12")
        engine = FakeEngine()
        with open_fake_study(tmp_path, "12") as store:
            engine.run(Finals(store, seeds=3))
            record = store.record()
        assert not any("default" in spec.key for spec in engine.specs)
        assert final_accuracy(recommended_final(record).settings) == max(
            final_accuracy(final.settings) for final in record.finals
        )
        assert record.dataset == DATASET


class TestPredictions:
    """The fake predictions of a better run are right on the images of a worse run and more."""

    def finals(self, folder: Path, engine: FakeEngine) -> StudyRecord:
        best = read_study(resolve_storage(None, folder), "fake").ranked()[0].number
        engine.simulate = levels(default=0.5, **{f"t{best:04d}": 0.57})
        with open_fake_study(folder, "4") as store:
            engine.run(Finals(store, seeds=3, checkpoints=folder / "checkpoints"))
            return store.record()

    def test_selection_verdict_and_record_compare_image_by_image(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")
        record = self.finals(tmp_path, FakeEngine())
        final, default = record.finals[0], record.final(DEFAULT_RECIPE)
        scores = [{run.seed: RunScore(run.val_accuracy) for run in each.runs} for each in (final, default)]
        design = validation_design(DATASET)
        unknown = paired_difference(*scores, design)
        known = final.versus_default
        assert known.mean == unknown.mean > 0.05
        assert known.low > 0 > unknown.low, "the difference is seen only image by image"
        assert f"{final.name} is better than the default recipe by".capitalize() in record.verdict
        assert f"{100 * known.low:+.1f} to {100 * known.high:+.1f}" in record.verdict
        assert read_study(resolve_storage(None, tmp_path), "fake").finals == record.finals

    def test_a_resumed_study_has_the_same_result(self, tmp_path: Path) -> None:
        whole, killed = tmp_path / "whole", tmp_path / "killed"
        for folder in (whole, killed):
            copy_searched_study(folder, "4")
        expected = self.finals(whole, FakeEngine())
        with pytest.raises(DriverKilled):
            self.finals(killed, FakeEngine(kill_after=4 * EPOCHS + 2))
        resumed = self.finals(killed, FakeEngine())
        assert (resumed.finals, resumed.verdict) == (expected.finals, expected.verdict)

    def test_runs_without_predictions_keep_the_rule_without_images(self, tmp_path: Path) -> None:
        copy_searched_study(tmp_path, "4")

        def outcome(spec: TrialSpec, curve: tuple[EpochResult, ...]) -> TrialOutcome:
            return TrialOutcome(curve=curve)

        record = self.finals(tmp_path, FakeEngine(outcome=outcome))
        final, default = record.finals[0], record.final(DEFAULT_RECIPE)
        scores = [{run.seed: RunScore(run.val_accuracy) for run in each.runs} for each in (final, default)]
        assert final.versus_default == paired_difference(*scores, validation_design(DATASET))
        assert final.versus_default.low < 0
