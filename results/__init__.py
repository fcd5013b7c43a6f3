"""Numbers by measurement and by citation, and the tables of the papers made from both.

A number is a record with a source: a JSON file a trial (`record.py`), or a line of `published/*.csv` (`published.py`).
`groups.py` says which trials may be compared and `stats.py` sums them up; `formats/NAME.py` holds a paper's tables as
data, `table.py` fills them in, `sheet.py` writes them; `leaderboard.py` is the overview. This package imports neither torch
nor any other package of the project: it knows records, not the code that made them.
"""
