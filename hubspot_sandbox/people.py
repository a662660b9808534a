"""The account's owners, users and teams."""

from typing import Any, Final

_FIRST: Final = ("Ada", "Björn", "Chloé", "Dmitri", "Eun-ji", "Fatima", "Grace", "Håkon", "Ines")
_LAST: Final = ("Okafor", "Lindqvist", "D'Angelo", "Sørensen", "Park", "Nowak", "García")
_FIRST_OWNER: Final = 41_629_700
_FIRST_USER: Final = 9_586_500
_FORMER_SHARE: Final = 0.25
TEAMS: Final = (("368389", "Sales Team"), ("368390", "Renewals"))


class People:
    """Active owners, plus a quarter as many who left but still own old deals."""

    def __init__(self, owners: int) -> None:
        former = max(1, round(owners * _FORMER_SHARE)) if owners else 0
        self._owners = [_owner(place, archived=False) for place in range(owners)]
        self._former = [_owner(owners + place, archived=True) for place in range(former)]

    @property
    def owner_ids(self) -> tuple[str, ...]:
        """Every id that may stand in hubspot_owner_id, former owners included."""
        return tuple(owner["id"] for owner in (*self._owners, *self._former))

    def owners(self, *, archived: bool) -> list[dict[str, Any]]:
        """Owners as the API shows them, by id."""
        return self._former if archived else self._owners

    def users(self) -> list[dict[str, Any]]:
        """Users as the settings API shows them."""
        return [
            {
                "id": str(owner["userId"]),
                "email": owner["email"],
                "firstName": owner["firstName"],
                "lastName": owner["lastName"],
                "roleIds": [],
                "superAdmin": place == 0,
                "primaryTeamId": TEAMS[0][0],
                "secondaryTeamIds": [],
            }
            for place, owner in enumerate(self._owners)
        ]

    def teams(self) -> list[dict[str, Any]]:
        """Teams with the ids of their users."""
        users = [str(owner["userId"]) for owner in self._owners]
        return [
            {"id": team, "name": name, "userIds": users[place::2], "secondaryUserIds": []}
            for place, (team, name) in enumerate(TEAMS)
        ]


def _owner(place: int, *, archived: bool) -> dict[str, Any]:
    first, last = _FIRST[place % len(_FIRST)], _LAST[place % len(_LAST)]
    user = _FIRST_USER + place * 3
    body: dict[str, Any] = {
        "id": str(_FIRST_OWNER + place * 7),
        "email": f"owner{place}@example.com",
        "type": "PERSON",
        "firstName": first,
        "lastName": last,
        # A former owner keeps the user id only under the second name.
        "userId": None if archived else user,
        "userIdIncludingInactive": user,
        "createdAt": "2022-12-25T13:01:35.228Z",
        "updatedAt": "2023-08-22T13:40:26.790Z",
        "archived": archived,
    }
    if place % 3 == 0:
        team, name = TEAMS[place % 2]
        body["teams"] = [{"id": team, "name": name, "primary": True}]
    return body
