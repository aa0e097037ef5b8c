# SPDX-License-Identifier: GPL-2.0-or-later
"""What waits, what is forgotten, and what a child, a thread and a new program have of it."""

import pytest

from harness.signals import SigInfo, SignalState, kernel_info
from harness.signals.actions import Action
from harness.signals.alternate_stack import AlternateStack
from harness.signals.numbers import SIG_IGN, UNBLOCKABLE, bit
from harness.signals.pending import QUEUE_LIMIT, Pending
from harness.signals.siginfo import queued_info
from harness.signals.timers import Timer

USR1, ALRM, CHLD, CONT, STOP, TSTP = 10, 14, 17, 18, 19, 20
HANDLER = Action(0x400000)


@pytest.fixture
def state() -> SignalState:
    state = SignalState()
    state.actions[USR1] = HANDLER
    return state


def test_a_standard_signal_waits_once_with_what_came_first() -> None:
    pending = Pending()
    assert pending.add(SigInfo(USR1, 1))
    assert pending.add(SigInfo(USR1, 2))
    assert pending.take(USR1).code == 1
    assert pending == Pending()


def test_realtime_signals_wait_in_the_order_of_sending() -> None:
    pending = Pending()
    for value in range(5):
        assert pending.add(queued_info(40, 2, 0, value))
    assert [pending.take(40).fields[8] for _ in range(5)] == [0, 1, 2, 3, 4]
    assert pending == Pending()


def test_a_queue_is_never_longer_than_its_limit() -> None:
    """``sigqueue()`` fails, ``kill()`` does not, but nothing is known of what it sent."""
    pending = Pending()
    for value in range(QUEUE_LIMIT):
        assert pending.add(queued_info(40, 2, 0, value))
    assert not pending.add(queued_info(40, 2, 0, 1))
    assert pending.add(SigInfo(41, 0, b"\x02\0\0\0"))
    assert pending.add(SigInfo(USR1, 1))
    assert len(pending.queue) == QUEUE_LIMIT
    assert pending.take(41) == SigInfo(41, 0)
    assert pending.take(USR1) == SigInfo(USR1, 0)
    assert pending.signals == bit(40)


def test_what_is_ignored_is_not_even_queued(state: SignalState) -> None:
    state.actions[USR1] = Action(SIG_IGN)
    state.send(kernel_info(USR1))
    state.send(kernel_info(CHLD))
    assert not state.pending
    state.set_blocked(bit(USR1))
    state.send(kernel_info(USR1))
    assert state.pending == bit(USR1)
    assert not state.has_deliverable()


def test_a_thread_gets_what_was_sent_to_it_before_what_all_share(state: SignalState) -> None:
    other = state.thread()
    state.send(SigInfo(USR1, 1))
    other.send_to_thread(SigInfo(12, 2))
    assert [info.code for info in (other.dequeue(), other.dequeue()) if info] == [2, 1]
    assert not state.has_deliverable()


def test_a_thread_shares_actions_and_a_child_copies_them(state: SignalState) -> None:
    state.stack, state.blocked = AlternateStack(0x1000, 8192), bit(ALRM)
    state.group.timers.timers[0] = Timer(100)
    state.send(kernel_info(12))
    thread, child, sharing = state.thread(), state.fork(), state.fork(share_actions=True)
    clone = state.fork(keep_stack=False)
    state.actions[USR1] = Action(SIG_IGN)
    assert thread.actions[USR1].handler == sharing.actions[USR1].handler == SIG_IGN
    assert child.actions[USR1] == HANDLER
    assert child.blocked == thread.blocked == bit(ALRM)
    assert (child.stack, clone.stack, thread.stack) == (
        state.stack,
        AlternateStack(),
        AlternateStack(),
    )
    assert (child.pending, thread.pending) == (0, bit(12))
    assert child.group.timers.next_deadline() is None


def test_exec_keeps_what_is_ignored_blocked_and_waiting(state: SignalState) -> None:
    state.actions[12] = Action(SIG_IGN, 1 << 28, 0, bit(3))
    state.stack, state.blocked = AlternateStack(0x1000, 8192), bit(USR1)
    state.group.timers.timers[0] = Timer(100)
    sharing = state.fork(share_actions=True)
    state.send(kernel_info(USR1))
    state.exec()
    assert (state.actions[USR1], state.actions[12]) == (Action(), Action(SIG_IGN))
    assert (state.stack, state.blocked, state.pending) == (AlternateStack(), bit(USR1), bit(USR1))
    assert state.group.timers.next_deadline() == 100
    assert sharing.actions[USR1] == HANDLER


def test_stopping_and_going_on_forget_each_other(state: SignalState) -> None:
    thread = state.thread()
    state.set_blocked(bit(TSTP) | bit(CONT))
    thread.set_blocked(bit(TSTP) | bit(CONT))
    state.send(kernel_info(TSTP))
    thread.send_to_thread(kernel_info(TSTP))
    state.send(kernel_info(CONT))
    assert state.pending | thread.pending == bit(CONT)
    thread.send_to_thread(kernel_info(TSTP))
    assert (state.pending, thread.pending) == (0, bit(TSTP))


def test_kill_ends_a_stop_without_telling_of_going_on(state: SignalState) -> None:
    state.group.stop(STOP)
    state.send(kernel_info(9))
    assert not state.stopped
    assert not state.group.continue_report


def test_a_mask_for_the_time_of_waiting_comes_back(state: SignalState) -> None:
    state.set_blocked(bit(USR1))
    state.suspend(bit(ALRM) | UNBLOCKABLE)
    assert state.blocked == bit(ALRM)
    state.suspend(bit(CHLD))
    state.resume()
    assert state.blocked == bit(USR1)
    state.resume()
    assert state.blocked == bit(USR1)


def test_timers_are_not_late_twice(state: SignalState) -> None:
    """Ten times over its time, it has expired once, and its next time is still to come."""
    state.actions[ALRM] = HANDLER
    state.group.timers.timers[0] = Timer(100, 10)
    state.group.expire_timers(99)
    assert not state.pending
    state.group.expire_timers(205)
    assert state.pending == bit(ALRM)
    assert state.group.timers.next_deadline() == 210


def test_timers_of_the_program_s_own_time(state: SignalState) -> None:
    for signal in (26, 27):
        state.actions[signal] = HANDLER
    timers = state.group.timers
    timers.timers[1], timers.timers[2] = Timer(100), Timer(100)
    timers.user_time, timers.cpu_time = 50, 100
    state.group.expire_timers(10**12)
    assert state.pending == bit(27)
    timers.user_time = 100
    state.group.expire_timers(10**12)
    assert state.pending == bit(27) | bit(26)
    assert timers.next_deadline() is None
