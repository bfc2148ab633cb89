"""Usage and costs through OpenAI's official SDK: every bucket, group, filter and page, equal to what was charged."""

import os
import time
from decimal import Decimal

import openai
from openai import OpenAI

BASE = os.environ["IMAGEGATE_URL"]
client = OpenAI(base_url=f"{BASE}/v1", api_key="", admin_api_key=os.environ["IMAGEGATE_ADMIN"], max_retries=0)
organization = client.admin.organization
projects = organization.projects


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"{call} was not refused with {error}")


def pages(call, **asked):
    """Every bucket of every page."""
    buckets, page = [], openai.omit
    while True:
        answer = call(page=page, **asked)
        assert answer.object == "page", answer
        buckets += answer.data
        if not answer.has_more:
            assert answer.next_page is None, answer
            return buckets
        page = answer.next_page


# Nothing may fall on the other side of midnight while this runs.
if time.time() % 86400 > 86400 - 300:
    time.sleep(301)
start = int(time.time()) // 86400 * 86400
made = []
for name in ["one", "two"]:
    project = projects.create(name=name)
    for worker in ["a", "b"]:
        made.append((project.id, projects.service_accounts.create(project.id, name=worker).api_key))
sold = [("flux/dev", "1024x1024", 1, "ada"), ("flux/dev", "1024x768", 2, "eve"), ("flux-realism", "1024x1024", 1, None)]
for index, (project, key) in enumerate(made):
    images = OpenAI(base_url=f"{BASE}/v1", api_key=key.value, max_retries=0).images
    for model, size, n, user in sold[: index % 3 + 1]:
        more = {"user": user} if user else {}
        images.generate(model=model, prompt="a lighthouse", size=size, n=n, **more)

# What was charged, request by request.
rows = client.get(f"{BASE}/admin/v1/generations?limit=1000", cast_to=object)["data"]
assert len(rows) == 7, rows
for row in rows:
    history = client.get(f"{BASE}/admin/v1/generations/{row['id']}", cast_to=object)
    row.update(size=history["size"], source=history["source"], at=row["settled_at"])
    revenue = [entry["amount_usd"] for entry in history["ledger"] if entry["account"] == "revenue"]
    assert revenue == [row["price_usd"]], (revenue, row)
names = {"project_id": "project_id", "user_id": "user", "api_key_id": "api_key_id", "model": "model", "size": "size",
         "source": "source"}


def expected(width, groups, keep=lambda row: True):
    sums = {}
    for row in filter(keep, rows):
        group = tuple(row.get(names[name]) if name in groups else None for name in names)
        images, requests, amount = sums.get((row["at"] // width * width, group), (0, 0, Decimal(0)))
        new = (images + row["num_images"], requests + 1, amount + Decimal(row["price_usd"]))
        sums[(row["at"] // width * width, group)] = new
    return sums


def told(buckets):
    sums = {}
    for bucket in buckets:
        assert bucket.object == "bucket", bucket
        for row in bucket.results:
            assert row.object == "organization.usage.images.result", row
            key = (bucket.start_time, tuple(getattr(row, name) for name in names))
            assert key not in sums, key
            sums[key] = (row.images, row.num_model_requests, Decimal(row.amount_usd))
    return sums


# --- buckets, groups, filters, pages ----------------------------------------------------------------------------------
usage = organization.usage.images
groups = [[], ["model"], ["project_id"], ["user_id"], ["api_key_id"], ["size"], ["source"], ["project_id", "model"],
          list(names)]
end = int(time.time()) + 1
for width, seconds, limit in [("1m", 60, 1440), ("1h", 3600, 24), ("1d", 86400, 31)]:
    for group in groups:
        asked = {"start_time": start, "end_time": end, "bucket_width": width, "limit": limit}
        found = told(pages(usage, group_by=group, **asked))
        assert found == expected(seconds, group), (width, group, found)
    buckets = pages(usage, start_time=end - 3 * seconds, end_time=end, bucket_width=width, limit=1)
    edges = [(bucket.start_time, bucket.end_time) for bucket in buckets]
    assert all(first[1] == second[0] for first, second in zip(edges, edges[1:])), edges
    assert all(edge[1] - edge[0] == seconds for edge in edges), edges
first_project, (first_key, second_key) = made[0][0], (made[0][1].id, made[1][1].id)
for filters, keep in [
    ({"project_ids": [first_project]}, lambda row: row["project_id"] == first_project),
    ({"api_key_ids": [first_key, second_key]}, lambda row: row["api_key_id"] in (first_key, second_key)),
    ({"models": ["flux-realism"]}, lambda row: row["model"] == "flux-realism"),
    ({"user_ids": ["ada", "eve"]}, lambda row: row.get("user") in ("ada", "eve")),
    ({"sizes": ["1024x1024"]}, lambda row: row["size"] == "1024x1024"),
    ({"sources": ["image.generation"]}, lambda row: row["source"] == "image.generation"),
    ({"models": ["flux/dev"], "sizes": ["1024x768"]}, lambda row: row["model"] == "flux/dev" and row["size"] == "1024x768"),
]:
    for width, seconds in [("1h", 3600), ("1d", 86400)]:
        found = told(pages(usage, start_time=start, bucket_width=width, group_by=["model"], limit=24, **filters))
        assert found == expected(seconds, ["model"], keep), (filters, width, found)
assert told(pages(usage, start_time=start - 86400, end_time=start)) == {}

# --- costs, to the nano-dollar ----------------------------------------------------------------------------------------
costs = organization.usage.costs
for group, name in [("line_item", "model"), ("project_id", "project_id"), ("api_key_id", "api_key_id"), ("user_id", "user_id")]:
    found = {}
    for bucket in pages(costs, start_time=start - 3 * 86400, group_by=[group], limit=2):
        for row in bucket.results:
            found[getattr(row, group)] = Decimal(row.amount.value_usd)
    wanted = {}
    for (_, key), (_, _, amount) in expected(86400, [name]).items():
        wanted[key[list(names).index(name)]] = amount
    assert found == wanted, (group, found, wanted)
whole = [row for bucket in pages(costs, start_time=start) for row in bucket.results]
assert [Decimal(row.amount.value_usd) for row in whole] == [sum(Decimal(row["price_usd"]) for row in rows)], whole
for wrong in [{"start_time": start, "end_time": start}, {"start_time": start, "bucket_width": "1h"},
              {"start_time": start, "limit": 181}, {"start_time": start, "page": "soon"}]:
    refused(openai.BadRequestError, costs, **wrong)
for wrong in [{"start_time": start, "bucket_width": "2d"}, {"start_time": start, "limit": 32},
              {"start_time": start, "group_by": ["batch"]}, {"start_time": start, "project_ids": ["nobody"]}]:
    refused(openai.BadRequestError, usage, **wrong)
print("the SDK reads usage and costs")
