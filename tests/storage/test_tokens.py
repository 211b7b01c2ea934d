"""Tokens, the proxies they are pinned to, and the cooldowns of both, in their rows."""

from dataclasses import replace
from typing import Any

import pytest

from proxy.domain.cooldowns import Cause, Cooldown, Subject, SubjectKind
from proxy.domain.errors import Conflict
from proxy.domain.proxies import Proxy
from proxy.domain.tokens import Token, TokenState
from proxy.storage import changes, cooldowns, proxies, tokens
from proxy.storage.changes import Act
from proxy.storage.database import Database
from proxy.storage.writer import each

TOKEN = Token("tok_1", "first", "xai", concurrency=3, team="team_1", models=("grok-imagine-video",), created_at=100.0)
PROXY = Proxy("prx_1", "exit", "socks5://10.0.0.2:1080", created_at=50.0)
REST = Cooldown(Subject(SubjectKind.TOKEN, TOKEN.id), 500.0, 100.0, 2, Cause.UNAUTHORIZED, "401", "try_1")


def act(subject: str) -> Act:
    return Act(100.0, "admin", "test", subject, {})


async def add(database: Database, token: Token = TOKEN, secret_hash: bytes = b"1" * 32) -> None:
    await database.write(each(tokens.add), tokens.NewToken(token, b"sealed", secret_hash, act(token.id)))


async def alter(database: Database, token_id: str, **values: Any) -> None:
    await database.write(each(tokens.alter), tokens.TokenUpdate(token_id, values, act(token_id)))


async def put_proxy(database: Database) -> None:
    await database.write(each(proxies.create), proxies.NewProxy(proxies.Stored(PROXY, b"sealed", None), act(PROXY.id)))


async def test_a_token_is_found_as_it_was_added(database: Database) -> None:
    await put_proxy(database)
    pinned = replace(TOKEN, proxy_id=PROXY.id, base_url="https://reseller.example/v1")
    await add(database, pinned)
    assert await database.read(tokens.find, TOKEN.id) == pinned
    assert await database.read(tokens.load) == [(pinned, b"sealed")]
    assert await database.read(tokens.find_by_hash, b"1" * 32) == pinned


async def test_no_two_tokens_have_the_same_secret(database: Database) -> None:
    await add(database)
    with pytest.raises(Conflict) as refused:
        await add(database, replace(TOKEN, id="tok_2"))
    assert TOKEN.id in refused.value.reason
    await add(database, replace(TOKEN, id="tok_2"), b"2" * 32)
    with pytest.raises(Conflict):
        await alter(database, "tok_2", secret_hash=b"1" * 32)
    await alter(database, TOKEN.id, secret_hash=b"1" * 32)  # its own


async def test_a_removed_token_is_listed_no_more_but_kept_for_its_jobs(database: Database) -> None:
    await add(database)
    await alter(database, TOKEN.id, state=TokenState.REMOVED)
    assert await database.read(tokens.find, TOKEN.id) is None
    assert await database.read(tokens.page, None, 9) == []
    assert [token.state for token, _ in await database.read(tokens.load)] == [TokenState.REMOVED]
    await add(database, replace(TOKEN, id="tok_2"))  # its secret may come back


async def test_a_removed_proxy_unpins_its_tokens_and_tells_of_them(database: Database) -> None:
    await put_proxy(database)
    await add(database, replace(TOKEN, proxy_id=PROXY.id))
    assert await database.read(tokens.pinned_to, PROXY.id) == [TOKEN.id]
    before = await database.read(changes.latest)
    removal = proxies.ProxyUpdate(PROXY.id, {"removed_at": 200.0}, act(PROXY.id))
    await database.write(each(proxies.remove), removal)
    told = {(kind, id_) for _, kind, id_ in await database.read(changes.since, before)}
    assert told == {("token", TOKEN.id), ("proxy", PROXY.id)}
    assert await database.read(tokens.find, TOKEN.id) == TOKEN
    assert await database.read(proxies.find, PROXY.id) is None
    assert [stored.proxy.removed for stored in await database.read(proxies.load)] == [True]


async def test_a_cooldown_takes_the_place_of_its_subjects_last_one(database: Database) -> None:
    other = replace(REST, subject=Subject(SubjectKind.TOKEN_MODEL, TOKEN.id, "grok-imagine-video"))
    longer = replace(REST, until=900.0, strikes=3)
    await database.write(cooldowns.put, (REST, other))
    await database.write(cooldowns.put, (longer,))
    assert sorted(await database.read(cooldowns.load), key=lambda rest: rest.subject.kind) == [longer, other]
    await database.write(each(cooldowns.forget), (longer.subject,))
    assert await database.read(cooldowns.load) == [other]
    await database.write(each(cooldowns.clear), cooldowns.Clearing((other.subject,), act(TOKEN.id)))
    assert await database.read(cooldowns.load) == []
    assert len(await database.read(changes.audit_page, None, 9)) == 1


async def test_changes_that_everybody_has_seen_are_forgotten(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(changes, "KEPT", 2)
    await add(database)
    for number in range(5):
        await alter(database, TOKEN.id, name=f"name {number}")
    latest = await database.read(changes.latest)
    await database.write(each(changes.forget), None)
    assert [seq for seq, *_ in await database.read(changes.since, 0)] == [latest - 1, latest]
    await alter(database, TOKEN.id, name="later")
    assert await database.read(changes.latest) == latest + 1
