"""The explorer shows every operation, from files of our own, under a policy that allows nothing else."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.anyio


async def test_it_shows_every_operation_and_document(client, app):
    page = await client.get("/api/v1/docs")
    assert page.status_code == 200
    described = app.openapi()
    for path, methods in described["paths"].items():
        for operation in methods.values():
            assert f'<details id="{operation["operationId"]}">' in page.text
            assert f"<code>{path}</code>" in page.text
    assert all(f'id="schema-{name}"' in page.text for name in described["components"]["schemas"])
    links = re.findall(r'href="#([^"]+)"', page.text)
    assert [link for link in links if f'id="{link}"' not in page.text] == []


async def test_nothing_is_loaded_from_elsewhere_and_nothing_stands_inline(client):
    page = await client.get("/api/v1/docs")
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert "unsafe" not in page.headers["content-security-policy"]
    assert re.findall(r"(?:src|href|action)=\"(?:https?:)?//|style=|<style|\son[a-z]+=\"", page.text) == []
    assert re.findall(r"<script(?![^>]* src=)", page.text) == []
    loaded = re.findall(r'(?:src|stylesheet" href)="([^"]+)"', page.text)
    assert len(loaded) == 2
    for path in loaded:
        file = await client.get(path)
        assert file.status_code == 200
        assert not re.search(r"https?://|@import|eval\(|innerHTML", file.text)


async def test_what_is_no_file_of_it_is_not_there(client):
    assert (await client.get("/api/v1/docs/explorer.py")).status_code == 404
    assert (await client.get("/api/v1/docs/..%2fapp.py")).status_code == 404
