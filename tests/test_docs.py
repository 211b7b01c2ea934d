"""The docs know everything that the code has."""

import re
from pathlib import Path

import pytest
from typer.main import get_command

from proxy.__main__ import program
from proxy.services.metrics import Metrics
from proxy.web import health, media, videos
from proxy.web.admin.routes import ROUTES as ADMIN_ROUTES
from proxy.web.routes import Route

REPOSITORY = Path(__file__).parents[1]
PAGES = [*REPOSITORY.glob("*.md"), *REPOSITORY.glob("docs/**/*.md")]
DOCS = "\n".join(page.read_text() for page in PAGES)
OPERATING = (REPOSITORY / "docs" / "operating.md").read_text()
LINK = re.compile(r"\]\(([^)#:]+)\)")
ROUTES = [*health.ROUTES, *videos.ROUTES, *media.ROUTES, *ADMIN_ROUTES]


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_in_the_docs(route: Route) -> None:
    path = route.path.replace("{name}", "")
    stem, _, action = path.rpartition("/")
    assert path in DOCS or (stem in DOCS and re.search(rf"{re.escape(stem)}/[\w|-]*\b{re.escape(action)}\b", DOCS))


def test_every_command_is_in_the_docs() -> None:
    for name, command in get_command(program()).commands.items():  # type: ignore[attr-defined]
        assert f"grokpool {name}" in OPERATING
        for below in getattr(command, "commands", {}):
            assert re.search(rf"\| `grokpool {name}` \|[^\n]*`{below}[ `]", OPERATING), f"{name} {below}"


def test_every_metric_is_in_the_docs() -> None:
    metrics = Metrics()
    metrics.watch("jobs_in_work", "", lambda: 0)
    metrics.watch("jobs_waiting", "", lambda: 0)
    names = re.findall(r"# TYPE (grokpool_\w+) (?:counter|histogram|gauge)", metrics.render().decode())
    assert len(names) >= 6
    for name in names:
        assert f"`{name}`" in OPERATING or name.endswith("_created"), name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        assert (page.parent / target).exists(), target
