"""Opens a notebook on a party's kernel from JupyterLab, nbclient or any other Jupyter client.

A kernelspec names it, and the party in its configuration:

    {"metadata": {"kernel_provisioner": {"provisioner_name": "fednb-party", "config": {"party": "bank"}}}}

What the client talks to is a stock ipykernel on the analyst's side with `fednb.notebook.attached` loaded. The party's
own kernel stays behind its agent, reached through the "cells" vocabulary and nothing else, so that a client's
debugger, history or comm requests end here.
"""

from __future__ import annotations

import sys
from typing import Any

from jupyter_client.provisioning.local_provisioner import LocalProvisioner
from traitlets import Unicode

from fednb.notebook.attached import PARTY, PROFILE


class PartyProvisioner(LocalProvisioner):
    """Launches a kernel attached to `party`."""

    party = Unicode("", help="the party, or the coordinator; $FEDNB_PARTY when empty").tag(config=True)
    profile = Unicode("", help="the federation's file or a member's folder; as for fednb.connect() when empty").tag(
        config=True
    )

    async def pre_launch(self, **kwargs: Any) -> dict[str, Any]:
        # the interpreter that Jupyter itself runs in has fednb, whatever `python` is on the path
        self.kernel_spec.argv = [
            *(sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"),
            "--ext=fednb.notebook.attached",
        ]
        given = {PARTY: self.party, PROFILE: self.profile}
        kwargs["env"] = {**kwargs.get("env", {}), **{name: value for name, value in given.items() if value}}
        return await super().pre_launch(**kwargs)
