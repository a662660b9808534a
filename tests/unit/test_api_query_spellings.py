"""Parameters in the other spelling mean the same, and nothing else is touched."""

import pytest

from api.middleware import spell_parameters


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (b"table_name=deals&limit=5", b"tableName=deals&limit=5"),
        (b"limit=5&table_name=deals", b"limit=5&tableName=deals"),
        (b"pageSize=7&page=2", b"page_size=7&page=2"),
        (b"organization_id=acme", b"organizationId=acme"),
        (b"tableName=table_name&page_size=7", b"tableName=table_name&page_size=7"),
        (b"cursor=x&table_name", b"cursor=x&table_name"),
        (b"my_table_name=deals", b"my_table_name=deals"),
        (b"filter[dealstage]=table_name=1", b"filter[dealstage]=table_name=1"),
        (b"", b""),
    ],
)
def test_other_spellings_are_read_as_the_parameters_they_mean(sent, read):
    assert spell_parameters(sent) == read
