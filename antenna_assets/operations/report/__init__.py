"""`antenna report`: one page on an hour or a day, for those without Superset, a mail or a CI artifact.

`period.py` says of what, `figures.py` reads the serving views, `charts.py` draws and `page.py` puts it together.
"""
