"""Alerts and their notices: who watches the quotas, and how a row of `outbox` comes to a webhook, a mail or a
line of a log.

- `watch.py`: raises, confirms, corrects and resolves alerts, in a process of its own.
- `rules.py`: at which percentages; `history.py`: what a rule would have sent.
- `channels.py`, `secret_files.py`: where notices are sent, from a file.
- `webhook.py`, `mail.py`, `log_line.py`: the senders, made in `senders.py`; `addresses.py` and `deadline.py`
  bound where they connect and for how long.
- `outcome.py`: what an attempt came to, and when the next one is.
- `deliveries.py`: the SQL of the deliverer; `deliver.py`: its workers.
- `review.py`: listing, retrying and testing by a person.
- `overview.py`, `gauges.py`: what `antenna status` and the metrics show.

When an alert changes is decided in `domain/alert_rule.py`, and kept by `ledger/alerts.py`.
"""
