"""The ledger, the schema `ledger`: the source of truth for what was read, closed, published and certified.

    head, offsets, progress      the head row of the topic, committed offsets, the backlog in Kafka
    partition_starts, loss       where reading a partition begins; accepting what Kafka lost
    batch, commit, replay        the content of a batch, and the transactions that commit one
    files, landing               the files of an hour, and the facts of its landing
    closed_hours, full_hours     closing hours; hours that accept no more events
    reopen                       opening hours again that a wrong clock closed
    generations, seal            the snapshots of an hour
    hours_to_publish             what is left to publish, `republish_wait` when late rows are due
    newcomers, corrections       hours to publish again as a user became known, or a quota was corrected
    requests, failing            runs that were asked for, and what failed; of hours and of periods
    publications, certificate    what is published, behind its fence, and the certificates
    period_..., periods_to_...   generations, publications and candidates of days and months
    chain, anchors               certificates chained by their hashes, hours and periods; hashes kept outside
    lake_identity                which lake belongs to this ledger
    first_partition              the first hourly partition
    stream_lock, blocked         the lock of the one stream, and who blocks the stream

Functions take an open connection in autocommit mode and begin the transactions that they need. Queries that
only one command or check needs are with it, in `verify/`, `operations/` and `simulator/`.
"""
