-- What the stream waits for and since when, for `antenna status`. The next commit or heartbeat clears it.
ALTER TABLE ledger.head
    ADD COLUMN waiting_for text,
    ADD COLUMN waiting_since timestamptz,
    ADD CHECK ((waiting_for IS NULL) = (waiting_since IS NULL));
