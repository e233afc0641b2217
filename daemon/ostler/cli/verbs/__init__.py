"""The verbs of `ostler`, one module each with its typer `app`; the table of them is `ostler.cli.tree.VERBS`.

A verb imports what it needs itself, and nothing that another verb needs.
"""
