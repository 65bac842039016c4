"""The command `python -m ddpg_jax.tune`, and `ddpg_jax.tune`: refusals, kills, and what a folder holds at the end."""

import json
import signal
import subprocess
import sys

import command
import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage
from optuna.trial import TrialState
from small_runs import SMALL

import ddpg_jax.tune
from ddpg_jax.config import Config

WORDS = (*command.SMALL, "--tune", "actor_lr=loguniform:1e-4,1e-2", "--tune", "hidden_sizes=8,8x8", "--seeds", "2",
         "--trials", "6", "--batch", "3", "--final-seeds", "5", "--out", "tune")  # fmt: skip


def execute(*words, folder):
    return command.execute(*words, folder=folder, module="tune")


def study_of(folder) -> optuna.Study:
    """Returns the study in a folder, as a user of Optuna reads it."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.log")))
    return optuna.load_study(study_name=None, storage=storage)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((), "error: tune is not given, but must name what to tune"),
        (("--tune", "tau=0.1,0.2", "--trials", "0"), "error: trials is 0, but must be a whole number >= 1"),
        (("--tune", "tau=0.1,0.2", "--trails", "3"), "error: unknown option --trails; did you mean --trials?"),
        (("--tune", "tau=0.1,0.2", "--env-id", "nothing"), "error: env_id is 'nothing', which"),
        (
            ("--tune", "tau=0.1,0.2", "--storage", "nothing"),
            "error: storage is nothing, but must be one that Optuna can",
        ),
        (
            ("--tune", "batch_size=8,16", "--method", "pbt"),
            "error: tune names batch_size, but must name with method pbt",
        ),
        (("--resume", "nothing"), "error: resume is nothing, but must be the folder of a search"),
    ],
)
def test_bad_input_is_refused_in_a_line_and_leaves_nothing(tmp_path, monkeypatch, words, message):
    monkeypatch.chdir(tmp_path)
    assert command.refused(ddpg_jax.tune.main, *command.SMALL, *words).startswith(message)
    assert not [*tmp_path.iterdir()]


def test_help_needs_neither_jax_nor_optuna():
    script = "import sys, ddpg_jax.tune\ntry: ddpg_jax.tune.main(['--help'])\n" \
             "except SystemExit: print([name for name in ('jax', 'optuna') if name in sys.modules])"  # fmt: skip
    words = [sys.executable, "-c", script]
    outcome = subprocess.run(words, capture_output=True, text=True, check=True, cwd=command.REPOSITORY)
    assert "--tune" in outcome.stdout
    assert outcome.stdout.endswith("[]\n")


@pytest.mark.slow
def test_a_search_that_is_killed_continues_where_it_was_told(tmp_path):
    folder = tmp_path / "tune"
    process = command.start(*WORDS, folder=tmp_path, module="tune")
    command.wait_for(lambda: (folder / "tune.json").exists() and len(study_of(folder).trials) > 3)
    process.kill()
    process.communicate()
    before = [trial for trial in study_of(folder).trials if trial.state.is_finished()]
    outcome = execute("--resume", "tune", folder=tmp_path)
    assert outcome.status == 0
    trials = study_of(folder).trials
    done = [trial for trial in trials if trial.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    assert len(done) == 6
    assert [trials[trial.number].values for trial in before] == [trial.values for trial in before]
    assert "seeds that the search has not used" in outcome.out
    best = max((trial for trial in done if trial.state == TrialState.COMPLETE), key=lambda trial: trial.value)
    config = Config.from_dict(json.loads((folder / "best.json").read_text()))
    assert config.actor_lr == best.params["actor_lr"]
    final = ddpg_jax.load(folder / f"final-trial-{best.number}")
    assert [each.config.actor_lr for each in final.configs] == [1e-3, config.actor_lr]
    assert final.seeds == range(2, 7)
    page = (folder / "report.html").read_text()
    assert page.count("<svg") >= 4  # the comparison, two fields, the curves; the importance, if enough trials stayed
    refused = execute("--resume", "tune", "--trials", "5", folder=tmp_path)
    assert (refused.status, refused.err.split(" (")[0]) == (2, "error: trials is 5, but must be at least 6, as in tune")
    longer = execute("--resume", "tune", "--trials", "7", "--final-seeds", "6", folder=tmp_path)
    assert longer.status == 0
    assert len(study_of(folder).trials) == len(trials) + 1
    assert {ddpg_jax.load(each).seeds for each in folder.glob("final-trial-*")} >= {range(2, 8)}
    assert "over 6 pairs of seeds" in longer.out


def test_a_signal_ends_a_search_with_the_line_that_resumes_it(tmp_path):
    process = command.start(*WORDS, folder=tmp_path, module="tune")
    command.wait_for(lambda: (tmp_path / "tune/tune.json").exists())
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "-m ddpg_jax.tune --resume tune" in err


def test_a_population_in_memory_is_compared_with_its_schedule():
    tuning = ddpg_jax.tune(SMALL, {"actor_lr": "loguniform:1e-4,1e-2"}, method="pbt", trials=5, seeds=1,
                           final_seeds=5, progress=False)  # fmt: skip
    assert [run.name for run in tuning.comparison.runs] == ["defaults", "best", "schedule"]
    assert tuning.best == SMALL.replace(**tuning.values)
    assert tuning.result.seeds == range(5, 10)
    assert 1e-4 <= tuning.values["actor_lr"] <= 1e-2
