"""fednb in a notebook: `%load_ext fednb`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from IPython.core.interactiveshell import InteractiveShell

    from fednb.notebook.session import Session


def load(shell: InteractiveShell) -> Session:
    """Add the magics, completion and widgets to this IPython. Loading again changes nothing.

    Returns the session; `session.use(federation)` does what `%fed connect` does, with a federation at hand.
    """
    import atexit

    from fednb.notebook import completion, views
    from fednb.notebook.lab import channel
    from fednb.notebook.magics import Magics
    from fednb.notebook.session import Session

    loaded = getattr(shell.magics_manager.magics["line"].get("fed"), "session", None)
    if isinstance(loaded, Session):
        return loaded
    session = Session(shell)
    Magics(shell, session).register()
    completion.install(shell, completion.Completer(session))
    views.install(shell, session.show_view)
    session.owner.open_all()
    page = channel.open(session)
    if page is not None:
        atexit.register(page.close)
    atexit.register(session.close)  # members learn at once that nobody listens any more
    return session
