"""The mailbox between callbacks and worker."""

import threading

from mdnet_ros.nodes.mailbox import Mailbox


def test_the_newest_wins_and_the_replaced_comes_back():
    mailbox = Mailbox()
    assert mailbox.put(1) is None
    assert mailbox.put(2) == 1
    assert mailbox.take() == 2
    assert mailbox.put(3) is None


def test_closing_ends_the_wait_and_gives_back_what_was_left():
    mailbox = Mailbox()
    taken = []
    waiter = threading.Thread(target=lambda: taken.append(mailbox.take()))
    waiter.start()
    assert mailbox.close() is None
    waiter.join(10)
    assert taken == [None]
    left = Mailbox()
    left.put('x')
    assert left.close() == 'x'
    assert left.take() is None
    assert left.put('y') == 'y'


def test_between_threads_nothing_is_lost_uncounted_and_order_is_kept():
    mailbox, taken, replaced = Mailbox(), [], []

    def work():
        while (item := mailbox.take()) is not None:
            taken.append(item)

    worker = threading.Thread(target=work)
    worker.start()
    for item in range(1, 5001):
        if (lost := mailbox.put(item)) is not None:
            replaced.append(lost)
    left = mailbox.close()
    worker.join(10)
    everything = taken + replaced + ([left] if left is not None else [])
    assert sorted(everything) == list(range(1, 5001))
    assert taken == sorted(taken)
