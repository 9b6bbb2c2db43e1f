"""Bytes bound a micro-batch: literal batches in, the size of the next one out."""

from antenna_assets.streaming.batch_size import BATCH_BYTES, BatchSize

MOST = 600_000


def test_row_32_small_messages_leave_the_size_as_it_is() -> None:
    size = BatchSize()
    assert size.limit(MOST) == MOST
    assert not size.learn(MOST, MOST * 150, MOST)
    assert not size.learn(3, 300, MOST)
    assert not size.learn(0, 0, MOST)
    assert size.limit(MOST) == MOST


def test_row_32_after_a_batch_of_large_messages_the_next_ones_fit() -> None:
    size = BatchSize()
    assert size.learn(300, 300 * 2**20, MOST)
    assert size.limit(MOST) == BATCH_BYTES // 2**20 == 256
    # A batch that fits, or is not full, tells nothing of the next one.
    assert not size.learn(256, 256 * 2**20, MOST)
    assert not size.learn(10, 1_000, MOST)
    assert size.limit(MOST) == 256


def test_row_32_full_batches_of_small_messages_let_it_grow_again() -> None:
    size = BatchSize()
    size.learn(300, 300 * 2**20, MOST)
    assert size.learn(256, 256 * 150, MOST)
    assert size.limit(MOST) == MOST


def test_row_32_a_message_larger_than_a_batch_is_one_by_itself() -> None:
    size = BatchSize()
    assert size.learn(1, 2 * BATCH_BYTES, MOST)
    assert size.limit(MOST) == 1


def test_row_32_after_java_had_no_memory_for_a_batch_the_next_ones_have_half_of_its_bytes() -> None:
    size = BatchSize()
    size.out_of_memory(200, 200 * 2**20)
    assert size.limit(MOST) == 100
    size.out_of_memory(100, 100 * 2**20)
    assert size.limit(MOST) == 50
    assert size.learn(50, 60 * 2**20, MOST)
    assert size.limit(MOST) == 41
    # Never so few that nothing would go on.
    size.out_of_memory(2, 2 * 2**20)
    assert size.limit(MOST) == 8
