import signal
import threading

import pytest

from minillm.train.stop import SIGNALS, Stop


@pytest.fixture
def handlers():
    """Own handlers that write down what came; afterwards the former ones are back."""
    came, before = [], {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, lambda number, frame: came.append(number))
    yield came
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_is_noted_and_the_second_does_at_once_what_it_always_did(handlers, capfd, number):
    with Stop("wait\n") as stop:
        assert not stop.requested
        signal.raise_signal(number)
        assert (stop.requested, handlers) == (True, [])
        signal.raise_signal(number)
        assert handlers == [number]
    assert capfd.readouterr().err == "wait\n"
    status = {signal.SIGINT: KeyboardInterrupt, signal.SIGTERM: SystemExit}[number]
    with pytest.raises(status) as ended:
        stop.end()
    assert getattr(ended.value, "code", 143) == 143  # 128 + 15, as a shell says


def test_afterwards_the_old_handlers_are_back_and_a_noted_signal_can_be_honoured(handlers):
    with Stop() as quiet:
        pass
    quiet.honour()
    signal.raise_signal(signal.SIGINT)
    assert handlers == [signal.SIGINT]
    with Stop() as stop:
        signal.raise_signal(signal.SIGTERM)
    stop.honour()
    assert handlers == [signal.SIGINT, signal.SIGTERM]


def test_one_inside_another_leaves_the_signal_to_it(handlers):
    with Stop() as outer:
        with Stop() as inner:
            signal.raise_signal(signal.SIGINT)
            assert (outer.requested, inner.requested) == (True, False)
        inner.honour()
    assert handlers == []


def test_an_ignored_signal_stays_ignored_and_another_thread_changes_nothing(handlers):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` and `&` do
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
    assert not stop.requested

    def other():
        with Stop():
            seen.append(signal.getsignal(signal.SIGTERM))

    seen, before = [], signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert seen == [before]


def test_a_handler_that_is_not_pythons_own_stays_too(handlers, monkeypatch):
    monkeypatch.setattr(signal, "getsignal", lambda number: None)
    with Stop() as stop:
        signal.raise_signal(signal.SIGINT)
    assert (stop.requested, handlers) == (False, [signal.SIGINT])


def test_a_message_that_cannot_be_written_stops_nothing(handlers, monkeypatch):
    def closed(*_):
        raise BrokenPipeError

    monkeypatch.setattr("os.write", closed)
    with Stop("wait\n") as stop:
        signal.raise_signal(signal.SIGINT)
    assert stop.requested
