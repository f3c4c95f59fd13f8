"""The demo's data: loans at a bank, invoices at an agency, drawn from a model that is written down here.

Every company is made up, so the demo can do what nobody may do in earnest: put both tables side by side and
ask how good a model on the joined table would have been.

The model, for company i (every draw independent, the seed decides all of them):

    s_i ~ N(0, 1)   strain: how short of cash the company is. Both sides see traces of it.
    q_i ~ N(0, 1)   trouble with customers: they pay late, cancel, leave. Only invoices show it.
    g_i ~ N(0, 1)   size.

    bank    loan_amount, term_months, company_age, leverage, debt_cover, line_use, arrears, enquiries
            are noisy functions of s and g
    agency  monthly_turnover, growth, volatility, top_customer, days_to_payment, overdue, credit_notes, months_billed
            are noisy functions of q, s and g

    P(default_i) = sigmoid(INTERCEPT + 1.20 s_i + 1.20 q_i + 0.55 (log loan_i - log turnover_i, standardised))

The last term is the heart of the story: a loan is heavy or light only against the turnover that must carry it. The
bank knows the numerator, the agency the denominator.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

Floats = npt.NDArray[np.float64]

SEED = 2020
ROWS = 6_000  # the bank's loans
FEWEST_ROWS = 2_000  # below, the confidence intervals swallow the story
SHARED = 0.75  # part of the bank's companies that the agency knows too
AGENCY_ROWS = 1.15  # the agency's companies, as a multiple of the bank's

STRAIN, CUSTOMERS, BURDEN = 1.20, 1.20, 0.55  # log-odds of default
INTERCEPT = -2.80  # about one loan in eight defaults


@dataclass(frozen=True)
class Tables:
    """What the two companies hold, as they would hand it to their own `fednb`."""

    loans: pd.DataFrame  # the bank's: sme_id, features, default
    invoices: pd.DataFrame  # the agency's: sme_id, features


def generate(rows: int = ROWS, seed: int = SEED) -> Tables:
    """The two tables of the demo.

    `rows` : loans at the bank; `round(1.15 * rows)` companies at the agency, of which `round(0.75 * rows)` are the
    bank's customers too. The same `rows` and `seed` give the same tables, to the last bit. ValueError below 2,000 rows.
    """
    if rows < FEWEST_ROWS:
        raise ValueError(
            f"the demo needs at least {FEWEST_ROWS:,} rows, not {rows:,}: with fewer the confidence intervals overlap"
        )
    shared, agency_rows = round(SHARED * rows), round(AGENCY_ROWS * rows)
    companies = rows + agency_rows - shared
    rng = np.random.default_rng([seed, rows])

    strain, customers, size = rng.standard_normal((3, companies))
    loan = 4.7 + 0.45 * size + 0.55 * rng.standard_normal(companies)  # natural log of thousands
    turnover = 3.9 + 0.75 * size + 0.35 * rng.standard_normal(companies)  # natural log of thousands a month
    burden = loan - turnover
    burden = (burden - burden.mean()) / burden.std()
    odds = INTERCEPT + STRAIN * strain + CUSTOMERS * customers + BURDEN * burden
    default = rng.random(companies) < 1.0 / (1.0 + np.exp(-odds))

    numbers = rng.choice(9 * 10**8, companies, replace=False) + 10**8  # nine digits
    at_bank = rng.permutation(rows)
    at_agency = rows - shared + rng.permutation(agency_rows)
    loans = _bank(rng, strain, size, loan).assign(default=default.astype(int)).iloc[at_bank]
    invoices = _agency(rng, strain, customers, turnover).iloc[at_agency]
    loans.insert(0, "sme_id", _written_by_bank(rng, numbers[at_bank]))
    invoices.insert(0, "sme_id", _written_by_agency(rng, numbers[at_agency]))
    return Tables(loans.reset_index(drop=True), invoices.reset_index(drop=True))


def _bank(rng: np.random.Generator, strain: Floats, size: Floats, loan: Floats) -> pd.DataFrame:
    n = len(strain)

    def seen(weight: float) -> Floats:
        """Strain through a dim glass: N(0, 1), correlated `weight` with it."""
        return np.asarray(weight * strain + np.sqrt(1 - weight**2) * rng.standard_normal(n), dtype=np.float64)

    table = pd.DataFrame(
        {
            "loan_amount": np.round(np.exp(loan), 1),  # thousands
            "term_months": rng.choice([12, 24, 36, 48, 60], n, p=[0.15, 0.25, 0.3, 0.15, 0.15]),
            "company_age": np.round(np.exp(2.1 + 0.2 * size - 0.2 * seen(0.4)), 1),  # years
            "leverage": np.round(np.clip(0.55 + 0.16 * seen(0.4), 0.02, 1.4), 3),  # debt by assets
            "debt_cover": np.round(1.6 - 0.45 * seen(0.45), 2),  # operating income by debt service
            "line_use": np.round(100 / (1 + np.exp(-0.2 - 0.9 * seen(0.5))), 1),  # % of the credit line
            "arrears": rng.poisson(np.exp(-1.3 + 0.5 * strain)),  # late instalments, last 12 months
            "enquiries": rng.poisson(np.exp(-0.2 + 0.25 * strain)),  # at the credit bureau, last 6 months
        }
    )
    _lose(rng, table, "leverage", 0.06)  # no accounts filed
    _lose(rng, table, "debt_cover", 0.04)
    return table


def _agency(rng: np.random.Generator, strain: Floats, customers: Floats, turnover: Floats) -> pd.DataFrame:
    n = len(strain)

    def seen(of_customers: float, of_strain: float = 0.0) -> Floats:
        rest = np.sqrt(1 - of_customers**2 - of_strain**2)
        mixed = of_customers * customers + of_strain * strain + rest * rng.standard_normal(n)
        return np.asarray(mixed, dtype=np.float64)

    table = pd.DataFrame(
        {
            "monthly_turnover": np.round(np.exp(turnover), 1),  # thousands, mean of 12 months
            "growth": np.round(4.0 - 14.0 * seen(0.45, 0.2), 1),  # %, year on year
            "volatility": np.round(np.exp(-1.2 + 0.4 * seen(0.4, 0.1)), 3),  # sd by mean of monthly turnover
            "top_customer": np.round(100 / (1 + np.exp(1.0 - 0.8 * seen(0.3))), 1),  # % of turnover
            "days_to_payment": np.round(np.clip(41 + 11 * seen(0.55), 5, 120)),
            "overdue": np.round(100 / (1 + np.exp(1.9 - 0.7 * seen(0.5, 0.2))), 1),  # % of invoices
            "credit_notes": np.round(100 / (1 + np.exp(3.2 - 0.6 * seen(0.4))), 2),  # % of turnover
            "months_billed": 12 - rng.binomial(12, 1 / (1 + np.exp(2.6 - 0.5 * seen(0.3, 0.3)))),  # of 12
        }
    )
    _lose(rng, table, "growth", 0.08)  # less than two years of history
    _lose(rng, table, "days_to_payment", 0.05)
    return table


def _lose(rng: np.random.Generator, table: pd.DataFrame, column: str, part: float) -> None:
    table.loc[rng.random(len(table)) < part, column] = np.nan


def _written_by_bank(rng: np.random.Generator, numbers: npt.NDArray[np.int64]) -> list[str]:
    """Registration numbers as three generations of the bank's own software stored them."""
    styles = rng.choice(3, len(numbers), p=[0.7, 0.2, 0.1])
    return [_write(number, style) for number, style in zip(numbers.tolist(), styles.tolist(), strict=True)]


def _written_by_agency(rng: np.random.Generator, numbers: npt.NDArray[np.int64]) -> list[str]:
    """The same numbers as people typed them on invoices."""
    styles = rng.choice([0, 2, 3, 4], len(numbers), p=[0.3, 0.3, 0.25, 0.15])
    return [_write(number, style) for number, style in zip(numbers.tolist(), styles.tolist(), strict=True)]


def _write(number: int, style: int) -> str:
    text = str(number)
    match style:
        case 0:
            return f"ZZ{text}"  # ZZ: a country code that is free for private use (ISO 3166-1)
        case 1:
            return f"zz{text}"
        case 2:
            return f"ZZ {text[:3]} {text[3:6]} {text[6:]}"
        case 3:
            return f"zz-{text[:3]}-{text[3:6]}-{text[6:]}"
        case _:
            return f" ZZ {text} "
