//! Projects and keys on both databases.

use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio_util::task::TaskTracker;

use super::*;
use crate::domain::{ApiKeyId, IdSource, ManualClock, Money, ProjectId, SystemIds, Timestamp};
use crate::store::testing::{TestDatabase, on_both_databases};
use crate::store::{Store, StoreError};

const NOW: Timestamp = Timestamp::from_seconds(1_795_248_000);

async fn accounts_of(store: Store) -> Accounts {
    Accounts::load(store, Arc::new(ManualClock::at(NOW)), Arc::new(SystemIds)).await.unwrap()
}

async fn open(database: &TestDatabase) -> Accounts {
    accounts_of(database.store().await).await
}

fn new_key(kind: CallerKind) -> NewKey {
    NewKey::new(kind, "a key".to_owned())
}

on_both_databases! {
    async fn a_key_opens_what_it_was_made_for(database) {
        let accounts = open(&database).await;
        let project = accounts.create_project("shop").await.unwrap();
        let (record, secret) = accounts.create_key(new_key(CallerKind::Project(project.id))).await.unwrap();
        let caller = accounts.authenticate(secret.expose(), NOW).unwrap();
        assert_eq!((caller.api_key_id, caller.kind), (record.id, CallerKind::Project(project.id)));
        assert_eq!(&*caller.name, "a key");
        let (record, secret) = accounts.create_key(new_key(CallerKind::Admin)).await.unwrap();
        let caller = accounts.authenticate(secret.expose(), NOW).unwrap();
        assert_eq!((caller.api_key_id, caller.kind), (record.id, CallerKind::Admin));
        for wrong in ["", "sk-ig-", &secret.expose()[1..], &secret.expose().to_uppercase()] {
            assert_eq!(accounts.authenticate(wrong, NOW), Err(AuthError::Unknown));
        }
    }

    async fn no_key_is_in_the_database(database) {
        let accounts = open(&database).await;
        let project = accounts.create_project("shop").await.unwrap();
        let (record, secret) = accounts.create_key(new_key(CallerKind::Project(project.id))).await.unwrap();
        assert_eq!(record.prefix, secret.expose()[..12]);
        let count = |column: &str, value: &str| {
            format!("SELECT COUNT(*) FROM api_keys WHERE CAST({column} AS TEXT) LIKE '%{value}%'")
        };
        let random = &secret.expose()[12..];
        for column in ["name", "prefix", "hash"] {
            assert_eq!(accounts.inner.store.number(&count(column, random)).await, 0);
        }
        assert_eq!(accounts.inner.store.number(&count("prefix", &record.prefix)).await, 1);
    }

    async fn a_revoked_key_stops_here_at_once_and_elsewhere_soon(database) {
        let here = open(&database).await;
        let there = open(&database).await;
        let tracker = TaskTracker::new();
        there.watch(&tracker, &Handle::current());
        here.create_key(new_key(CallerKind::Admin)).await.unwrap();
        let (record, secret) = here.create_key(new_key(CallerKind::Admin)).await.unwrap();
        let wait_until = async |wanted: Result<(), AuthError>| {
            for _ in 0..2000 {
                if there.authenticate(secret.expose(), NOW).map(drop) == wanted {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            panic!("it did not happen: {:?}", there.authenticate(secret.expose(), NOW));
        };
        wait_until(Ok(())).await;
        here.revoke_key(record.id).await.unwrap();
        assert_eq!(here.authenticate(secret.expose(), NOW), Err(AuthError::Revoked(record.id)));
        wait_until(Err(AuthError::Revoked(record.id))).await;
        tracker.close();
        drop(there);
        tokio::time::timeout(Duration::from_mins(1), tracker.wait()).await.unwrap();
    }

    async fn a_key_expires_at_its_time(database) {
        let accounts = open(&database).await;
        let end = NOW.plus(Duration::from_mins(1));
        let (record, secret) = accounts
            .create_key(NewKey { expires_at: Some(end), ..new_key(CallerKind::Admin) })
            .await
            .unwrap();
        let before = Timestamp::from_micros(end.micros() - 1);
        assert!(accounts.authenticate(secret.expose(), before).is_ok());
        assert_eq!(accounts.authenticate(secret.expose(), end), Err(AuthError::Expired(record.id)));
        accounts.update_key(record.id, KeyChange { expires_at: Some(None), ..KeyChange::default() }).await.unwrap();
        assert!(accounts.authenticate(secret.expose(), end).is_ok());
    }

    async fn the_keys_of_an_archived_project_stop_and_it_takes_no_new_ones(database) {
        let accounts = open(&database).await;
        let project = accounts.create_project("shop").await.unwrap();
        let (record, secret) = accounts.create_key(new_key(CallerKind::Project(project.id))).await.unwrap();
        let archived = accounts.archive_project(project.id).await.unwrap();
        assert_eq!(archived.archived_at, Some(NOW));
        assert_eq!(accounts.authenticate(secret.expose(), NOW), Err(AuthError::ProjectArchived(record.id)));
        assert!(matches!(
            accounts.create_key(new_key(CallerKind::Project(project.id))).await,
            Err(AccountsError::ProjectArchived)
        ));
        let rename = ProjectChange { name: Some("store".to_owned()), ..ProjectChange::default() };
        assert!(matches!(accounts.update_project(project.id, rename).await, Err(AccountsError::ProjectArchived)));
        let terms = ProjectChange { prompt_retention: Some(0), ..ProjectChange::default() };
        assert_eq!(accounts.update_project(project.id, terms).await.unwrap().name, "shop");
        let default = accounts.default_project().await.unwrap();
        assert!(matches!(accounts.archive_project(default.id).await, Err(AccountsError::DefaultProject)));
    }

    async fn a_setting_key_replaces_the_value_before_it_and_may_go_back(database) {
        let accounts = open(&database).await;
        let works = |value: &str| accounts.authenticate(value, NOW).is_ok();
        let first = accounts.ensure_setting_key(KeyKind::Admin, "correct-horse-battery").await.unwrap();
        assert_eq!((first.prefix.as_str(), first.origin), ("corre", KeyOrigin::Setting));
        let again = accounts.ensure_setting_key(KeyKind::Admin, "correct-horse-battery").await.unwrap();
        assert_eq!(again.id, first.id);
        accounts.ensure_setting_key(KeyKind::Admin, "another").await.unwrap();
        assert!(works("another") && !works("correct-horse-battery"));
        accounts.ensure_setting_key(KeyKind::Admin, "correct-horse-battery").await.unwrap();
        assert!(works("correct-horse-battery") && !works("another"));
        assert!(accounts.drop_setting_key(KeyKind::Admin).await.unwrap());
        assert!(!works("correct-horse-battery"));
        assert!(!accounts.drop_setting_key(KeyKind::Admin).await.unwrap());
    }

    async fn the_two_settings_are_told_apart(database) {
        let accounts = open(&database).await;
        accounts.ensure_setting_key(KeyKind::Admin, "for-admins").await.unwrap();
        accounts.ensure_setting_key(KeyKind::Project, "for-the-shop").await.unwrap();
        let default = accounts.default_project().await.unwrap();
        assert_eq!(accounts.authenticate("for-admins", NOW).unwrap().kind, CallerKind::Admin);
        assert_eq!(accounts.authenticate("for-the-shop", NOW).unwrap().kind, CallerKind::Project(default.id));
        assert!(matches!(
            accounts.ensure_setting_key(KeyKind::Project, "for-admins").await,
            Err(AccountsError::ValueInUse("IMAGEGATE_BOOTSTRAP_KEY"))
        ));
        let (_, secret) = accounts.create_key(new_key(CallerKind::Admin)).await.unwrap();
        assert!(matches!(
            accounts.ensure_setting_key(KeyKind::Admin, secret.expose()).await,
            Err(AccountsError::ValueInUse("IMAGEGATE_ADMIN_KEY"))
        ));
        assert!(matches!(
            accounts.ensure_setting_key(KeyKind::Admin, "two words").await,
            Err(AccountsError::UnusableValue)
        ));
        assert!(accounts.authenticate("for-admins", NOW).is_ok());
    }

    async fn replicas_that_start_together_make_the_first_keys_once(database) {
        let mut replicas = Vec::new();
        for _ in 0..3 {
            replicas.push(open(&database).await);
        }
        let results = join_all(replicas.iter().map(Accounts::ensure_first_keys)).await;
        let made: Vec<_> = results
            .into_iter()
            .map(Result::unwrap)
            .filter(|first| first.admin.is_some() || first.project.is_some())
            .collect();
        let [FirstKeys { admin: Some(admin), project: Some(project) }] = made.as_slice() else {
            panic!("{made:?}");
        };
        replicas[0].refresh().await.unwrap();
        assert_eq!(replicas[0].authenticate(admin.expose(), NOW).unwrap().kind, CallerKind::Admin);
        let default = replicas[0].default_project().await.unwrap();
        assert_eq!((default.name.as_str(), default.is_default), ("default", true));
        let caller = replicas[0].authenticate(project.expose(), NOW).unwrap();
        assert_eq!(caller.kind, CallerKind::Project(default.id));
        assert_eq!(replicas[0].list_projects().await.unwrap().len(), 1);
    }

    async fn first_keys_are_made_only_of_the_kind_that_is_missing(database) {
        let accounts = open(&database).await;
        accounts.ensure_setting_key(KeyKind::Admin, "for-admins").await.unwrap();
        let first = accounts.ensure_first_keys().await.unwrap();
        assert!(first.admin.is_none() && first.project.is_some());
        let second = accounts.ensure_first_keys().await.unwrap();
        assert_eq!(second, FirstKeys { admin: None, project: None });
        // A revoked one is not made again: somebody wanted it gone.
        for key in accounts.list_keys(None).await.unwrap() {
            let revoked = accounts.revoke_key(key.id).await;
            assert!(revoked.is_ok() || matches!(revoked, Err(AccountsError::LastOwner)) && key.kind == KeyKind::Admin);
        }
        assert_eq!(accounts.ensure_first_keys().await.unwrap(), FirstKeys { admin: None, project: None });
    }

    async fn keys_and_their_terms_are_listed_as_they_were_made(database) {
        let accounts = open(&database).await;
        let project = accounts.create_project("shop").await.unwrap();
        let (made, secret) = accounts
            .create_key(NewKey {
                budget: Some(Money::from_nanos(5)),
                allowed_models: Some(vec!["flux/dev".to_owned()]),
                ..new_key(CallerKind::Project(project.id))
            })
            .await
            .unwrap();
        accounts.create_key(new_key(CallerKind::Admin)).await.unwrap();
        assert_eq!(accounts.list_keys(None).await.unwrap().len(), 2);
        assert_eq!(accounts.list_keys(Some(project.id)).await.unwrap(), std::slice::from_ref(&made));
        let caller = accounts.authenticate(secret.expose(), NOW).unwrap();
        assert!(caller.may_use("flux/dev", "x") && caller.may_use("FLUX/dev", "x") && !caller.may_use("flux/pro", "x"));
        assert!(caller.may_use("flux/pro", "flux/dev"), "the list may have an alias");
        let change = KeyChange { allowed_models: Some(None), name: Some("new".to_owned()), ..KeyChange::default() };
        let changed = accounts.update_key(made.id, change).await.unwrap();
        assert_eq!((changed.name.as_str(), changed.budget), ("new", made.budget));
        assert!(accounts.authenticate(secret.expose(), NOW).unwrap().may_use("flux/pro", "flux/pro"));
    }

    async fn the_terms_of_a_project_can_be_changed_one_by_one(database) {
        let accounts = open(&database).await;
        let project = accounts.create_project("shop").await.unwrap();
        let limit = ProjectChange { spend_limit: Some(Some(Money::from_nanos(7))), ..ProjectChange::default() };
        accounts.update_project(project.id, limit).await.unwrap();
        let prepaid = ProjectChange { prepaid: Some(true), ..ProjectChange::default() };
        let changed = accounts.update_project(project.id, prepaid).await.unwrap();
        assert_eq!((changed.spend_limit, changed.prepaid), (Some(Money::from_nanos(7)), true));
        assert_eq!(accounts.project(project.id).await.unwrap(), Some(changed));
        let lifted = ProjectChange { spend_limit: Some(None), ..ProjectChange::default() };
        assert_eq!(accounts.update_project(project.id, lifted).await.unwrap().spend_limit, None);
    }

    async fn what_cannot_be_is_refused(database) {
        let accounts = open(&database).await;
        let nobody = ProjectId::from_uuid(SystemIds.uuid());
        assert!(matches!(
            accounts.create_key(new_key(CallerKind::Project(nobody))).await,
            Err(AccountsError::UnknownProject)
        ));
        assert!(matches!(
            accounts.revoke_key(ApiKeyId::from_uuid(SystemIds.uuid())).await,
            Err(AccountsError::UnknownKey)
        ));
        for name in ["", " ", "a\0b", &"x".repeat(201)] {
            assert!(matches!(accounts.create_project(name).await, Err(AccountsError::Invalid(_))));
        }
        let below_zero = NewKey { budget: Some(Money::from_nanos(-1)), ..new_key(CallerKind::Admin) };
        assert!(matches!(accounts.create_key(below_zero).await, Err(AccountsError::Invalid(_))));
    }

    async fn keys_work_while_the_database_is_away(database) {
        let accounts = open(&database).await;
        let (_, secret) = accounts.create_key(new_key(CallerKind::Admin)).await.unwrap();
        accounts.inner.store.close().await;
        assert!(accounts.authenticate(secret.expose(), NOW).is_ok());
        assert!(matches!(
            accounts.create_key(new_key(CallerKind::Admin)).await,
            Err(AccountsError::Store(StoreError::Unreachable(_)))
        ));
    }
}
