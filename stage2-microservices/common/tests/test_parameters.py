import pytest


@pytest.mark.parametrize("number", ["", "x", "0", "501", "-1", "+1", "1.5", "1e2", " 1", "٣", "9" * 30])
def test_a_number_that_is_none_or_beyond_its_limits_is_400(client, number):
    answer = client.get("/things", query_string={"limit": number})
    assert (answer.status_code, answer.json["error"]) == (400, "limit must be a whole number from 1 to 500.")


@pytest.mark.parametrize("ids", ["", "1,,2", "1,x", "9" * 15, "1,2,3,4"])
def test_a_list_that_has_something_else_or_too_much_is_400(client, ids):
    assert client.get("/things", query_string={"ids": ids}).status_code == 400


def test_numbers_are_read_and_what_is_missing_has_its_default(client):
    assert client.get("/things?limit=007&ids=3,1").json == {"user_id": None, "limit": 7, "ids": [3, 1]}
    assert client.get("/things").json == {"user_id": None, "limit": 100, "ids": None}
