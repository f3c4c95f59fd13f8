from __future__ import annotations

import pytest

from fednb.config import PermitConfig
from fednb.errors import Refused
from fednb.policy.mode import MemberPolicy


def test_a_member_is_closed_unless_it_was_opened() -> None:
    policy = MemberPolicy("bank")
    with pytest.raises(Refused, match='"protocol-only": it runs no cells.*fed.align') as caught:
        policy.check_cells()
    assert (caught.value.member, caught.value.rule) == ("bank", "mode")
    assert not policy.releases("coefficients")


def test_an_open_member_can_be_locked_and_not_opened_again() -> None:
    policy = MemberPolicy("bank", "open", ["coefficients"])
    policy.check_cells()
    assert policy.mode == "open" and policy.releases("coefficients") and not policy.releases("rows")
    policy.lock()
    assert policy.mode == "protocol-only"
    with pytest.raises(Refused, match=r"was locked by fed\.lock\(\)"):
        policy.check_cells()


def test_an_unknown_mode_is_not_taken_for_an_open_one() -> None:
    with pytest.raises(ValueError, match="unknown mode 'guard'"):
        MemberPolicy("bank", "guard")


class Invited:
    def __init__(self, coordinator_at: str) -> None:
        self.coordinator_at = coordinator_at


def test_runs_of_a_coordinator_in_a_place_that_the_owner_does_not_accept_are_refused() -> None:
    policy = MemberPolicy("agency", accept_coordinator_at=["bank"])
    for fine in ("", "bank", "agency"):
        policy.check_run(Invited(fine))
    with pytest.raises(Refused, match="inside register's organisation") as caught:
        policy.check_run(Invited("register"))
    assert (caught.value.member, caught.value.rule) == ("agency", "coordinator apart")
    assert "accept" not in str(caught.value), "a refusal never suggests to weaken a policy"


def test_an_analyst_may_do_what_the_owner_named_and_nothing_else() -> None:
    permit = PermitConfig(tables=("loans",), protocols=("psi",), partners=("agency",), cells=False)
    policy = MemberPolicy("bank", "open", analysts={"ann": permit, "all": PermitConfig(("*",), ("*",), ("*",), True)})
    policy.check_analyst("ann", "psi", "loans", ["agency"])
    policy.check_analyst("all", "anything", "any", ["anybody"])
    for rule, asked in {
        "analysts.protocols": ("vertical_logistic", "loans", ["agency"]),
        "analysts.tables": ("psi", "payroll", ["agency"]),
        "analysts.partners": ("psi", "loans", ["agency", "telco"]),
    }.items():
        with pytest.raises(Refused, match="bank does not let ann use") as caught:
            policy.check_analyst("ann", *asked)
        assert caught.value.rule == rule
    with pytest.raises(Refused, match="none is allowed"):
        policy.check_analyst("stranger", "calibrate", "", [])
    policy.check_cells_of("all")
    for name in ("ann", "stranger"):
        with pytest.raises(Refused, match="runs no cells of"):
            policy.check_cells_of(name)
    MemberPolicy("bank").check_analyst("anybody", "psi", "loans", ["agency"])
