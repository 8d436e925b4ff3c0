//! Generative-AI API keys: create, list, get, update, renew, set the state of a secret, move, delete.
//!
//! A key belongs to a region and is not there for requests at another one. A secret leaves this module in the
//! answer of the create or renew that made it, and nowhere else.

use std::sync::Arc;

use honshu_domain::{Error, ErrorKind, Ocid, ResourceKind, Result, Timestamp};
use honshu_policy::Operation;
use honshu_store::{ApiKeyRow, Change, SecretRow, SecretState, StoreError};
use honshu_wire::oci;

use crate::api_key_life::{default_expiry, new_secret, renew, set_state, shown_state};
use crate::check::{Problems, read_tags, tags_text};
use crate::context::{OpCtx, Versioned, etag, if_match_names};
use crate::control::Control;
use crate::limits::{CHANGE_TRIES_MAX, SECRETS_MAX};
use crate::paging::{Page, PageRequest, SortKey};
use crate::secret::PlainSecret;
use crate::state::KeyEntry;

/// Filters of ListApiKeys.
#[derive(Debug, Clone, Default)]
pub struct ListApiKeys {
    /// `compartmentId`: an OCID, a name or `root`.
    pub compartment_id: String,
    /// `lifecycleState`; all keys are `ACTIVE`.
    pub lifecycle_state: Option<String>,
    /// `displayName`, exact.
    pub display_name: Option<String>,
    /// `id`.
    pub id: Option<String>,
    /// Order and page.
    pub page: PageRequest,
}

/// What a change of a key is asked to do to its row.
type Edit<'a> = &'a (dyn Fn(&mut ApiKeyRow) -> Result<bool> + Sync);

impl Control {
    /// Makes a key with one or two secrets, which the answer shows. With a retry token, a repetition within
    /// 24 hours answers with the same key, and with the secrets while they are still in memory.
    ///
    /// # Errors
    /// 400 with every problem; not found for a compartment that is not there or not allowed; 409
    /// `InvalidatedRetryToken` for a token that asked for something else.
    pub async fn create_api_key(
        &self,
        ctx: &OpCtx,
        details: oci::CreateApiKeyDetails,
        retry_token: Option<&str>,
    ) -> Result<Versioned<oci::ApiKey>> {
        const OPERATION: Operation = Operation::CreateApiKey;
        let mut problems = Problems::default();
        problems.key_name("displayName", &details.display_name);
        problems.description(
            "description",
            details.description.as_deref().unwrap_or_default(),
        );
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        if details.key_details.is_empty() || details.key_details.len() > SECRETS_MAX {
            problems.add(
                "keyDetails",
                format!("must have 1 to {SECRETS_MAX} elements"),
            );
        }
        for (place, key) in details.key_details.iter().enumerate() {
            let path = format!("keyDetails[{place}].keyName");
            problems.key_name(&path, &key.key_name);
            let earlier = details.key_details.iter().take(place);
            if earlier
                .clone()
                .any(|other| other.key_name.eq_ignore_ascii_case(&key.key_name))
            {
                problems.add(path, "must differ from the other secret's name");
            }
            check_expiry(
                &mut problems,
                &format!("keyDetails[{place}].timeExpiry"),
                key,
                ctx.now,
            );
        }
        problems.done()?;
        let compartment = self.resolve_compartment(ctx, OPERATION, &details.compartment_id)?;
        self.authorize_operation(ctx, OPERATION, &compartment)?;

        let id = Ocid::generate(ResourceKind::ApiKey, ctx.region.name(), &*self.entropy);
        let retry = self.retry_entry(ctx, OPERATION.name(), retry_token, id.as_str(), &details)?;
        if let Some(earlier) = self.earlier(ctx, retry.as_ref()).await? {
            return self.repeated(ctx, OPERATION, &earlier);
        }
        let mut secrets = Vec::with_capacity(SECRETS_MAX);
        let mut rows = Vec::with_capacity(SECRETS_MAX);
        for key in &details.key_details {
            let secret = PlainSecret::generate(&*self.entropy);
            rows.push(new_secret(
                &key.key_name,
                secret.digest(&self.pepper),
                secret.mask(),
                key.time_expiry.unwrap_or_else(|| default_expiry(ctx.now)),
                ctx.now,
            ));
            secrets.push((key.key_name.clone(), secret));
        }
        let row = ApiKeyRow {
            id,
            compartment,
            region: ctx.region.name().to_owned(),
            display_name: details.display_name,
            description: details.description,
            freeform_tags: tags_text(details.freeform_tags.as_ref())?,
            defined_tags: tags_text(details.defined_tags.as_ref())?,
            created: ctx.now,
            updated: ctx.now,
            version: 1,
            secrets: rows,
        };
        let mut shown = show(&row, |_| None, ctx.now);
        reveal(&mut shown.value, &secrets);
        if let Some(retry) = &retry {
            self.secrets_again.keep(retry, ctx.now, secrets);
        }
        match self
            .change(
                ctx,
                OPERATION.name(),
                retry.clone(),
                vec![Change::InsertApiKey(row)],
            )
            .await
        {
            Ok(_) => Ok(shown),
            Err(error) => self.failed_or_repeated(ctx, OPERATION, retry, error).await,
        }
    }

    /// Lists the keys of one compartment in the region.
    ///
    /// # Errors
    /// Not found for a compartment that is not there or not allowed; 400 for a bad filter.
    pub fn list_api_keys(
        &self,
        ctx: &OpCtx,
        asked: &ListApiKeys,
    ) -> Result<Page<oci::ApiKeySummary>> {
        const OPERATION: Operation = Operation::ListApiKeys;
        let compartment = self.resolve_compartment(ctx, OPERATION, &asked.compartment_id)?;
        self.authorize_operation(ctx, OPERATION, &compartment)?;
        let keys = Arc::clone(&self.state.load().keys);
        let items: Vec<&Arc<KeyEntry>> = keys
            .by_id
            .values()
            .filter(|entry| {
                entry.row.compartment == compartment
                    && entry.row.region == ctx.region.name()
                    && asked
                        .display_name
                        .as_ref()
                        .is_none_or(|name| *name == entry.row.display_name)
                    && asked
                        .id
                        .as_ref()
                        .is_none_or(|id| id == entry.row.id.as_str())
                    && asked
                        .lifecycle_state
                        .as_ref()
                        .is_none_or(|state| state.eq_ignore_ascii_case("ACTIVE"))
            })
            .collect();
        let page = asked.page.cut(items, |entry| SortKey {
            name: entry.row.display_name.clone(),
            created_us: entry.row.created.as_micros(),
            id: entry.row.id.as_str().to_owned(),
        })?;
        Ok(page.map(|entry| show_entry(entry, ctx.now).value))
    }

    /// Gets a key, with its last-used times as this node knows them, and without any secret.
    ///
    /// # Errors
    /// Not found.
    pub fn get_api_key(&self, ctx: &OpCtx, id: &str) -> Result<Versioned<oci::ApiKey>> {
        let entry = self.find_api_key(ctx, Operation::GetApiKey, id)?;
        Ok(show_entry(&entry, ctx.now))
    }

    /// Changes name, description or tags.
    ///
    /// # Errors
    /// 400, not found, 412 when `if_match` names another version.
    pub async fn update_api_key(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::UpdateApiKeyDetails,
        if_match: Option<&str>,
    ) -> Result<Versioned<oci::ApiKey>> {
        let mut problems = Problems::default();
        if let Some(name) = &details.display_name {
            problems.key_name("displayName", name);
        }
        problems.description(
            "description",
            details.description.as_deref().unwrap_or_default(),
        );
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        problems.done()?;
        self.edit(ctx, Operation::UpdateApiKey, id, if_match, &|row| {
            if let Some(name) = &details.display_name {
                row.display_name.clone_from(name);
            }
            if let Some(text) = &details.description {
                row.description = Some(text.clone());
            }
            set_tags(
                row,
                details.freeform_tags.as_ref(),
                details.defined_tags.as_ref(),
            )?;
            Ok(true)
        })
        .await
    }

    /// Gives one secret a new value and a new end; the other one serves on. The answer shows the new value.
    ///
    /// # Errors
    /// 400, not found, 409 `Conflict` for a revoked secret, 409 `InvalidatedRetryToken`, 412.
    pub async fn renew_api_key(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::RenewApiKeyDetails,
        if_match: Option<&str>,
        retry_token: Option<&str>,
    ) -> Result<Versioned<oci::ApiKey>> {
        const OPERATION: Operation = Operation::RenewApiKey;
        let mut problems = Problems::default();
        problems.key_name("details.keyName", &details.details.key_name);
        check_expiry(
            &mut problems,
            "details.timeExpiry",
            &details.details,
            ctx.now,
        );
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        problems.done()?;
        // The caller may have lost the right to the key since: that comes before the repetition.
        self.find_api_key(ctx, OPERATION, id)?;
        let retry = self.retry_entry(ctx, OPERATION.name(), retry_token, id, &(id, &details))?;
        if let Some(earlier) = self.earlier(ctx, retry.as_ref()).await? {
            return self.repeated(ctx, OPERATION, &earlier);
        }
        let name = details.details.key_name.clone();
        let expires = details
            .details
            .time_expiry
            .unwrap_or_else(|| default_expiry(ctx.now));
        for _ in 0..CHANGE_TRIES_MAX {
            let entry = self.find_api_key(ctx, OPERATION, id)?;
            check_if_match(if_match, entry.row.version)?;
            let mut row = next_version(&entry, ctx.now);
            let secret = PlainSecret::generate(&*self.entropy);
            renew(
                secret_named(&mut row, &name, "details.keyName")?,
                secret.digest(&self.pepper),
                secret.mask(),
                expires,
                ctx.now,
            )?;
            set_tags(
                &mut row,
                details.freeform_tags.as_ref(),
                details.defined_tags.as_ref(),
            )?;
            let secrets = vec![(name.clone(), secret)];
            let mut shown = show(&row, |place| row.secrets.get(place)?.last_used, ctx.now);
            reveal(&mut shown.value, &secrets);
            if let Some(retry) = &retry {
                self.secrets_again.keep(retry, ctx.now, secrets);
            }
            let change = Change::PutApiKey(row, entry.row.version);
            match self
                .change(ctx, OPERATION.name(), retry.clone(), vec![change])
                .await
            {
                Ok(_) => return Ok(shown),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(error) => return self.failed_or_repeated(ctx, OPERATION, retry, error).await,
            }
        }
        Err(busy())
    }

    /// Sets the state of one secret: `ACTIVE`, `INACTIVE` or, for good, `REVOKED`. It holds on this node when
    /// this returns.
    ///
    /// # Errors
    /// 400, not found, 409 `Conflict` for what cannot be undone, 412.
    pub async fn set_api_key_state(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::SetApiKeyStateDetails,
        if_match: Option<&str>,
    ) -> Result<Versioned<oci::ApiKey>> {
        let mut problems = Problems::default();
        let asked = SecretState::parse(&details.state.to_ascii_uppercase());
        if asked.is_none() {
            problems.add("state", "must be `ACTIVE`, `INACTIVE` or `REVOKED`");
        }
        problems.key_name("keyName", &details.key_name);
        problems.tags(
            details.freeform_tags.as_ref(),
            details.defined_tags.as_ref(),
        );
        problems.done()?;
        self.edit(ctx, Operation::SetApiKeyState, id, if_match, &|row| {
            let Some(asked) = asked else { return Ok(false) };
            let changed = set_state(
                secret_named(row, &details.key_name, "keyName")?,
                asked,
                ctx.now,
            )?;
            let tagged = details.freeform_tags.is_some() || details.defined_tags.is_some();
            set_tags(
                row,
                details.freeform_tags.as_ref(),
                details.defined_tags.as_ref(),
            )?;
            Ok(changed || tagged)
        })
        .await
    }

    /// Moves a key to another compartment, whose policies hold from then on. Takes the permission to move in
    /// the old one and to create in the new one.
    ///
    /// # Errors
    /// Not found for key or compartment, 412.
    pub async fn change_api_key_compartment(
        &self,
        ctx: &OpCtx,
        id: &str,
        details: oci::ChangeApiKeyCompartmentDetails,
        if_match: Option<&str>,
    ) -> Result<Versioned<oci::ApiKey>> {
        const OPERATION: Operation = Operation::ChangeApiKeyCompartment;
        self.find_api_key(ctx, OPERATION, id)?;
        let target = self.resolve_compartment(ctx, OPERATION, &details.compartment_id)?;
        self.authorize_operation(ctx, OPERATION, &target)?;
        self.authorize_operation(ctx, Operation::CreateApiKey, &target)?;
        self.edit(ctx, OPERATION, id, if_match, &|row| {
            let changed = row.compartment != target;
            row.compartment = target.clone();
            Ok(changed)
        })
        .await
    }

    /// Deletes a key with its secrets. It is refused on this node when this returns.
    ///
    /// # Errors
    /// Not found, 412.
    pub async fn delete_api_key(
        &self,
        ctx: &OpCtx,
        id: &str,
        if_match: Option<&str>,
    ) -> Result<()> {
        const OPERATION: Operation = Operation::DeleteApiKey;
        for _ in 0..CHANGE_TRIES_MAX {
            let entry = self.find_api_key(ctx, OPERATION, id)?;
            check_if_match(if_match, entry.row.version)?;
            let change = Change::DeleteApiKey(entry.row.id.clone(), entry.row.version);
            match self.change(ctx, OPERATION.name(), None, vec![change]).await {
                Ok(_) => return Ok(()),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(StoreError::NotFound) => return Err(self.missing(ctx, OPERATION, id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy())
    }

    /// Finds a key of this region and demands the permission in its compartment.
    fn find_api_key(&self, ctx: &OpCtx, operation: Operation, id: &str) -> Result<Arc<KeyEntry>> {
        self.refuse_keys(ctx)?;
        let found = Ocid::parse(id)
            .ok()
            .and_then(|id| self.state.load().keys.by_id.get(&id).cloned())
            .filter(|entry| entry.row.region == ctx.region.name())
            .ok_or_else(|| self.missing(ctx, operation, id))?;
        self.authorize_operation(ctx, operation, &found.row.compartment)?;
        Ok(found)
    }

    /// Changes a key. Without `if-match`, a change that somebody else was faster with is made again on top.
    async fn edit(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        id: &str,
        if_match: Option<&str>,
        edit: Edit<'_>,
    ) -> Result<Versioned<oci::ApiKey>> {
        for _ in 0..CHANGE_TRIES_MAX {
            let entry = self.find_api_key(ctx, operation, id)?;
            check_if_match(if_match, entry.row.version)?;
            let mut row = next_version(&entry, ctx.now);
            if !edit(&mut row)? {
                return Ok(show_entry(&entry, ctx.now));
            }
            let shown = show(&row, |place| row.secrets.get(place)?.last_used, ctx.now);
            let change = Change::PutApiKey(row, entry.row.version);
            match self.change(ctx, operation.name(), None, vec![change]).await {
                Ok(_) => return Ok(shown),
                Err(StoreError::Stale) if if_match.is_none() => {}
                Err(StoreError::NotFound) => return Err(self.missing(ctx, operation, id)),
                Err(error) => return Err(error.into()),
            }
        }
        Err(busy())
    }

    /// Answers a repetition: the key as it is now, with the secrets of the earlier answer if they are kept.
    fn repeated(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        earlier: &honshu_store::RetryEntry,
    ) -> Result<Versioned<oci::ApiKey>> {
        let entry = self.find_api_key(ctx, operation, &earlier.resource)?;
        let mut shown = show_entry(&entry, ctx.now);
        // A secret that was renewed since has another digest and is not shown.
        for (item, row) in shown.value.keys.iter_mut().zip(&entry.row.secrets) {
            item.key = self
                .secrets_again
                .find(earlier, ctx.now, &self.pepper, &row.digest);
        }
        Ok(shown)
    }

    /// After a failed change: the same request may have been faster on another connection.
    async fn failed_or_repeated(
        &self,
        ctx: &OpCtx,
        operation: Operation,
        retry: Option<honshu_store::RetryEntry>,
        error: StoreError,
    ) -> Result<Versioned<oci::ApiKey>> {
        if matches!(error, StoreError::RetryTokenTaken)
            && let Some(earlier) = self.earlier(ctx, retry.as_ref()).await?
        {
            return self.repeated(ctx, operation, &earlier);
        }
        Err(error.into())
    }
}

fn check_expiry(problems: &mut Problems, path: &str, key: &oci::KeyDetails, now: Timestamp) {
    if key.time_expiry.is_some_and(|expires| expires <= now) {
        problems.add(path, "must lie in the future");
    }
}

fn check_if_match(if_match: Option<&str>, version: i64) -> Result<()> {
    match if_match {
        Some(asked) if !if_match_names(asked, version) => Err(Error::new(
            ErrorKind::PreconditionFailed,
            "the resource has another version than `if-match` names; read it again",
        )),
        _ => Ok(()),
    }
}

/// Everybody changes this row at once: later.
fn busy() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "too many changes to the resource at the same time; try again",
    )
}

/// The row to be changed, with the last-used times of this node, so that a change does not set them back.
fn next_version(entry: &KeyEntry, now: Timestamp) -> ApiKeyRow {
    let mut row = entry.row.clone();
    for (place, secret) in row.secrets.iter_mut().enumerate() {
        secret.last_used = entry.last_used(place);
    }
    row.updated = now;
    row.version += 1;
    row
}

fn secret_named<'a>(row: &'a mut ApiKeyRow, name: &str, path: &str) -> Result<&'a mut SecretRow> {
    row.secrets
        .iter_mut()
        .find(|secret| secret.name == name)
        .ok_or_else(|| Error::invalid_at(path, "names no secret of this key"))
}

fn set_tags(
    row: &mut ApiKeyRow,
    freeform: Option<&oci::FreeformTags>,
    defined: Option<&oci::DefinedTags>,
) -> Result<()> {
    if freeform.is_some() {
        row.freeform_tags = tags_text(freeform)?;
    }
    if defined.is_some() {
        row.defined_tags = tags_text(defined)?;
    }
    Ok(())
}

fn show_entry(entry: &KeyEntry, now: Timestamp) -> Versioned<oci::ApiKey> {
    show(&entry.row, |place| entry.last_used(place), now)
}

fn show(
    row: &ApiKeyRow,
    last_used: impl Fn(usize) -> Option<Timestamp>,
    now: Timestamp,
) -> Versioned<oci::ApiKey> {
    let keys = row
        .secrets
        .iter()
        .enumerate()
        .map(|(place, secret)| oci::ApiKeyItem {
            key: None,
            key_name: secret.name.clone(),
            key_mask: secret.mask.clone(),
            time_created: secret.created,
            time_expiry: secret.expires,
            time_activated: secret.activated,
            time_deactivated: secret.deactivated,
            time_revoked: secret.revoked,
            time_last_used: last_used(place),
            state: shown_state(secret, now).as_str().to_owned(),
        })
        .collect();
    Versioned {
        value: oci::ApiKey {
            id: row.id.clone(),
            display_name: row.display_name.clone(),
            description: row.description.clone(),
            compartment_id: row.compartment.clone(),
            time_created: row.created,
            time_updated: Some(row.updated),
            keys,
            lifecycle_state: "ACTIVE".to_owned(),
            lifecycle_details: None,
            freeform_tags: read_tags(&row.freeform_tags),
            defined_tags: read_tags(&row.defined_tags),
            system_tags: oci::DefinedTags::new(),
        },
        etag: etag(row.version),
    }
}

fn reveal(key: &mut oci::ApiKey, secrets: &[(String, PlainSecret)]) {
    for (name, secret) in secrets {
        for item in key.keys.iter_mut().filter(|item| item.key_name == *name) {
            item.key = Some(secret.reveal().to_owned());
        }
    }
}
