"""What JupyterLab knows of the federation: the kernel's side of the extension in `extensions/lab`.

`log` keeps which cell runs where, `feed` asks for members, tables and runs, `channel` tells both to the page over a
comm, in the vocabulary of `messages`.
"""
