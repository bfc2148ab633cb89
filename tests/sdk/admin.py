"""Administers a gateway with OpenAI's official SDK; fails at the first thing that is not as the SDK's types say."""

import os
import time

import openai
from openai import OpenAI

BASE = os.environ["IMAGEGATE_URL"]
client = OpenAI(base_url=f"{BASE}/v1", api_key="", admin_api_key=os.environ["IMAGEGATE_ADMIN"], max_retries=0)
organization = client.admin.organization
projects = organization.projects


def images(key):
    return OpenAI(base_url=f"{BASE}/v1", api_key=key, max_retries=0).images


def generate(key, **more):
    return images(key).generate(model="flux/dev", prompt="a lighthouse", size="1024x1024", **more)


def refused(error, call, *args, **kwargs):
    try:
        call(*args, **kwargs)
    except error:
        return
    raise AssertionError(f"{call} was not refused with {error}")


def eventually(call):
    end = time.time() + 60
    while True:
        try:
            return call()
        except AssertionError:
            if time.time() > end:
                raise
            time.sleep(0.1)


# --- projects ---------------------------------------------------------------------------------------------------------
made = [projects.create(name=f"project {n}") for n in range(5)]
first = made[0]
assert first.object == "organization.project" and first.status == "active" and first.archived_at is None, first
assert abs(first.created_at - time.time()) < 600, first
listed = [project.id for project in projects.list(limit=2)]
assert listed[:5] == [project.id for project in reversed(made)] and len(listed) == 6, listed
page = projects.list(limit=2)
assert page.has_more and page.last_id == made[3].id, page
assert projects.retrieve(first.id) == first
assert projects.update(first.id, name="renamed").name == "renamed"
assert projects.retrieve(first.id).name == "renamed"
gone = projects.archive(made[4].id)
assert gone.status == "archived" and gone.archived_at is not None, gone
assert made[4].id not in [project.id for project in projects.list()]
assert made[4].id in [project.id for project in projects.list(include_archived=True)]
refused(openai.NotFoundError, projects.retrieve, "proj_none")
refused(openai.BadRequestError, projects.create, name="")
default = [project for project in projects.list() if project.name == "default"][0]
refused(openai.ConflictError, projects.archive, default.id)

# --- service accounts and keys ----------------------------------------------------------------------------------------
accounts = projects.service_accounts
account = accounts.create(first.id, name="worker")
assert account.object == "organization.project.service_account" and account.role == "member", account
value = account.api_key.value
assert account.api_key.object == "organization.project.service_account.api_key" and account.api_key.expires_at is None
assert generate(value).data[0].url
bare = accounts.create(first.id, name="bare", create_service_account_only=True)
assert bare.role == "none" and bare.api_key is None, bare
assert [one.id for one in accounts.list(first.id)] == [bare.id, account.id]
assert accounts.update(bare.id, project_id=first.id, name="dressed", role="owner").role == "owner"
assert accounts.retrieve(bare.id, project_id=first.id).name == "dressed"
refused(openai.NotFoundError, accounts.retrieve, bare.id, project_id=made[1].id)
second = accounts.api_keys.create(bare.id, project_id=first.id, name="second", expires_in_seconds=3600)
assert abs(second.expires_at - time.time() - 3600) < 600, second
assert generate(second.value).data[0].url

keys = projects.api_keys
listed = list(keys.list(first.id, limit=1))
assert [key.id for key in listed] == [second.id, account.api_key.id], listed
key = keys.retrieve(account.api_key.id, project_id=first.id)
assert key.object == "organization.project.api_key" and key.owner.type == "service_account", key
assert key.owner.service_account.id == account.id and key.owner_project_access == "active", key
assert value.startswith(key.redacted_value.rstrip(".")) and len(key.redacted_value) < 20, key
assert abs(key.last_used_at - time.time()) < 60, key
assert keys.list(default.id).data[0].owner.user.id == "operator"
assert keys.update(key.id, project_id=first.id, expires_in_seconds=1).expires_at <= time.time() + 2
eventually(lambda: refused(openai.AuthenticationError, generate, value))
refused(openai.ConflictError, keys.update, key.id, project_id=first.id, expires_in_seconds=60)
deleted = keys.delete(second.id, project_id=first.id)
assert deleted.deleted and deleted.object == "organization.project.api_key.deleted", deleted
refused(openai.AuthenticationError, generate, second.value)
refused(openai.NotFoundError, keys.retrieve, second.id, project_id=first.id)
refused(openai.NotFoundError, keys.retrieve, key.id, project_id=made[1].id)
third = accounts.api_keys.create(bare.id, project_id=first.id)
gone = accounts.delete(bare.id, project_id=first.id)
assert gone.deleted and gone.object == "organization.project.service_account.deleted", gone
refused(openai.AuthenticationError, generate, third.value)
assert [one.id for one in accounts.list(first.id)] == [account.id]
temporary = accounts.create(made[1].id, name="temporary").api_key.value
assert generate(temporary).data
projects.archive(made[1].id)
refused(openai.AuthenticationError, generate, temporary)
refused(openai.ConflictError, accounts.create, made[1].id, name="late")

# --- admin keys -------------------------------------------------------------------------------------------------------
admins = organization.admin_api_keys
admin = admins.create(name="second operator", expires_in_seconds=600)
assert admin.value.startswith("sk-ig-admin-") and admin.object == "organization.admin_api_key", admin
assert admins.retrieve(admin.id).redacted_value.rstrip(".") in admin.value
assert admin.id in [one.id for one in admins.list(limit=1)]
assert [one.id for one in admins.list(order="asc")][-1] == admin.id
other = OpenAI(base_url=f"{BASE}/v1", api_key="", admin_api_key=admin.value, max_retries=0)
assert other.admin.organization.projects.retrieve(first.id).id == first.id
assert admins.delete(admin.id).object == "organization.admin_api_key.deleted"
refused(openai.AuthenticationError, other.admin.organization.projects.list)
setting = [one for one in admins.list() if one.owner.name == "setting"][0]
refused(openai.ConflictError, admins.delete, setting.id)

# --- the audit log ----------------------------------------------------------------------------------------------------
logs = organization.audit_logs
events = list(logs.list(limit=7))
assert all(a.effective_at >= b.effective_at for a, b in zip(events, events[1:])), "newest first"
assert events[0].type == "api_key.deleted" and events[0].api_key_deleted.id == admin.id, events[0]
assert events[0].actor.type == "api_key" and events[0].actor.session.ip_address == "127.0.0.1", events[0]
assert events[0].actor.api_key.id == setting.id, events[0]
assert "OpenAI/Python" in events[0].actor.session.user_agent, events[0]
renamed = logs.list(event_types=["project.updated"], resource_ids=[first.id]).data[0]
assert renamed.project_updated.changes_requested.title == "renamed", renamed
assert renamed.before["name"] == "project 0" and renamed.after["name"] == "renamed", renamed
assert renamed.project.id == first.id and renamed.project.name == "renamed", renamed
kinds = {event.type for event in events}
for kind in ["project.created", "project.archived", "service_account.created", "service_account.updated",
             "service_account.deleted", "api_key.created", "api_key.updated", "api_key.deleted"]:
    assert kind in kinds, f"{kind} is not among {kinds}"
assert {event.project.id for event in logs.list(project_ids=[made[1].id])} == {made[1].id}
assert logs.list(actor_ids=[admin.id]).data == [] and logs.list(event_types=["login.failed"]).data == []
assert logs.list(effective_at={"gt": int(time.time()) + 60}).data == []
assert len(list(logs.list(effective_at={"gte": first.created_at - 1, "lte": int(time.time()) + 60}))) > 10
before = logs.list(before=events[5].id, limit=3)
assert [event.id for event in before.data] == [event.id for event in events[2:5]], before
for secret in [value, second.value, admin.value]:
    assert secret not in str([event.to_dict() for event in events]), "a key is in the audit log"
print("the SDK administers")
