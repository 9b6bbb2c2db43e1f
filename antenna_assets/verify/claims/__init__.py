"""The claims on a published hour: what must hold, each a function that returns a verdict.

Nothing here imports Dagster, and nothing is repaired: `defs/checks.py` turns the claims into asset checks.
"""

_ON_BYTES = ("bytes_are_conserved", "keys_are_unique", "no_negative_bytes")

CLAIMS = {
    "raw_parquet": (*_ON_BYTES, "volume_is_usual"),
    "enriched_usage": _ON_BYTES,
    "bytes_agg_antenna_1h": (*_ON_BYTES, "live_equals_hourly"),
    "bytes_agg_user_1h": (*_ON_BYTES, "live_equals_hourly", "known_users_share"),
    "bytes_agg_app_1h": (*_ON_BYTES, "live_equals_hourly"),
    "users_over_quota_1h": ("keys_are_unique", "no_negative_bytes", "over_quota_is_exact", "hours_are_fresh"),
}
"""The claims on each of the six assets."""
