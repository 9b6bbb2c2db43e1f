"""Quotas: changing them for users and plans, judging hours by those of now, and which verdicts change."""
