"""What must hold of an hour that is published, each claim a function that looks and says what it found.

Nothing here knows Dagster: `defs/checks.py` makes its asset checks of these. Nothing here is repaired either.
"""

_OF_EVERY_AMOUNT = ("bytes_are_conserved", "keys_are_unique", "no_negative_bytes")

CLAIMS = {
    "raw_parquet": (*_OF_EVERY_AMOUNT, "volume_is_usual"),
    "enriched_usage": _OF_EVERY_AMOUNT,
    "bytes_agg_antenna_1h": (*_OF_EVERY_AMOUNT, "live_equals_hourly"),
    "bytes_agg_user_1h": (*_OF_EVERY_AMOUNT, "live_equals_hourly", "known_users_share"),
    "bytes_agg_app_1h": (*_OF_EVERY_AMOUNT, "live_equals_hourly"),
    "users_over_quota_1h": ("keys_are_unique", "no_negative_bytes", "over_quota_is_exact", "hours_are_fresh"),
}
"""The claims on each of the six assets."""
