"""The delivery of notices: from a row of `outbox` to a webhook, a mail or a line of a log.

- `channels.py`, `secret_files.py`: where notices are sent, from a file.
- `webhook.py`, `mail.py`, `log_line.py`: the senders, made in `senders.py`; `addresses.py` and `deadline.py`
  bound where they connect and for how long.
- `outcome.py`: what an attempt came to, and when the next one is.
- `deliveries.py`: the SQL of the deliverer; `deliver.py`: its workers.
- `review.py`: listing, retrying and testing by a person.

What a notice is and who writes it is not decided here: see `ledger/outbox.py`.
"""
