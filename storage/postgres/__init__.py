"""A site's tables in PostgreSQL. asyncpg is imported in this folder only.

`schema/tables.sql` is what folding the log makes; `*_fold.py` write it, `*_view.py` read it.
"""
