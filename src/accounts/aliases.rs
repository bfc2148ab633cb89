//! The operator's own names for models: made and deleted here, kept in memory by the ring.

use std::collections::HashMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::Accounts;
use super::audit::Change;
use super::error::AccountsError;
use super::keys::check_name;
use crate::domain::{Alias, AliasTable, Aliases, ProjectId};
use crate::store::{AliasRecord, AuditEvent};

/// The most aliases that a project, or the gateway, may have.
const MOST_ALIASES: usize = 500;
/// The longest text of an alias's values, in bytes.
const LONGEST_VALUES: usize = 16 * 1024;

/// The aliases of each project, and under `None` everybody's.
pub(super) type AliasTables = HashMap<Option<ProjectId>, Arc<AliasTable>>;

/// What `/v1/models/…` has beside models.
const RESERVED: [&str; 2] = ["deprecations", "metrics"];

/// Errors for an id that no path can name.
fn check_id(id: &str) -> Result<(), AccountsError> {
    if id.split('/').any(|segment| matches!(segment, "" | "." | "..")) {
        let message = "the id of an alias has no empty part, `.` or `..` between its slashes";
        return Err(AccountsError::Invalid(message.to_owned()));
    }
    if RESERVED.contains(&id.to_ascii_lowercase().as_str()) {
        return Err(AccountsError::Invalid(format!(
            "`{id}` cannot be an alias: `/v1/models/{id}` is a path of its own"
        )));
    }
    Ok(())
}

/// Sorts aliases by whose they are; of the same id the later one stays.
pub(super) fn tables<'a>(records: impl IntoIterator<Item = &'a AliasRecord>) -> AliasTables {
    let mut tables: HashMap<Option<ProjectId>, AliasTable> = HashMap::new();
    for record in records {
        let table = tables.entry(record.project_id).or_default();
        table.insert(record.alias.id.to_ascii_lowercase(), Arc::new(record.alias.clone()));
    }
    tables.into_iter().map(|(project, table)| (project, Arc::new(table))).collect()
}

fn is_same(record: &AliasRecord, project: Option<ProjectId>, id: &str) -> bool {
    record.project_id == project && record.alias.id.eq_ignore_ascii_case(id)
}

impl Accounts {
    /// The aliases that callers of a project have: its own before everybody's. Without a project, everybody's.
    #[must_use]
    pub fn aliases(&self, project: Option<ProjectId>) -> Aliases {
        self.inner.aliases(project)
    }

    /// Whether models are shown otherwise to the holders of some keys: to projects with aliases of their own, and to whom not every
    /// model is allowed.
    #[must_use]
    pub fn keys_see_own_models(&self) -> bool {
        self.inner.keys_see_own_models()
    }

    /// All aliases, those of the settings file first. Where both have one of the same id and project, the file's counts.
    pub async fn list_aliases(&self) -> Result<Vec<AliasRecord>, AccountsError> {
        let given = self.inner.given_aliases();
        let stored = self.inner.store.stored_aliases().await?.into_iter();
        let is_given = |record: &AliasRecord| given.iter().any(|one| is_same(one, record.project_id, &record.alias.id));
        let stored: Vec<AliasRecord> = stored.filter(|record| !is_given(record)).collect();
        Ok(given.iter().cloned().chain(stored).collect())
    }

    /// Takes on the aliases of the settings file, in place of those that it gave before.
    pub async fn give_aliases(&self, aliases: Vec<AliasRecord>) -> Result<(), AccountsError> {
        aliases.iter().try_for_each(|record| check_id(&record.alias.id))?;
        Ok(self.inner.give_aliases(aliases).await?)
    }

    /// Makes an alias, or changes the one of the same id and project; known here at once and to every replica within a
    /// second. Whoever calls this has checked it against the catalogue.
    ///
    /// Errors: [`AccountsError::AliasGiven`] where the settings file gives that one, [`AccountsError::UnknownProject`].
    pub async fn put_alias(&self, project: Option<ProjectId>, alias: Alias) -> Result<AliasRecord, AccountsError> {
        self.refuse_given(project, &alias.id)?;
        check_id(&alias.id)?;
        for text in [&alias.name, &alias.description].into_iter().flatten() {
            check_name(text)?;
        }
        if Value::from(alias.defaults.clone()).to_string().len() + Value::from(alias.fixed.clone()).to_string().len()
            > LONGEST_VALUES
        {
            return Err(AccountsError::Invalid(format!("the values of an alias have at most {LONGEST_VALUES} bytes")));
        }
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            if let Some(project) = project {
                self.open_project(&mut transaction, project).await?;
            }
            let all = transaction.model_aliases().await?;
            let before = all.iter().find(|record| is_same(record, project, &alias.id));
            let siblings = all.iter().filter(|record| record.project_id == project).count();
            if before.is_none() && siblings >= MOST_ALIASES {
                return Err(AccountsError::Invalid(format!("there may be at most {MOST_ALIASES} aliases here")));
            }
            let created_at = before.and_then(|before| before.created_at).or(Some(self.inner.clock.now()));
            let record = AliasRecord { project_id: project, alias, created_at };
            transaction.put_model_alias(&record).await?;
            let event = if before.is_some() { AuditEvent::ModelAliasUpdated } else { AuditEvent::ModelAliasCreated };
            let (before, after) = (before.map(state), state(&record));
            let change = Change {
                event,
                project_id: project,
                resource_id: record.alias.id.clone(),
                before: before.as_ref(),
                after: &after,
            };
            self.record(&mut transaction, change).await?;
            self.commit(transaction).await?;
            Ok(record)
        }))
        .await
    }

    /// Deletes an alias; known here at once and to every replica within a second.
    ///
    /// Errors: [`AccountsError::UnknownAlias`], [`AccountsError::AliasGiven`] where the settings file gives it.
    pub async fn delete_alias(&self, project: Option<ProjectId>, id: &str) -> Result<AliasRecord, AccountsError> {
        self.refuse_given(project, id)?;
        self.in_time(Box::pin(async {
            let mut transaction = self.begin().await?;
            let all = transaction.model_aliases().await?;
            let found = all.into_iter().find(|record| is_same(record, project, id));
            let record = found.ok_or(AccountsError::UnknownAlias)?;
            transaction.delete_model_alias(project, id).await?;
            let change = Change {
                event: AuditEvent::ModelAliasDeleted,
                project_id: project,
                resource_id: record.alias.id.clone(),
                before: Some(&state(&record)),
                after: &Value::Null,
            };
            self.record(&mut transaction, change).await?;
            self.commit(transaction).await?;
            Ok(record)
        }))
        .await
    }

    fn refuse_given(&self, project: Option<ProjectId>, id: &str) -> Result<(), AccountsError> {
        let is_given = self.inner.given_aliases().iter().any(|record| is_same(record, project, id));
        if is_given { Err(AccountsError::AliasGiven) } else { Ok(()) }
    }
}

/// What the audit log keeps of an alias.
fn state(record: &AliasRecord) -> Value {
    let Alias { id: _, target, name, description, defaults, fixed } = &record.alias;
    json!({"target": target, "name": name, "description": description, "defaults": defaults, "fixed": fixed})
}
