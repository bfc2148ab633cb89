"""Costs, limits, permissions, retention and alerts through OpenAI's official SDK."""

import os
import time

import openai
from openai import OpenAI

BASE = os.environ["IMAGEGATE_URL"]
client = OpenAI(base_url=f"{BASE}/v1", api_key="", admin_api_key=os.environ["IMAGEGATE_ADMIN"], max_retries=0)
organization = client.admin.organization
projects = organization.projects
usd_month = {"currency": "USD", "interval": "month"}


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error as fault:
        return fault
    raise AssertionError(f"{call} was not refused with {error}")


def eventually(ask, seconds=120):
    end = time.time() + seconds
    while True:
        found = ask()
        if found:
            return found
        assert time.time() < end, "it did not happen"
        time.sleep(0.2)


one, two = projects.create(name="one"), projects.create(name="two")
made = {project.id: projects.service_accounts.create(project.id, name="worker") for project in (one, two)}
keys = {id: account.api_key for id, account in made.items()}


def generate(project, model="flux/dev", **more):
    images = OpenAI(base_url=f"{BASE}/v1", api_key=keys[project.id].value, max_retries=0).images
    return images.generate(model=model, prompt="a lighthouse", size="1024x1024", **more)


# --- usage and costs --------------------------------------------------------------------------------------------------
start = int(time.time()) // 86400 * 86400
generate(one, n=2, user="ada")
generate(one, model="flux-realism")
generate(two, user="bob")
expected = {("flux/dev", one.id): ("0.050000000", 2), ("flux-realism", one.id): ("0.035000000", 1),
            ("flux/dev", two.id): ("0.025000000", 1)}
costs = organization.usage.costs
page = costs(start_time=start, group_by=["line_item", "project_id"], project_ids=[one.id, two.id])
assert page.object == "page" and not page.has_more and page.data[0].start_time == start, page
rows = page.data[0].results
found = {(row.line_item, row.project_id): (row.amount.value_usd, row.quantity) for row in rows}
assert found == expected, found
for row in rows:
    assert row.object == "organization.costs.result" and row.amount.currency == "usd", row
    assert abs(row.amount.value - float(row.amount.value_usd)) < 1e-12 and row.quantity_unit == "images", row
by_user = costs(start_time=start, group_by=["user_id"], project_ids=[one.id, two.id]).data[0].results
assert {row.user_id: row.amount.value_usd for row in by_user} == {
    "ada": "0.050000000", "bob": "0.025000000", None: "0.035000000"}, by_user
by_key = costs(start_time=start, group_by=["api_key_id"], api_key_ids=[keys[two.id].id]).data[0].results
assert [(row.api_key_id, row.amount.value_usd) for row in by_key] == [(keys[two.id].id, "0.025000000")], by_key
only = costs(start_time=start, line_items=["flux-realism"]).data[0].results
assert [row.amount.value_usd for row in only] == ["0.035000000"] and only[0].line_item is None, only
assert costs(start_time=start, group_by=["api_source"]).data[0].results[0].api_source == "unlabeled"
days = costs(start_time=start - 9 * 86400, limit=4)
assert days.has_more and len(days.data) == 4, days
assert costs(start_time=start - 9 * 86400, limit=4, page=days.next_page).data[0].start_time == start - 5 * 86400
refused(openai.BadRequestError, costs, start_time=start, group_by=["colour"])
used = organization.usage.images(start_time=start, group_by=["model"], project_ids=[one.id]).data[0].results
assert {row.model: row.images for row in used} == {"flux/dev": 2, "flux-realism": 1}, used

# --- spend limits -----------------------------------------------------------------------------------------------------
limit = projects.spend_limit
refused(openai.NotFoundError, limit.retrieve, one.id)
set_to = limit.update(one.id, threshold_amount=10000, **usd_month)
assert set_to.object == "project.spend_limit" and set_to.enforcement.status == "inactive", set_to
assert limit.update(one.id, threshold_amount=8, **usd_month).enforcement.status == "enforcing"
assert limit.retrieve(one.id).threshold_amount == 8
refused(openai.PermissionDeniedError, generate, one)
assert limit.delete(one.id).object == "project.spend_limit.deleted"
generate(one)
whole = organization.spend_limit
refused(openai.NotFoundError, whole.retrieve)
assert whole.update(threshold_amount=1, **usd_month).object == "organization.spend_limit"
refused(openai.PermissionDeniedError, generate, two)
assert whole.retrieve().enforcement.status == "enforcing"
assert whole.delete().object == "organization.spend_limit.deleted"
generate(two)
refused(openai.BadRequestError, whole.update, currency="EUR", interval="month", threshold_amount=1)

# --- rate limits ------------------------------------------------------------------------------------------------------
limits = projects.rate_limits
listed = list(limits.list_rate_limits(two.id, limit=5))
assert (listed[0].model, listed[0].max_requests_per_1_minute, listed[0].max_images_per_1_minute) == ("*", 600, 1200), listed[0]
dev = [rate for rate in listed if rate.model == "flux/dev"][0]
changed = limits.update_rate_limit(dev.id, project_id=two.id, max_requests_per_1_minute=1)
assert changed.object == "project.rate_limit" and changed.max_requests_per_1_minute == 1, changed
refused(openai.RateLimitError, lambda: [generate(two) for _ in range(2)])
generate(two, model="flux-realism")
lifted = limits.update_rate_limit(dev.id, project_id=two.id, max_requests_per_1_minute=2147483647)
assert lifted.max_requests_per_1_minute == 2147483647
generate(two)
none = limits.update_rate_limit(listed[0].id, project_id=two.id, max_requests_per_1_minute=2147483647,
                                max_images_per_1_minute=2147483647)
assert (none.model, none.max_requests_per_1_minute, none.max_images_per_1_minute) == ("*", 2147483647, 2147483647), none
refused(openai.NotFoundError, limits.update_rate_limit, "rl-none", project_id=two.id)

# --- model permissions ------------------------------------------------------------------------------------------------
permissions = projects.model_permissions
assert permissions.retrieve(one.id).mode == "deny_list" and permissions.retrieve(one.id).api_model_ids == []
allowed = permissions.update(one.id, mode="allow_list", model_ids=["flux/dev"])
assert (allowed.object, allowed.api_model_ids) == ("project.model_permissions", ["flux/dev"]), allowed
refused(openai.PermissionDeniedError, generate, one, model="flux-realism")
generate(one)
permissions.update(one.id, mode="deny_list", model_ids=["flux/dev"])
refused(openai.PermissionDeniedError, generate, one)
generate(one, model="flux-realism")
assert permissions.delete(one.id).deleted
generate(one)
refused(openai.BadRequestError, permissions.update, one.id, mode="allow_list", model_ids=["no-such-model"])

# --- data retention ---------------------------------------------------------------------------------------------------
retention = organization.data_retention
assert retention.retrieve().type == "zero_data_retention"
assert projects.data_retention.retrieve(one.id).type == "organization_default"
assert projects.data_retention.update(two.id, retention_type="zero_data_retention").type == "zero_data_retention"
assert retention.update(retention_type="modified_abuse_monitoring").object == "organization.data_retention"
three = projects.create(name="three")
assert [projects.data_retention.retrieve(id).type for id in (one.id, two.id, three.id)] == [
    "organization_default", "zero_data_retention", "organization_default"]
kept = client.get(f"{BASE}/admin/v1/projects/{one.id}", cast_to=object)["prompt_retention_seconds"]
gone = client.get(f"{BASE}/admin/v1/projects/{two.id}", cast_to=object)["prompt_retention_seconds"]
new = client.get(f"{BASE}/admin/v1/projects/{three.id}", cast_to=object)["prompt_retention_seconds"]
assert (kept, gone, new) == (30 * 86400, 0, 30 * 86400), (kept, gone, new)
refused(openai.BadRequestError, retention.update, retention_type="none")

# --- spend alerts -----------------------------------------------------------------------------------------------------
channel = {"type": "email", "recipients": ["ops@example.com"], "subject_prefix": "[images]"}
for alerts, place, word in [(projects.spend_alerts, (one.id,), "project"), (organization.spend_alerts, (), "organization")]:
    more = {"project_id": one.id} if place else {}
    high = alerts.create(*place, threshold_amount=1_000_000, notification_channel=channel, **usd_month)
    low = alerts.create(*place, threshold_amount=2, notification_channel=channel, **usd_month)
    assert high.object == f"{word}.spend_alert" and high.notification_channel.recipients == ["ops@example.com"], high
    assert [alert.id for alert in alerts.list(*place, limit=1)] == [low.id, high.id]
    assert [alert.id for alert in alerts.list(*place, order="asc")] == [high.id, low.id]
    event = eventually(lambda: organization.audit_logs.list(resource_ids=[low.id], event_types=["spend_alert.triggered"]).data)
    assert len(event) == 1 and event[0].actor.session.user.id == "imagegate", event
    raised = alerts.update(high.id, threshold_amount=2_000_000, notification_channel=channel, **usd_month, **more)
    assert alerts.retrieve(high.id, **more) == raised and raised.threshold_amount == 2_000_000
    assert alerts.delete(high.id, **more).object == f"{word}.spend_alert.deleted"
    refused(openai.NotFoundError, alerts.retrieve, high.id, **more)
types = {event.type for event in organization.audit_logs.list()}
for event in ["rate_limit.updated", "rate_limit.deleted", "organization.updated", "project.updated", "spend_alert.created",
              "spend_alert.updated", "spend_alert.deleted"]:
    assert event in types, f"{event} is not among {types}"
print("the SDK reads costs and sets limits")
