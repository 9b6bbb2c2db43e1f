"""One small hour whose events and results are kept as files, for a CI that works as a user does. See `docs/ci.md`."""
