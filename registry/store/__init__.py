"""The one owner of SQL: everything learnd remembers, and every change of it in one transaction."""
