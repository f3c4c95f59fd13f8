"""The service described for its callers: an OpenAPI 3.1 document, made of the very types that requests are read into.

The page that shows it is one file without scripts and without anything from elsewhere: a bank's own network has no way
out, and a page that loads a stranger's script could read what is typed into it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Mapping
from typing import Any

import msgspec

from fednb.serving.service import Answer
from fednb.version import __version__


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """What the service answers with."""

    kind: str
    version: str
    checksum: str
    label: str
    parties: dict[str, int]  # by party: how many features it brings
    features: dict[str, str]  # of a request: "number" or "text", and "or null" where the model has a place for that
    meaning: str
    fallback: dict[str, str] | None
    falls_back_on: list[str]
    overrides: list[dict[str, Any]]  # of a scorecard's points: which, by how much, and why
    saved_with: str  # version of fednb


class Ready(msgspec.Struct, frozen=True):
    """Whether the service can score now."""

    ready: bool  # it can: federated, or by its fallback
    federated: bool
    fallback: bool
    why: str = ""
    run: str = ""
    rows_since: float = 0.0  # unix seconds: when the other parties' rows were taken


class Problem(msgspec.Struct, frozen=True):
    """A request that was not scored, because of the request."""

    error: str
    field: str = ""  # "features.income"


CODES = {
    "200": "A score. Its status: federated, all parties took part; or fallback, the own model of this party answered.",
    "401": "The token is missing or wrong.",
    "403": "No score: another party's policy refuses, or its requests of the day are used up.",
    "404": "No score: the applicant is not known where its row would be.",
    "409": "No score: the model, or a table, is not what it was trained with.",
    "413": "The body is too large.",
    "415": "The body is not declared as application/json.",
    "422": "The request does not fit the model; `field` says where.",
    "503": "No score: a party is not there, and there is no fallback.",
    "504": "No score: a party did not answer in time, and there is no fallback.",
}


def document(applicant: type[msgspec.Struct], token: bool) -> dict[str, Any]:
    """The OpenAPI document of a service whose requests are of this type."""
    (asked, answer, model, ready, problem), parts = msgspec.json.schema_components(
        [applicant, Answer, Model, Ready, Problem], ref_template="#/components/schemas/{name}"
    )
    scored = {"200", "403", "404", "409", "503", "504"}
    answers = {code: _said(text, answer if code in scored else problem) for code, text in CODES.items()}
    found: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {"title": "fednb online scoring", "version": __version__},
        "paths": {
            "/v1/score": {
                "post": {
                    "summary": "Score one applicant",
                    "requestBody": {"required": True, "content": {"application/json": {"schema": asked}}},
                    "responses": answers,
                }
            },
            "/v1/model": {"get": _get("Which model answers, with version and checksum", model)},
            "/ready": {"get": _get("Can it score now? 503 when not", ready)},
            "/health": {"get": {"summary": "Is the process alive?", "responses": {"200": {"description": "It is."}}}},
        },
        "components": {"schemas": parts},
    }
    if token:
        found["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        found["security"] = [{"token": []}]
    return found


def _get(summary: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"summary": summary, "responses": {"200": _said(summary, schema)}}


def _said(text: str, schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"description": text, "content": {"application/json": {"schema": schema}}}


def page(found: Mapping[str, Any]) -> str:
    """The document for people."""
    parts = ["<h1>fednb online scoring</h1>", f"<p>Version {html.escape(found['info']['version'])}. ", _MACHINES]
    for path, ways in found["paths"].items():
        for way, about in ways.items():
            parts.append(
                f"<h2><code>{way.upper()} {html.escape(path)}</code></h2><p>{html.escape(about['summary'])}</p>"
            )
            if "requestBody" in about:
                parts.append(_schema("Request", about["requestBody"]["content"]["application/json"]["schema"]))
            rows = "".join(
                f"<tr><td><code>{code}</code></td><td>{html.escape(each['description'])}</td></tr>"
                for code, each in about["responses"].items()
            )
            parts.append(f"<table>{rows}</table>")
    parts.append("<h2>Types</h2>")
    parts += [_schema(name, each) for name, each in found["components"]["schemas"].items()]
    return f'<!doctype html><html lang="en"><meta charset="utf-8"><title>fednb</title>{_STYLE}{"".join(parts)}</html>\n'


def _schema(name: str, schema: Mapping[str, Any]) -> str:
    text = json.dumps(schema, indent=2, ensure_ascii=False)
    return f"<details><summary>{html.escape(name)}</summary><pre>{html.escape(text)}</pre></details>"


_MACHINES = 'For machines: <a href="openapi.json">openapi.json</a>.</p>'
_STYLE = (
    "<style>body{font:16px/1.5 system-ui,sans-serif;max-width:50em;margin:2em auto;padding:0 1em}"
    "td{padding:.1em 1em .1em 0;vertical-align:top}pre{background:#f4f4f4;padding:1em;overflow:auto}</style>"
)
