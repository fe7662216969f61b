"""One worker's sitting: which trial is next, up the ladder, and the finale."""

import json
import math
import shutil
import statistics
import time
from typing import Any

from search import confirm, leases, storage
from search.ladder import TOP, Climber, hopeless, leader, promotable, ranked
from search.storage import GOAL, LENGTH, FrozenTrial, TrialState
from search.trial.config import TrialConfig
from search.trial.train import Stopped
from search.worker import Worker

# The last stretch is planned for this share of the time left.
FINALE_SAFETY = 0.97
# Where it is planned anew: shares of the steps that are left then.
LOOKS = (0.3, 0.75, 1.0)
# It takes at least this share of a training, however little time is left for it.
SHORTEST_STRETCH = 0.15
# And may take so many times the time left.
MOST_OVER = 1.25
# Whoever waits for others looks again after so long.
MOMENT_S = 0.5


def fewest_steps(done: int) -> int:
    """The shortest whole training with so many steps before its last stretch."""
    return max(math.ceil(done / (1 - SHORTEST_STRETCH)), done + 1)


class Sitting:
    """The share that one worker has in a search, alone or beside others."""

    def __init__(self, worker: Worker, started: float) -> None:
        self.worker, self.started = worker, started
        self.spec, self.study, self.progress = worker.spec, worker.study, worker.progress
        self.ladder = worker.spec.ladder
        self.watchman = leases.Watchman()
        self.worked = False
        self._ended: dict[int, Climber | None] = {}

    def go(self) -> None:
        """Work until nothing is left to do, the time is over, or someone asks to stop."""
        while not self.worker.stop.requested and (self._one_climb() or self._others_climb()):
            for climber in hopeless(self._climbers(), self.ladder, self.spec.keep):
                self.worker.beaten(self._trial(climber.number))
        if not self.worker.stop.requested and self.spec.confirm_seeds:
            self._confirm()
        if not self.worker.stop.requested:
            self._finale()
        if not self.worker.stop.requested:
            for climber in self._climbers():
                if climber.waits:
                    self.worker.beaten(self._trial(climber.number))
        if not self.worked and self.worker.options.workers == 1:
            self.progress.say(f"all {self.spec.trials} trials are done; a larger --trials searches on")

    def _one_climb(self) -> bool:
        """Work on the trial whose turn it is, up to its next rung; False when there is none, or no time."""
        trials = self.study.get_trials(deepcopy=False)
        for trial in trials:
            if trial.state == TrialState.WAITING and storage.is_under_way(trial):
                return self._climb(trial, trial.user_attrs[GOAL])
        for climber in promotable(self._climbers(), self.ladder):
            goal = self.ladder.above(climber.rung)
            if self._fits(goal, self._trial(climber.number)):
                return self._climb(self._trial(climber.number), goal)
        lowest = self.ladder.percents()[0]
        # However short the time, one trial is made: there is something to export then.
        if any(storage.has_begun(trial) for trial in trials) and not self._fits(lowest):
            return False
        new = storage.next_new(trials, self.spec.trials)
        if new is not None:
            return self._climb(new, lowest)
        return storage.may_have_more(trials, self.spec.trials) and self._begin(lowest)

    def _begin(self, goal: int) -> bool:
        """Work on a new trial up to its first rung; False if others have begun the last one."""
        begun = leases.begin(self.study, self.spec.trials, self.worker.sampler, **{GOAL: goal})
        if begun is not None:
            self.worked = True
            self.worker.work_on(begun)
        return begun is not None

    def _climb(self, waiting: FrozenTrial, goal: int) -> bool:
        self.worked = True
        trial = leases.take(self.study, waiting, self.worker.sampler, **{GOAL: goal})
        if trial is not None:
            self.worker.work_on(trial)
        return True

    def _others_climb(self) -> bool:
        """Whether others are on their way up, whose scores may decide what is next; a moment later."""
        for trial in self.watchman.dead(self.study):
            leases.bury(self.study, trial)
        if not any(self._is_on_its_way(trial) for trial in self.study.get_trials(deepcopy=False)):
            return False
        if self._elapsed() > self.spec.timeout * self.spec.search_share:
            return False
        time.sleep(MOMENT_S)
        return True

    def _is_on_its_way(self, trial: FrozenTrial) -> bool:
        # One that has just been scored at its goal is still running: what it says is not yet all there.
        held = trial.state == TrialState.RUNNING or storage.is_under_way(trial)
        return held and bool(trial.user_attrs.get(GOAL, 0) < TOP)

    def _fits(self, goal: int, trial: FrozenTrial | None = None) -> bool:
        """Whether the way up to `goal` ends within the time of the search, as far as is known."""
        if trial is not None:
            share = self.ladder.share(self._rung(trial))
            expected = trial.user_attrs["seconds"] * (self.ladder.share(goal) / share - 1)
        else:
            rate = statistics.median(self.worker.rates) if self.worker.rates else 0.0
            expected = rate * self.ladder.share(goal)
        return bool(self._elapsed() + expected <= self.spec.timeout * self.spec.search_share)

    def _rung(self, trial: FrozenTrial) -> int:
        return max(percent for percent in trial.intermediate_values if percent in self.ladder.percents())

    def _climbers(self) -> list[Climber]:
        return storage.climbers(self.study, self.ladder, self._ended)

    def _trial(self, number: int) -> FrozenTrial:
        return self.study.get_trials(deepcopy=False)[number]

    def _elapsed(self) -> float:
        return time.monotonic() - self.started

    def _out_of_time(self) -> bool:
        trials = self.study.get_trials(deepcopy=False)
        new = storage.next_new(trials, self.spec.trials) is not None
        more = new or storage.may_have_more(trials, self.spec.trials)
        return more or bool(promotable(self._climbers(), self.ladder))

    def _confirm(self) -> None:
        """Train the leaders again from new seeds, each for an equal share of the time kept for it.

        Where no clock decides, for as long as it takes from the start to the last rung below the end.
        Workers divide the repeats among themselves, and wait for each other's.
        """
        chosen = [
            t
            for t in confirm.finalists(self.study, self.ladder, self.spec.finalists)
            if TOP not in t.intermediate_values
        ]
        seeds = range(1, self.spec.confirm_seeds + 1)
        runs = [(trial, seed) for seed in seeds for trial in chosen]
        options = self.worker.options
        share = self.spec.timeout * (1 - self.spec.finale - self.spec.search_share)
        clocked = self._out_of_time()
        ours = runs[options.index % options.workers :: options.workers]
        rounds = math.ceil(len(runs) / options.workers)
        seconds = share / max(rounds, 1)
        for trial, seed in ours:
            done = confirm.repeats(self.study)
            if any((entry.trial, entry.seed) == (trial.number, seed) for entry in done):
                continue
            if earlier := [entry.steps for entry in done if entry.trial == trial.number]:
                steps = earlier[0]
            elif clocked:
                steps = max(1, int(seconds / trial.user_attrs["seconds_per_step"]))
            else:
                steps = self._config(trial.number).steps_at(self.ladder.shares()[-2])
            if not self._repeat(trial, seed, steps):
                return
        if clocked:
            patience = self.spec.timeout * (1 - self.spec.finale) - self._elapsed()
        else:  # a repeat takes about as long as its trial did, and others may be slower
            patience = 3 * rounds * max((trial.user_attrs["seconds"] for trial, _ in runs), default=0.0)
        self._wait_for_repeats({(trial.number, seed) for trial, seed in runs}, patience)
        if options.index == 0:
            for line in confirm.sentences(self.study):
                self.progress.say(line)

    def _repeat(self, trial: FrozenTrial, seed: int, steps: int) -> bool:
        """Train a finalist again, and write down what came of it; False if that was stopped."""
        options, worker = self.worker.options, self.worker
        label = f"trial {trial.number} again, seed {seed}"
        report = confirm.Retraining(label, steps, self.progress, worker.stop)
        folder = options.out / self.spec.name / f"confirm-{trial.number:04d}-{seed}"
        try:
            found = confirm.repeat(trial, seed, steps, worker.split, options.device, folder, report)
        except Stopped:
            return False
        shutil.rmtree(folder, ignore_errors=True)
        confirm.keep(self.study, found)
        return True

    def _wait_for_repeats(self, wanted: set[tuple[int, int]], patience: float) -> None:
        """Until all of these trials and seeds are in, those of others too; `patience` seconds at most."""
        deadline = time.monotonic() + patience
        while not self.worker.stop.requested and time.monotonic() < deadline:
            if wanted <= {(entry.trial, entry.seed) for entry in confirm.repeats(self.study)}:
                return
            time.sleep(MOMENT_S)

    def _finale(self) -> None:
        """Train the best trial that waits to its end.

        Where the search ended for lack of time, its length is made to fit the time that is left: at the
        start, and again on the way. Where it ended for its number of trials, no clock decides. Workers
        take one each, if there is a clock; else the leader is all there is to do.
        """
        while not self.worker.stop.requested:
            in_front = leader((c for c in self._climbers() if self._may_win(c)), self.ladder)
            if in_front is None or not (in_front.waits or self._time_for_another()):
                return
            clocked = self._out_of_time()
            waiting = self._waiting_best_first()
            in_time = [number for number in waiting if not clocked or self._seconds_over(number) <= 0]
            number = in_time[0] if in_time else None
            if number is None and not any(self._may_win(c) and not c.waits for c in self._climbers()):
                # There is to be a winner, even if it comes late.
                number = min(waiting, key=self._seconds_over, default=None)
            if number is None or self._finish(number, clocked):
                return

    def _may_win(self, climber: Climber) -> bool:
        """Whether a trial waits, has been trained to its end, or is on its last stretch with another worker."""
        trial = self._trial(climber.number)
        finishing = trial.state == TrialState.RUNNING and trial.user_attrs[GOAL] == TOP
        return climber.waits or TOP in climber.scores or finishing

    def _finish(self, number: int, clocked: bool) -> bool:
        """The last stretch of a trial; False if another worker was faster to take it."""
        if not clocked:
            return self._last_stretch(number)
        fewest = fewest_steps(self._trial(number).user_attrs["steps_done"])
        for share in LOOKS:
            done = self._trial(number).user_attrs["steps_done"]
            steps = max(self._affordable_steps(number), fewest, done + 1)
            config = self._config(number).with_length(steps, since=done)
            if not self._last_stretch(number, config, pause_at=done + math.ceil(share * (steps - done))):
                return False
            if self._trial(number).state != TrialState.WAITING or self.worker.stop.requested:
                break
        return True

    def _waiting_best_first(self) -> list[int]:
        """Trials that wait: by their repeats where there are any, then by rung, then by score."""
        waiting = [climber for climber in self._climbers() if climber.waits]
        by_rung = [c.number for rung in self.ladder.percents()[::-1] for c in ranked(waiting, rung)]
        confirmed = [n for n in confirm.best_first(confirm.repeats(self.study)) if n in by_rung]
        return list(dict.fromkeys(confirmed + by_rung))

    def _seconds_over(self, number: int) -> float:
        """How much later than this run's time (and a little more) the shortest way to the end would be over."""
        left = self.spec.timeout - self._elapsed()
        facts = self._trial(number).user_attrs
        needed = (fewest_steps(facts["steps_done"]) - facts["steps_done"]) * facts["seconds_per_step"]
        return float(needed + self._seconds_of_scores(number) - MOST_OVER * left)

    def _config(self, number: int) -> TrialConfig:
        return TrialConfig.model_validate_json(self._trial(number).user_attrs["config"])

    def _time_for_another(self) -> bool:
        """Whether there is time to train a trial to its end though one that is no worse has been."""
        left = self.spec.timeout - self._elapsed()
        return self._out_of_time() and left > self.spec.timeout * self.spec.finale / 2

    def _last_stretch(
        self, number: int, config: TrialConfig | None = None, pause_at: int | None = None
    ) -> bool:
        facts: dict[str, Any] = {GOAL: TOP}
        if config is not None:
            facts[LENGTH] = config.length
        trial = leases.take(self.study, self._trial(number), self.worker.sampler, **facts)
        if trial is None:
            return False
        self.worked = True
        self.worker.work_on(trial, pause_at)
        return True

    def _affordable_steps(self, number: int) -> int:
        """The length of the whole training that ends with the time of this run."""
        facts = self._trial(number).user_attrs
        left = (self.spec.timeout - self._elapsed()) * FINALE_SAFETY - self._seconds_of_scores(number)
        return int(facts["steps_done"] + max(left / facts["seconds_per_step"], 1))

    def _seconds_of_scores(self, number: int) -> float:
        """Time of the scores that are still to come, as far as the earlier ones tell."""
        facts, config = self._trial(number).user_attrs, self._config(number)
        done, scores = facts["steps_done"], len(json.loads(facts["rungs"]))
        each = max(facts["seconds"] - facts["seconds_per_step"] * done, 0.0) / max(scores, 1)
        to_come = sum(step > done for step in config.rungs()) + config.val_megapixels / config.rung_megapixels
        return float(each * to_come)
