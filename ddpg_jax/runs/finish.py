"""Runs a session to its end: compiles, trains, writes what a finished run leaves, and says how it went."""

import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import jax

from ddpg_jax.population.programs import Programs, compile_programs
from ddpg_jax.processes.files import write_text
from ddpg_jax.processes.team import LOST, LostProcessError, ToldError
from ddpg_jax.results import page, plots, report, sweep_plots, tables
from ddpg_jax.results.history import History
from ddpg_jax.results.summary import LAST_EPISODES, Seconds, Summary, WaveResult, summarize
from ddpg_jax.runs import resuming, wave
from ddpg_jax.runs.course import MAX_CHUNK
from ddpg_jax.runs.json_files import write_info, write_json
from ddpg_jax.runs.logs import LOGS, Log
from ddpg_jax.runs.options import Options
from ddpg_jax.runs.plan import ANNOUNCED_SECONDS
from ddpg_jax.runs.policy import save_policy
from ddpg_jax.runs.session import Session
from ddpg_jax.runs.start import announce


def run(session: Session) -> int:
    """Trains, evaluates and reports; returns the exit status."""
    try:
        with ExitStack() as stack:
            programs = prepare_training(session)
            stack.enter_context(session.progress)
            session = replace(session, logs=_open_logs(session, stack))
            results = wave.train_waves(session, programs)
        return session.team.first(lambda: write_report(session, results))
    except wave.Stopped as stopped:
        return _stopped(session, stopped)
    except LostProcessError:
        return LOST  # the process that has started the others knows which one is gone
    except ToldError:
        return 1
    except (OSError, MemoryError, jax.errors.JaxRuntimeError) as error:
        if isinstance(error, jax.errors.JaxRuntimeError) and "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else "there is not enough memory"
        print(f"error: {reason}; {resuming.how_to_resume(session.options, session.folder)}", file=sys.stderr)
        return 1
    finally:
        session.folder.leave()


def prepare_training(session: Session) -> list[Programs]:
    """Announces the run, compiles the programs of each part, and defers signals from here on."""
    if session.checkpoint is not None:
        session.stopwatch.restore(session.checkpoint.saved.seconds)
    announce(session.console, session.options, session.plan)
    if len(session.waves) > len(session.plan.parts) or session.plan.seconds > ANNOUNCED_SECONDS:
        session.console.print(*session.plan.lines(), sep="\n")
    with session.stopwatch.time("compiling"):
        programs = _compile_parts(session)
    session.interruption.defer(session.console.print)
    return programs


def _compile_parts(session: Session) -> list[Programs]:
    """Returns the programs of each part."""
    parts, programs = session.plan.parts, []
    spinner = "dots" if session.console.encoding.startswith("utf") else "line"
    with session.console.status("compiling", spinner=spinner) as status:
        for index, part in enumerate(parts):
            if len(parts) > 1:
                status.update(f"compiling program {index + 1} of {len(parts)}")
            compiled = compile_programs(
                part.setup,
                part.placement,
                max_steps=MAX_CHUNK,
                num_starts=session.config.eval_episodes,
                hyperparameters=jax.tree.structure(session.hyperparameters(part.agents[:1])),
            )
            programs.append(compiled)
    return programs


def _open_logs(session: Session, stack: ExitStack) -> tuple[Log, ...]:
    """Returns the requested logs, which the stack closes."""
    options = session.options
    settings = {"seeds": options.seeds, "seed": options.seed, **options.config.to_dict()}
    names = options.log if session.team.is_first else ()
    return tuple(stack.enter_context(LOGS[name].open(session.folder.path, settings)) for name in names)


def _stopped(session: Session, stopped: wave.Stopped) -> int:
    """Says how a run that was stopped can be resumed; returns the exit status."""
    number = session.interruption.number or signal.SIGTERM
    if session.team.is_first:
        where = f"by {signal.Signals(number).name} at step {stopped.env_steps:,}"
        advice = resuming.how_to_resume(session.options, session.folder)
        print(f"stopped {where}; {advice}", file=sys.stderr)
    return 128 + number


def write_report(session: Session, results: list[WaveResult]) -> int:
    """Writes what a finished run leaves, and shows its result; returns the exit status."""
    options, watch, console = session.options, session.stopwatch, session.console
    summary = summarize(
        results,
        [(dict(point.values), point.config) for point in session.plan.points],
        session.environment,
        preset=options.preset,
        seed=options.seed,
        num_seeds=options.seeds,
        final_episodes=session.config.final_episodes,
        device=session.plan.device,
        seconds=Seconds(watch.compiling, watch.training, watch.evaluating, watch.saving),
    )
    summary = write_results(session, [result.history for result in results], summary)
    if summary.points:
        console.print(report.ranking_table(summary), report.conclusion(summary), sep="\n")
    console.print(report.result_table(summary, str(session.folder.path)))
    return _status(summary, options)


def write_results(session: Session, histories: list[History], summary: Summary) -> Summary:
    """Writes tables, policies and figures, and last the summary; returns it with the seconds of the whole run."""
    path, environment = session.folder.path, session.environment
    session.write_tables(histories)
    for part in session.plan.parts:
        agents = part.agents
        save_policy(
            path / "policy" / part.name,
            session.config_of(agents.start),
            environment,
            num_agents=len(agents),
            diverged_agents=[agent - agents.start for agent in summary.diverged_agents if agent in agents],
            best_agent=summary.best_of(agents),
        )
    write_info(path, session.config)
    _draw(session, histories, summary)
    summary = replace(summary, wall_seconds=session.stopwatch.wall)
    write_text(path / "report.html", page.report_page(path, summary))
    write_json(path / "summary.json", summary.to_dict())
    return summary


def _draw(session: Session, histories: list[History], summary: Summary) -> None:
    """Draws the figures, and writes the table that belongs to that of a sweep.

    A figure that cannot be drawn costs a note, not the results of the run.
    """
    title = summary.subject
    figures: dict[str, Callable[[Path], None]] = {
        "learning_curve.png": lambda path: plots.learning_curve(path, histories, title, summary.eval_optimum),
        "training_returns.png": lambda path: plots.training_returns(path, histories, title, LAST_EPISODES),
    }
    if summary.points:
        write_text(session.folder.path / "points.csv", tables.points_csv(summary))
        figures = {
            "learning_curve.png": lambda path: sweep_plots.learning_curves(path, histories, summary),
            "sweep.png": lambda path: sweep_plots.swept(path, summary),
        }
    for name, draw in figures.items():
        try:
            with plots.own_style():
                draw(session.folder.path / name)
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            print(f"note: {name} could not be drawn: {reason}", file=sys.stderr)


def _status(summary: Summary, options: Options) -> int:
    """Returns the exit status of a finished run; where diverged agents make it 1, prints a line that says so."""
    diverged = summary.diverged
    if not diverged or (len(diverged) < options.num_agents and not options.fail_on_divergence):
        return 0
    named = ", ".join(f"{agent} at step {step:,}" for agent, step in diverged.items())
    print(f"error: {len(diverged)} of {options.num_agents} agents diverged: {named}", file=sys.stderr)
    return 1
