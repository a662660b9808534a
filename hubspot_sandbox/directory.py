"""The account's smaller endpoints: properties, pipelines, owners, users, details, usage, tokens."""

from typing import Any, Final

from hubspot_sandbox.budgets import Budgets
from hubspot_sandbox.clock import iso_ms
from hubspot_sandbox.endpoint import Answer, Call, World, as_json, is_number
from hubspot_sandbox.failures import ApiError, not_found
from hubspot_sandbox.pipelines import PIPELINES

OWNERS_DEFAULT: Final = 100
# Doubtful: no largest page is documented; 500 is used in production.
OWNERS_LIMIT: Final = 500
_USER: Final = 9_586_500
_APP: Final = 2_011_410


class Directory:
    """Endpoints that describe the account."""

    def __init__(self, world: World, budgets: Budgets) -> None:
        self._world = world
        self._budgets = budgets

    def properties(self, call: Call) -> Answer:
        """All definitions, without paging."""
        archived = call.query.flag(b"archived")
        return as_json({"results": [] if archived else self._world.catalog.bodies})

    def one_property(self, call: Call) -> Answer:
        """One definition."""
        [name] = call.route.args
        body = self._world.catalog.find_body(name)
        if body is None:
            message = f"Property {name} does not exist"
            status = 404
            raise ApiError(status, message, facts={"category": "OBJECT_NOT_FOUND"})
        return as_json(body)

    def pipelines(self, call: Call) -> Answer:  # noqa: ARG002
        """All pipelines with their stages, without paging."""
        bodies = [pipeline.body(order) for order, pipeline in enumerate(PIPELINES)]
        return as_json({"results": bodies})

    def owners(self, call: Call) -> Answer:
        """A page of owners, by id."""
        query = call.query
        limit = call.limit(query.text(b"limit"), most=OWNERS_LIMIT, default=OWNERS_DEFAULT)
        owners = self._world.people.owners(archived=query.flag(b"archived"))
        email, after = query.text(b"email"), query.text(b"after")
        owners = [owner for owner in owners if email in {None, owner["email"]}]
        first = int(after) if after and is_number(after) else 0
        left = [owner for owner in owners if int(owner["id"]) >= first]
        kind = call.page_fault[0] if call.page_fault else ""
        body: dict[str, Any] = {"results": [] if kind == "empty_page" else left[:limit]}
        # An empty page and a looping one continue where they begin.
        following = left[:1] if kind in {"empty_page", "cursor_loop"} else left[limit : limit + 1]
        if following:
            cursor = following[0]["id"]
            link = f"{call.base_url}{call.path}?limit={limit}&after={cursor}"
            if query.flag(b"archived"):
                link += "&archived=true"
            body["paging"] = {"next": {"after": cursor, "link": link}}
        return as_json(body)

    def owner(self, call: Call) -> Answer:
        """One owner, by owner id or by user id."""
        [identity] = call.route.args
        key = "userIdIncludingInactive" if call.query.text(b"idProperty") == "userId" else "id"
        for owner in self._world.people.owners(archived=call.query.flag(b"archived")):
            if str(owner[key]) == identity:
                return as_json(owner)
        raise not_found(identity)

    def users(self, call: Call) -> Answer:  # noqa: ARG002
        """All users."""
        return as_json({"results": self._world.people.users()})

    def teams(self, call: Call) -> Answer:  # noqa: ARG002
        """All teams."""
        return as_json({"results": self._world.people.teams()})

    def account(self, call: Call) -> Answer:  # noqa: ARG002
        """The account's details."""
        return as_json(
            {
                "portalId": self._world.config.portal_id,
                "accountType": "SANDBOX",
                "timeZone": "UTC",
                "companyCurrency": "USD",
                "additionalCurrencies": ["EUR", "SEK"],
                "utcOffset": "+00:00",
                "utcOffsetMilliseconds": 0,
                "uiDomain": "app.hubspot.com",
                "dataHostingLocation": "na1",
            }
        )

    def usage(self, call: Call) -> Answer:  # noqa: ARG002
        """How much of the day's budget is used."""
        clock = self._world.clock
        usage = {
            "name": "private-apps-api-calls-daily",
            "usageLimit": self._budgets.daily_limit,
            "currentUsage": self._budgets.daily_used,
            "collectedAt": iso_ms(clock.ms()),
            "fetchStatus": "SUCCESS",
            "resetsAt": iso_ms(int(clock.next_midnight() * 1000)),
        }
        return as_json({"results": [usage]})

    # -- tokens

    def token_info(self, call: Call) -> Answer:
        """`GET /oauth/v1/access-tokens/{token}`."""
        [token] = call.route.args
        return as_json(self._introspect(token))

    def introspect(self, call: Call) -> Answer:
        """`POST /oauth/{version}/token/introspect`, a form."""
        # Doubtful: the answer is given the fields of the older endpoint, plus `active`.
        token = call.notes.get("form_token", "")
        return as_json({"active": True, **self._introspect(token)})

    def private_app_info(self, call: Call) -> Answer:
        """`POST /oauth/v2/private-apps/get/access-token-info`: the cheapest check of a token."""
        token = str(call.json().get("tokenKey") or call.token)
        refusal = self._world.tokens.refuse(token)
        if refusal is not None:
            # Doubtful: the answer for a token other than the one that asks.
            raise not_found(object_id="token")
        return as_json(
            {
                "userId": _USER,
                "hubId": self._world.config.portal_id,
                "appId": _APP,
                "scopes": sorted(self._world.tokens.scopes(token)),
            }
        )

    def _introspect(self, token: str) -> dict[str, Any]:
        if self._world.tokens.refuse(token) is not None:
            # Doubtful: the words of this refusal.
            message = "the token is unknown or has expired"
            status = 404
            raise ApiError(status, message)
        return {
            "token": token,
            "user": "owner0@example.com",
            "hub_domain": "sandbox.example.com",
            "scopes": sorted(self._world.tokens.scopes(token)),
            "hub_id": self._world.config.portal_id,
            "app_id": _APP,
            "expires_in": self._world.tokens.life_seconds(),
            "user_id": _USER,
            "token_type": "access",
            "is_private_distribution": False,
        }
