"""Signals that stop a run: in a process of its own, and within another program."""

import os
import signal
import subprocess
import sys
import threading

import pytest

from ddpg_jax.training.signals import StopSignals

SCRIPT = """
import hashlib, os, signal, sys, time
from ddpg_jax.training.signals import StopSignals
signal.signal(signal.SIGALRM, lambda number, frame: print('alarm'))  # of an environment with a time limit
with StopSignals(ends_process=True) as stop:
    stop.advice = lambda: "resume with: go"
    if "defer" in sys.argv:
        stop.defer(lambda text: print(text, flush=True))
    for name in sys.argv[2:]:
        os.kill(os.getpid(), signal.Signals["SIG" + name])
        time.sleep(0.2)
    if not sys.argv[2:]:
        print("busy", flush=True)
        hashlib.pbkdf2_hmac("sha256", b"a", b"b", 200_000_000)  # keeps Python's signal handlers waiting for minutes
    print("ends with", stop.number, stop.requested)
"""


COMMAND = [sys.executable, "-c", SCRIPT]


def result(*words):
    done = subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "USR1", "USR2", "XCPU"])
def test_command_ends_at_once_before_it_defers_signals(name):
    number = signal.Signals[f"SIG{name}"]
    assert result("now", name) == (128 + number, "", f"ended by SIG{name}; resume with: go\n")


@pytest.mark.parametrize("names", [["INT"], ["USR1"], ["TERM", "TERM"], ["INT", "TERM"]])
def test_command_that_defers_signals_only_notes_the_first(names):
    """Schedulers send SIGTERM twice."""
    again = "again " if names[0] == "INT" else ""
    line = f"SIG{names[0]}: stopping after the current chunk; Ctrl-C {again}ends the run at once\n"
    assert result("defer", *names) == (0, f"{line}ends with {int(signal.Signals['SIG' + names[0]])} True\n", "")


@pytest.mark.parametrize("first", ["INT", "TERM"])
def test_second_sigint_ends_a_command_at_once(first):
    status, out, err = result("defer", first, "INT")
    assert (status, err) == (130, "ended by SIGINT; resume with: go\n")
    assert len(out.splitlines()) == 1


def test_command_listens_while_a_compiled_program_keeps_python_waiting():
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([*COMMAND, "defer"], text=True, **pipes) as process:
        assert process.stdout.readline() == "busy\n"
        process.send_signal(signal.SIGINT)
        assert process.stdout.readline().startswith("SIGINT: stopping after the current chunk")
        process.stdout.close()  # nobody reads the output any more
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=10) == 130
        assert process.stderr.read() == "ended by SIGINT; resume with: go\n"


def test_signals_that_the_program_handles_or_ignores_do_not_stop_a_command():
    assert result("now", "ALRM") == (0, "alarm\nends with None False\n", "")
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as `nohup` does
    try:
        assert result("now", "HUP") == (0, "ends with None False\n", "")
    finally:
        signal.signal(signal.SIGHUP, before)


def handlers():
    names = ("SIGINT", "SIGTERM", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")
    return {name: signal.getsignal(signal.Signals[name]) for name in names}


@pytest.mark.parametrize("ends_process", [False, True])
def test_handlers_and_descriptor_of_the_program_are_restored(ends_process):
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before, wakeup = handlers(), signal.set_wakeup_fd(writer)
    try:
        with StopSignals(ends_process) as stop:
            stop.defer(print)
            assert handlers() != before
        assert handlers() == before
        assert signal.set_wakeup_fd(-1) == writer
    finally:
        signal.set_wakeup_fd(wakeup)
        os.close(reader)
        os.close(writer)


def test_library_notes_the_first_ctrl_c_and_raises_at_the_second():
    said = []
    with pytest.raises(KeyboardInterrupt), StopSignals(ends_process=False):  # before it defers signals
        signal.raise_signal(signal.SIGINT)
    with StopSignals(ends_process=False) as stop:
        stop.defer(said.append)
        stop.defer(said.append)  # before each setup of a sweep
        signal.raise_signal(signal.SIGINT)
        assert (stop.number, stop.requested) == (signal.SIGINT, True)
        assert said == ["SIGINT: stopping after the current chunk; Ctrl-C again ends the run at once"]
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGINT)


def test_library_notes_signals_of_schedulers_and_leaves_the_programs_own_handlers():
    received = []
    numbers = signal.SIGUSR1, signal.SIGINT
    before = [signal.signal(number, lambda number, frame: received.append(number)) for number in numbers]
    try:
        with StopSignals(ends_process=False) as stop:
            stop.defer(lambda text: None)
            signal.raise_signal(signal.SIGUSR1)
            assert (received, stop.number) == ([signal.SIGUSR1], None)
            for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGUSR2):
                signal.raise_signal(number)
            assert stop.number == signal.SIGTERM
            signal.raise_signal(signal.SIGINT)  # the second is the program's
            assert received == [signal.SIGUSR1, signal.SIGINT]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


@pytest.mark.parametrize("ends_process", [False, True])
def test_nothing_is_handled_in_another_thread(ends_process):
    before, found = handlers(), []

    def train():
        with StopSignals(ends_process) as stop:
            stop.defer(print)
            found.append(handlers())

    thread = threading.Thread(target=train)
    thread.start()
    thread.join()
    assert found == [before]
