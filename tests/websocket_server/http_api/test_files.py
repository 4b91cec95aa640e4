"""What is sent more than once: hashed files are kept, the page is not, known answers are not sent again."""

import re

from tests.support.websocket_servers import Calculator, Served, bearer, receive_until


async def test_files_with_a_hash_in_their_name_are_kept_for_ever_and_the_page_is_not(server: Served) -> None:
    page = await server.http.get("/")
    assert page.headers["cache-control"] == "no-store"
    names = re.findall(r'(?:src|href)="(assets/[^"]+)"', page.text)
    assert len(names) == 2
    for name in names:
        answer = await server.http.get(f"/{name}")
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
        assert answer.headers["content-encoding"] == "gzip"
        plain = await server.http.get(f"/{name}", headers={"Accept-Encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == answer.content
        assert "Accept-Encoding" in plain.headers["vary"]
    icon = await server.http.get("/icon.svg")
    assert icon.headers["cache-control"] == "no-cache"
    again = await server.http.get("/icon.svg", headers={"If-None-Match": icon.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    assert (await server.http.get("/assets/nothing.js")).headers["cache-control"] == "no-store"


async def test_no_inline_script_or_style_is_allowed(server: Served) -> None:
    policy = (await server.http.get("/")).headers["content-security-policy"]
    assert "unsafe" not in policy
    assert "script-src 'self'" in policy


async def test_an_answer_that_the_client_has_is_not_sent_again(
    server: Served, calculator: Calculator
) -> None:
    """By its tag, also among several; another answer has another tag."""
    await calculator.publish("a", 1)
    async with server.open("/ws/portfolio/a") as client:
        first = await server.http.get("/v1/portfolio/a", headers=bearer())
        tag = first.headers["etag"]
        for shown in (tag, tag.removeprefix("W/"), f'"other", {tag}'):
            again = await server.http.get("/v1/portfolio/a", headers=bearer() | {"If-None-Match": shown})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
        await calculator.publish("a", 2)
        await receive_until(client, 2)
        newer = await server.http.get("/v1/portfolio/a", headers=bearer() | {"If-None-Match": tag})
        assert (newer.status_code, newer.headers["etag"] == tag) == (200, False)
    refused = await server.http.get("/v1/portfolio/a", headers={"If-None-Match": tag})
    assert refused.status_code == 401
