"""`/docs`: the API as one page for people, made from its OpenAPI document. No script, nothing from outside."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator, Mapping
from string import Template
from typing import Any

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_PAGE = Template("""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>$title</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 0 auto; padding: 1rem 1rem 4rem }
code, pre { font: 14px/1.45 ui-monospace, monospace } pre { overflow-x: auto; padding: .75rem; border: 1px solid #8884; border-radius: 6px }
h2 { margin-top: 2.5rem } h3 { margin: 2rem 0 .25rem; font-size: 1rem } table { border-collapse: collapse; width: 100% }
td, th { text-align: left; vertical-align: top; padding: .3rem .75rem .3rem 0; border-bottom: 1px solid #8884 }
.method { display: inline-block; min-width: 4.5em; font-weight: 700 } summary { cursor: pointer } .quiet { opacity: .75 }
</style></head><body><h1>$title</h1><p>$description</p>
<p>As a document for programs: <a href="openapi.json">openapi.json</a>.</p>$contents$operations<h2>Models</h2>$models</body></html>
""")


def docs_page(openapi: Mapping[str, Any]) -> str:
    operations = list(_operations(openapi))
    contents = "".join(
        f'<li><a href="#{one["operationId"]}"><code>{method} {html.escape(path)}</code></a></li>' for method, path, one in operations
    )
    models = openapi.get("components", {}).get("schemas", {})
    return _PAGE.substitute(
        title=html.escape(f"{openapi['info']['title']} {openapi['info']['version']}"),
        description=html.escape(openapi["info"].get("description", "")),
        contents=f"<ul>{contents}</ul>",
        operations="".join(_operation(method, path, one) for method, path, one in operations),
        models="".join(_model(name, model) for name, model in models.items()),
    )


def _operations(openapi: Mapping[str, Any]) -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    for path, item in openapi["paths"].items():
        for method, operation in item.items():
            yield method.upper(), path, operation


def _operation(method: str, path: str, operation: Mapping[str, Any]) -> str:
    said = html.escape(operation.get("description") or operation.get("summary", ""))
    head = f'<h3 id="{operation["operationId"]}"><span class="method">{method}</span> <code>{html.escape(path)}</code></h3><p>{said}</p>'
    rows = [_row(one["name"], one["in"], _type(one["schema"]), one.get("description", "")) for one in operation.get("parameters", [])]
    return head + _table(rows) + _body(operation) + _answers(operation)


def _body(operation: Mapping[str, Any]) -> str:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    return f"<p>Body: {_type(content['schema'])}</p>" if content else ""


def _answers(operation: Mapping[str, Any]) -> str:
    rows = []
    for status, response in operation["responses"].items():
        content = next(iter(response.get("content", {}).values()), {})
        rows.append(_row(status, _type(content["schema"]) if content.get("schema") else "", html.escape(response.get("description", ""))))
    return f"<details><summary>Answers</summary>{_table(rows)}</details>"


def _model(name: str, model: Mapping[str, Any]) -> str:
    needed = model.get("required", [])
    rows = [
        _row(f"<code>{html.escape(key)}</code>", _type(one), "needed" if key in needed else "", _about(one))
        for key, one in model.get("properties", {}).items()
    ]
    example = model.get("example")
    shown = f"<pre>{html.escape(json.dumps(example, indent=2, ensure_ascii=False))}</pre>" if example else ""
    about = f"<p>{html.escape(model['description'])}</p>" if model.get("description") else ""
    return f'<h3 id="{name}">{html.escape(name)}</h3>{about}{_table(rows)}{shown}'


def _about(schema: Mapping[str, Any]) -> str:
    default = f" Default: <code>{html.escape(json.dumps(schema['default']))}</code>." if schema.get("default") not in (None, "") else ""
    return html.escape(schema.get("description", "")) + default


def _type(schema: Mapping[str, Any]) -> str:
    """In words, with a link to the model where it is one."""
    if "$ref" in schema:
        name = schema["$ref"].rsplit("/", 1)[-1]
        return f'<a href="#{name}">{html.escape(name)}</a>'
    for key in ("anyOf", "oneOf"):
        if key in schema:
            return " or ".join(dict.fromkeys(map(_type, schema[key])))
    if "enum" in schema:
        return " | ".join(html.escape(str(one)) for one in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    bounds = [f"{word} {schema[key]}" for key, word in (("minimum", "from"), ("maximum", "to")) if key in schema]
    return " ".join([html.escape(str(schema.get("type", "anything"))), *bounds])


def _row(*cells: str) -> str:
    return "<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>"


def _table(rows: list[str]) -> str:
    return f"<table>{''.join(rows)}</table>" if rows else ""
