"""`antenna report`: one page about an hour or a day, for a mail, a CI artifact, or readers without Superset.

`figures.py` reads the serving views, `charts.py` draws, `page.py` renders the page.
"""
