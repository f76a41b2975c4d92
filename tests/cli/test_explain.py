from __future__ import annotations

from marketplace.protocol.errors import ErrorCode
from tests.cli.conftest import Watt


def test_explain_prints_the_page_of_a_code_without_a_market(watt: Watt) -> None:
    ran = watt("explain", "no_session")
    assert ran.code == 0
    assert ran.out.startswith("# no_session\n")
    assert "watt session open" in ran.out


def test_explain_json_has_every_fact(watt: Watt) -> None:
    found = watt("explain", "urn:wattline:error:node-busy", "--json").json
    assert set(found) == {
        "code",
        "title",
        "status",
        "hint",
        "retry",
        "charged",
        "means",
        "why",
        "remedy",
        "run",
        "doc_url",
    }
    assert (found["code"], found["retry"], found["doc_url"]) == ("node_busy", "yes", "/docs/errors/node_busy")


def test_explain_alone_lists_every_code(watt: Watt) -> None:
    rows = watt("explain", "--json").json["errors"]
    assert [row["code"] for row in rows] == [code.value for code in ErrorCode]
    lines = watt("explain").out.splitlines()
    assert lines[0] == "CODE\tHTTP\tMEANS"
    assert len(lines) == len(rows) + 1


def test_an_unknown_code_exits_3_and_names_the_nearest(watt: Watt) -> None:
    ran = watt("explain", "no_sesion", "--json")
    assert (ran.code, ran.json["error"]["hint"]) == (3, "Did you mean no_session?")
    assert watt("explain", "zzz", "--json").json["error"]["hint"] == "watt explain lists them."
