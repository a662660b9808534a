"""HubSpot's own two Python clients read the sandbox without noticing."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hubspot import HubSpot
from hubspot.crm.deals import (
    ApiException,
    BatchReadInputSimplePublicObjectId,
    PublicObjectSearchRequest,
)
from hubspot_sdk import HubSpot as NewHubSpot
from hubspot_sdk import PermissionDeniedError, RateLimitError

from hubspot_sandbox.testing import GOOD_TOKEN, SandboxProcess

pytestmark = [
    # Generated v3 code calls urllib3's deprecated accessors.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[SandboxProcess]:
    with SandboxProcess(deals=250, seed=3, owners=7) as running:
        yield running


@pytest.fixture(scope="module")
def truth(sandbox: SandboxProcess) -> dict[str, dict[str, Any]]:
    return {deal["id"]: deal for deal in sandbox.control.deals()}


@pytest.fixture
def client(sandbox: SandboxProcess) -> HubSpot:
    return HubSpot(access_token=GOOD_TOKEN, host=sandbox.url)


@pytest.fixture
def new_client(sandbox: SandboxProcess) -> Iterator[NewHubSpot]:
    with NewHubSpot(access_token=GOOD_TOKEN, base_url=sandbox.url, max_retries=0) as hubspot:
        yield hubspot


class TestGeneratedClient:
    """hubspot-api-client, v3 paths."""

    def test_a_page_has_the_properties_asked_for(
        self, client: HubSpot, truth: dict[str, dict[str, Any]]
    ) -> None:
        page = client.crm.deals.basic_api.get_page(
            limit=10, properties=["dealname", "amount"], archived=False
        )
        assert len(page.results) == 10
        deal = page.results[0]
        assert deal.properties["dealname"] == truth[deal.id]["properties"]["dealname"]
        assert isinstance(deal.created_at, datetime)
        assert page.paging.next.after == str(int(page.results[-1].id) + 1)

    @pytest.mark.parametrize("archived", [False, True])
    def test_get_all_reads_every_deal_once(
        self, client: HubSpot, truth: dict[str, dict[str, Any]], *, archived: bool
    ) -> None:
        found = client.crm.deals.get_all(properties=["dealname"], archived=archived)
        wanted = [identity for identity, deal in truth.items() if deal["archived"] is archived]
        assert sorted(deal.id for deal in found) == sorted(wanted)

    def test_search_filters_sorts_and_pages(
        self, client: HubSpot, truth: dict[str, dict[str, Any]]
    ) -> None:
        request = PublicObjectSearchRequest(
            filter_groups=[
                {
                    "filters": [
                        {
                            "propertyName": "createdate",
                            "operator": "GTE",
                            "value": "1704067200000",
                        }
                    ]
                }
            ],
            sorts=[{"propertyName": "hs_object_id", "direction": "ASCENDING"}],
            properties=["dealname"],
            limit=20,
            after="20",
        )
        page = client.crm.deals.search_api.do_search(public_object_search_request=request)
        wanted = sorted(
            int(identity)
            for identity, deal in truth.items()
            if deal["createdAt"] >= "2024" and not deal["archived"]
        )
        assert page.total == len(wanted)
        assert [int(deal.id) for deal in page.results] == wanted[20:40]
        assert page.paging.next.after == "40"

    def test_a_batch_with_misses_is_the_model_with_errors(
        self, client: HubSpot, truth: dict[str, dict[str, Any]]
    ) -> None:
        some = next(iter(truth))
        batch = client.crm.deals.batch_api.read(
            BatchReadInputSimplePublicObjectId(
                inputs=[{"id": some}, {"id": "1"}],
                properties=["dealname"],
                properties_with_history=[],
            )
        )
        assert type(batch).__name__ == "BatchResponseSimplePublicObjectWithErrors"
        assert [deal.id for deal in batch.results] == [some]
        assert batch.num_errors == 1
        assert batch.errors[0].context == {"ids": ["1"]}

    def test_history_parses(self, client: HubSpot) -> None:
        page = client.crm.deals.basic_api.get_page(
            limit=50, properties_with_history=["dealstage", "amount"]
        )
        versions = page.results[0].properties_with_history["dealstage"]
        assert versions[0].value == page.results[0].properties["dealstage"]

    def test_definitions_pipelines_and_owners_parse(self, client: HubSpot) -> None:
        definitions = client.crm.properties.core_api.get_all(object_type="deals").results
        assert "hs_object_id" in {definition.name for definition in definitions}
        pipelines = client.crm.pipelines.pipelines_api.get_all(object_type="deals").results
        assert pipelines[0].stages[0].metadata == {"isClosed": "false", "probability": "0.2"}
        assert len(client.crm.owners.get_all()) == 7
        [former, *_] = client.crm.owners.owners_api.get_page(archived=True).results
        assert former.user_id is None
        assert former.user_id_including_inactive

    def test_associations_parse(self, client: HubSpot, truth: dict[str, dict[str, Any]]) -> None:
        inputs = [{"id": identity} for identity, deal in truth.items() if not deal["archived"]]
        batch = client.crm.associations.v4.batch_api.get_page(
            from_object_type="deals",
            to_object_type="contacts",
            batch_input_public_fetch_associations_batch_request={"inputs": inputs},
        )
        assert len(batch.results) > 100

    def test_a_bad_token_is_an_exception_with_hubspots_body(self, sandbox: SandboxProcess) -> None:
        client = HubSpot(access_token="an-invalid-token", host=sandbox.url)
        with pytest.raises(ApiException) as caught:
            client.crm.deals.basic_api.get_page()
        assert caught.value.status == 401
        assert "INVALID_AUTHENTICATION" in caught.value.body


class TestNewClient:
    """hubspot-sdk, dated paths."""

    def test_listing_pages_by_itself(
        self, new_client: NewHubSpot, truth: dict[str, dict[str, Any]]
    ) -> None:
        found = list(new_client.crm.objects.deals.list(limit=40, properties=["dealname", "amount"]))
        live = [deal for deal in truth.values() if not deal["archived"]]
        assert [deal.id for deal in found] == [deal["id"] for deal in live]
        assert found[0].properties["dealname"] == live[0]["properties"]["dealname"]
        assert found[0].created_at < datetime.now(UTC)

    def test_archived_deals_page_too(
        self, new_client: NewHubSpot, truth: dict[str, dict[str, Any]]
    ) -> None:
        found = list(new_client.crm.objects.deals.list(limit=10, archived=True))
        wanted = {identity for identity, deal in truth.items() if deal["archived"]}
        assert {deal.id for deal in found} == wanted
        assert len(found) == len(wanted)
        assert all(deal.archived_at > deal.updated_at for deal in found if deal.archived_at)

    def test_search(self, new_client: NewHubSpot) -> None:
        page = new_client.crm.objects.deals.search(
            after="0",
            filter_groups=[
                {
                    "filters": [
                        {
                            "propertyName": "hs_is_closed",
                            "operator": "EQ",
                            "value": "true",
                        }
                    ]
                }
            ],
            limit=5,
            properties=["dealstage"],
            sorts=["-createdate"],
        )
        results = list(page.results)
        assert len(results) == 5
        assert page.total > 5
        created = [deal.created_at for deal in results]
        assert created == sorted(created, reverse=True)

    def test_strict_models_accept_pages_without_nulls(self, sandbox: SandboxProcess) -> None:
        with NewHubSpot(
            access_token=GOOD_TOKEN, base_url=sandbox.url, _strict_response_validation=True
        ) as strict:
            page = strict.crm.objects.deals.list(limit=30, properties=["dealname", "dealstage"])
            assert len(page.results) == 30

    def test_a_missing_scope_is_permission_denied(self, sandbox: SandboxProcess) -> None:
        with (
            NewHubSpot(
                access_token="token-with-noscope", base_url=sandbox.url, max_retries=0
            ) as poor,
            pytest.raises(PermissionDeniedError) as caught,
        ):
            poor.crm.objects.deals.list()
        assert "crm.objects.deals.read" in str(caught.value.body)

    def test_an_exceeded_burst_is_a_rate_limit_error(self) -> None:
        with (
            SandboxProcess(deals=5, rate_limit=3) as small,
            NewHubSpot(access_token=GOOD_TOKEN, base_url=small.url, max_retries=0) as hubspot,
        ):
            for _ in range(3):
                hubspot.crm.objects.deals.list()
            with pytest.raises(RateLimitError):
                hubspot.crm.objects.deals.list()
